import pytest

from groundup.planner.hardware import PEAK_TFLOPS, peak_flops_of


@pytest.mark.parametrize(
    ("device", "precision", "tflops"),
    [
        ("NVIDIA A100-SXM4-80GB", "bf16", 312),
        ("NVIDIA A100 80GB PCIe", "tf32", 156),
        ("NVIDIA H100 PCIe", "bf16", 756),
        ("NVIDIA H100 80GB HBM3", "bf16", 989.4),
        ("NVIDIA H200", "fp16", 989.4),
        ("Tesla T4", "fp16", 65),
        ("Tesla V100-SXM2-16GB", "fp16", 125),
        ("NVIDIA GeForce RTX 4090", "bf16", 165.2),
        ("NVIDIA L4", "fp32", 30.3),
        ("NVIDIA A10G", "bf16", 70),
    ],
)
def test_known_devices(device, precision, tflops):
    assert peak_flops_of(device, precision) == pytest.approx(tflops * 1e12)


@pytest.mark.parametrize(
    ("device", "precision"),
    [
        ("Tesla T4", "bf16"),  # its matrix units know no bf16
        ("NVIDIA L40S", "bf16"),  # not an L4
        ("NVIDIA RTX 4090 Laptop GPU", "bf16"),  # another chip under the same number
        ("NVIDIA GeForce RTX 4090 D", "bf16"),
        ("NVIDIA GeForce RTX 3090 Ti", "bf16"),
        ("NVIDIA H100 NVL", "bf16"),
        ("NVIDIA T400", "fp16"),
        ("NVIDIA A100X", "bf16"),
        ("Some CPU", "fp32"),
        ("", "fp32"),
    ],
)
def test_what_is_not_in_the_table_is_unknown(device, precision):
    assert peak_flops_of(device, precision) is None


@pytest.mark.parametrize("name", PEAK_TFLOPS)
def test_narrower_is_never_slower(name):
    rates = PEAK_TFLOPS[name]
    order = [rates[p] for p in ("fp32", "tf32", "bf16") if p in rates]
    assert order == sorted(order)
    assert "bf16" not in rates or rates["bf16"] == rates["fp16"]
