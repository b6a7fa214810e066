"""What hardware can do at best, from the vendors' data sheets. What is not in the table is unknown, not guessed."""

PEAK_TFLOPS: dict[str, dict[str, float]] = {
    # dense rates of the matrix units, without sparsity; fp32 is that of plain multiply-adds
    "T4": {"fp32": 8.1, "fp16": 65},
    "P100": {"fp32": 9.3, "fp16": 18.7},
    "V100": {"fp32": 15.7, "fp16": 125},
    "A10G": {"fp32": 31.2, "tf32": 35, "bf16": 70, "fp16": 70},
    "L4": {"fp32": 30.3, "tf32": 60, "bf16": 121, "fp16": 121},
    "A100": {"fp32": 19.5, "tf32": 156, "bf16": 312, "fp16": 312},
    "RTX 3090": {"fp32": 35.6, "tf32": 35.6, "bf16": 71, "fp16": 71},
    "RTX 4090": {"fp32": 82.6, "tf32": 82.6, "bf16": 165.2, "fp16": 165.2},
    "H100 PCIe": {"fp32": 51, "tf32": 378, "bf16": 756, "fp16": 756},
    "H100": {"fp32": 67, "tf32": 494.7, "bf16": 989.4, "fp16": 989.4},
    "H200": {"fp32": 67, "tf32": 494.7, "bf16": 989.4, "fp16": 989.4},
    "B200": {"fp32": 75, "tf32": 1100, "bf16": 2250, "fp16": 2250},
    "M3": {"fp32": 3.5},  # 10 cores of 128 lanes at 1.38 GHz; Apple publishes the clock and the cores, no rate
}
MEMORY_GB: dict[str, float] = {
    "T4": 16,
    "P100": 16,
    "V100": 16,
    "A10G": 24,
    "L4": 24,
    "A100": 80,
    "RTX 3090": 24,
    "RTX 4090": 24,
    "H100 PCIe": 80,
    "H100": 80,
    "H200": 141,
    "B200": 180,
    "M3": 8,
}
"""Memory of the smallest version that is sold today; of the M3 the whole machine's, which its GPU shares."""
REACHED = {"H100": 0.46}
"""Share of the rate that training of 124M to 1.5B in bf16 was measured to reach on one (benchmarks/gpu-h100*.json)."""
ASSUMED = 0.4
"""The same of a device that nobody has measured."""
VARIANTS = {"Laptop", "Max", "Ti", "SUPER", "D", "NVL"}
"""Words that make another chip, or another clock, of a known name."""


def peak_flops_of(device_name: str, precision: str) -> float | None:
    """FLOP/s of a GPU by the name its driver gives it; None where the table does not know.

    Args:
        device_name: Such as "NVIDIA A100-SXM4-80GB".
        precision: fp32, tf32, bf16 or fp16.
    """
    parts = device_name.replace("-", " ").split()
    if VARIANTS.intersection(parts):
        return None
    # Longer names first: "H100 PCIe" is not "H100".
    for key in sorted(PEAK_TFLOPS, key=len, reverse=True):
        if set(key.split()) <= set(parts):
            rate = PEAK_TFLOPS[key].get(precision)
            return rate * 1e12 if rate else None
    return None
