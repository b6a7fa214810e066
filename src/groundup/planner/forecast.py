"""A run on named hardware: does it fit, how long does it take, and what helps where it does not fit.

Time is arithmetic: FLOPs of the run, divided by what the devices reach. A GPU's rate is its data sheet's, times the
share of it that training reaches (`mfu`), measured or assumed; `here` is measured, and needs no share.
"""

import dataclasses
import re
from dataclasses import dataclass

from groundup.config.errors import UsageError
from groundup.config.printable import counted
from groundup.config.train import TrainConfig
from groundup.planner.hardware import ASSUMED, MEMORY_GB, PEAK_TFLOPS, REACHED
from groundup.planner.memory import Arithmetic, Memory, largest_micro_batch, memory_of_run, shared
from groundup.planner.plan import Plan, in_parts, size

USABLE = 0.9
"""Share of a device's memory that a run can have: the driver and holes between blocks take the rest."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """Equal devices that share each step.

    Args:
        name: As a person says it, such as "2 x T4".
        count: Devices.
        precision: Arithmetic of the products: fp32, bf16 or fp16.
        flops: FLOP/s of one device: the data sheet's, or what training was measured to reach.
        memory: Bytes of one device that a run can have.
        reached: Share of `flops` that training was measured to reach; None where nobody has.
        measured: Whether `flops` was measured in training, so that no share of it is lost any more.
        cpu: A CPU, which keeps more for the backward pass.
        kernels: Of the CPU: ours compute what can be computed with less.
        bf16: Of the CPU: they multiply in bfloat16.
    """

    name: str
    count: int
    precision: str
    flops: float
    memory: int
    reached: float | None = None
    measured: bool = False
    cpu: bool = False
    kernels: bool = False
    bf16: bool = False

    @property
    def arithmetic(self) -> Arithmetic:
        """How a device computes a step."""
        return Arithmetic(
            half=self.precision in ("bf16", "fp16"),
            cpu=self.cpu,
            kernels=self.kernels,
            bf16=self.bf16,
            device_memory=int(self.memory / USABLE),
        )


def parse_hardware(text: str) -> Hardware:
    """Hardware by name: "T4", "2xT4", "8xH100".

    Raises:
        UsageError: A device that the table does not know, or no number before the x.
    """
    match = re.fullmatch(r"(?:([0-9]{1,6})\s*x\s*)?(.+)", text.strip(), re.IGNORECASE)
    wanted = match[2].lower() if match else ""
    name = next((key for key in MEMORY_GB if key.lower() == wanted), None)
    if match is None or name is None or not int(match[1] or 1):
        known = ", ".join(MEMORY_GB)
        raise UsageError(
            f"hardware must be here, or a device and how many of it, such as 2xT4; got {text!r} (known: {known})"
        )
    rates = PEAK_TFLOPS[name]
    precision = next(p for p in ("bf16", "fp16", "fp32") if p in rates)
    count = int(match[1] or 1)
    return Hardware(
        name=f"{count} x {name}" if count > 1 else name,
        count=count,
        precision=precision,
        flops=rates[precision] * 1e12,
        memory=int(USABLE * MEMORY_GB[name] * 1e9),
        reached=REACHED.get(name),
    )


@dataclass(frozen=True, slots=True)
class Forecast:
    """A plan on hardware.

    Args:
        plan: The run.
        hardware: Where.
        mfu: Share of the hardware's FLOP/s that training reaches.
        micro_batch_size: The largest number of sequences at a time that fits on one device; 0 where not even one does.
        memory: Of one device at that size, or at one sequence where nothing fits.
        asked: The number of sequences at a time that the run asks for; what fits, where it leaves that open.
        asked_memory: Of one device at that size.
    """

    plan: Plan
    hardware: Hardware
    mfu: float
    micro_batch_size: int
    memory: Memory
    asked: int
    asked_memory: Memory

    @property
    def seconds_per_step(self) -> float:
        """Computing alone: the exchange between devices, evaluation and saving are not in it."""
        return self.plan.flops_per_step / (self.hardware.count * self.hardware.flops * self.mfu)

    @property
    def seconds(self) -> float:
        """The whole run."""
        return self.seconds_per_step * self.plan.config.max_steps

    def rows(self, *, dollars_per_hour: float | None = None) -> list[tuple[str, str]]:
        """What a person wants to know of the run and of its hardware, as (name, value)."""
        here, plan = self.hardware, self.plan
        how = "were measured" if self.mfu == here.reached else "are assumed"
        rate = (
            f"{here.flops / 1e12:.3g} TFLOP/s, measured in training"
            if here.measured
            else f"{here.flops / 1e12:.4g} TFLOP/s each on the data sheet, of which {self.mfu:.0%} {how} (--mfu)"
        )
        fits = (
            f"at most {counted(self.micro_batch_size, 'sequence')} at a time per device, which need"
            f" {size(self.memory.total)}"
            if self.micro_batch_size
            else f"not even 1 sequence: it needs {size(self.memory.total)}"
        )
        hours = self.seconds * here.count / 3600
        several = here.count > 1 and hours >= 1 / 60  # else it is the time in all again, or nearly none
        used = f", {hours:,.1f} device hours" if hours >= 1 else f", {60 * hours:.1f} device minutes" if several else ""
        rows = [
            *plan.rows(memory=False),
            ("hardware", f"{here.name}, {here.precision}, {rate}"),
            ("memory", in_parts(self.asked_memory, f" for {counted(self.asked, 'sequence')} at a time")),
            ("fits", f"{fits} of {here.memory / 1e9:.1f} GB"),
            ("time of a step", f"{duration(self.seconds_per_step)} without exchange, evaluation and saving"),
            ("tokens per second", f"{plan.config.tokens_per_step / self.seconds_per_step:,.0f}"),
            ("time in all", f"{duration(self.seconds)}{used}"),
        ]
        if dollars_per_hour is not None:
            cost = hours * dollars_per_hour
            shown = f"${cost:,.2f}" if cost >= 0.005 else "less than $0.01"
            rows.append(("cost", f"{shown} at ${dollars_per_hour:g} per device hour"))
        rows += [("to make it fit", line) for line in remedies(plan.config, self)]
        return rows


def forecast(plan: Plan, hardware: Hardware, *, mfu: float | None = None) -> Forecast:
    """Find the micro batch, and the time that follows from the FLOPs.

    Args:
        plan: The run.
        hardware: Where.
        mfu: Share of the data sheet's rate; None takes what was measured, or is assumed.

    Raises:
        UsageError: The devices cannot share tokens_per_step evenly.
    """
    samples, rest = divmod(plan.config.tokens_per_step, plan.config.model.block_size * hardware.count)
    if rest:
        plan.config.samples_per_process(hardware.count)  # raises, and says what the run's own micro batch needs
    whole, shares = memory_of_run(plan.config, plan.shape, hardware.arithmetic), _shares(plan.config, hardware)

    def need(size: int) -> Memory:
        return shared(whole(size), shares)

    size = largest_micro_batch(need, samples, hardware.memory)
    named = plan.config.runtime.micro_batch_size
    asked = max(size, 1) if named == "auto" else min(named, samples)
    return Forecast(
        plan=plan,
        hardware=hardware,
        mfu=1.0 if hardware.measured else mfu or hardware.reached or ASSUMED,
        micro_batch_size=size,
        memory=need(max(size, 1)),
        asked=asked,
        asked_memory=need(asked),
    )


def remedies(config: TrainConfig, found: Forecast) -> list[str]:
    """What would make a run fit that does not, each tried by the same arithmetic."""
    if found.micro_batch_size:
        smaller = found.asked > found.micro_batch_size
        return [f"--runtime.micro-batch-size {found.micro_batch_size}"] if smaller else []
    shape, hardware, how = found.plan.shape, found.hardware, found.hardware.arithmetic
    samples = config.tokens_per_step // (shape.block_size * hardware.count)
    own = _shares(config, hardware)
    tries = [("--runtime.recompute", own, True)]
    if own < hardware.count and _may_share(config):
        tries.append(("--runtime.parallel fsdp", hardware.count, config.runtime.recompute))
        if not config.runtime.recompute:
            tries.append(("--runtime.parallel fsdp --runtime.recompute", hardware.count, True))
    lines = [
        f"{flags}: {size} at a time"
        for flags, shares, recompute in tries
        if (
            size := largest_micro_batch(
                memory_of_run(config, shape, how, recompute=recompute), samples, hardware.memory, shares=shares
            )
        )
    ]
    if lines:
        return lines
    shorter = dataclasses.replace(shape, block_size=max(1, shape.block_size // 2))
    flags, shares, _ = tries[-1]
    need = memory_of_run(config, shorter, how, recompute=True)
    if largest_micro_batch(need, 1, hardware.memory, shares=shares):
        return [f"--model.block-size {shorter.block_size} with {flags}"]
    memory = shared(memory_of_run(config, shape, how, recompute=True)(1), own)
    fixed = memory.weights + memory.gradients + memory.optimizer
    return [f"a smaller model: weights, gradients and optimizer alone are {fixed / 1e9:.1f} GB"]


def _shares(config: TrainConfig, hardware: Hardware) -> int:
    """How many devices share what a run keeps; 1 where each has all of it."""
    return hardware.count if config.runtime.parallel == "fsdp" else 1


def _may_share(config: TrainConfig) -> bool:
    """Whether training takes FSDP with the run's other values."""
    alone = config.optim.name == "muon" or config.lora.rank
    return not alone and "on" not in (config.runtime.compile, config.checkpoint.background)


def duration(seconds: float) -> str:
    """Seconds as a person says them: 31 ms, 4.2 s, 12.5 min, 3.1 h, 2.4 days."""
    for limit, unit, name in ((1, 1e-3, "ms"), (120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds / 86_400:,.1f} days"
