"""--profile: PyTorch's profiler over a few steps, as a trace to look at and a table to read.

`profile/trace.json` opens in chrome://tracing or ui.perfetto.dev; `profile/summary.txt` names the operators that took
the time. The first steps are skipped: allocators, caches and compiled code need some to warm up.
"""

import atexit
import os
import platform
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity

from groundup.files.atomic import write_file
from groundup.files.layout import PROFILE_SUMMARY, TRACE
from groundup.loop.trainer import Callback, StepMetrics, Trainer
from groundup.runtime.device import device_name

WARMUP_STEPS, STEPS = 11, 5
"""Steps that are skipped, and steps that are profiled. None of these is a multiple of ten: behind such a step a run
writes metrics, measures how fast products are, and evaluates."""
MUCH = 0.1
"""Share of the steps' time from which what passed between them is told."""
TOP = 20
"""Lines of a table."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What the window spent in one operator or kernel itself, without what it called."""

    name: str
    seconds: float
    calls: int


class Profile(Callback):
    """Watch STEPS steps after the first WARMUP_STEPS of this session, then let the run go on.

    It is the first of the callbacks, so that the window ends before the others act after its last step. What they do
    between two of its steps is in the trace and in the tables, which say so where it takes long.

    Args:
        folder: Where trace.json and summary.txt go.
        say: Called with a line when it is done.
    """

    def __init__(self, *, folder: Path, say: Callable[[str], None]) -> None:
        self.folder, self.say = folder, say
        self._steps = 0
        self._seconds = self._opened = self._between = 0.0
        self._profiler: torch.profiler.profile | None = None

    def on_fit_start(self, trainer: Trainer) -> None:
        """Set the window; until it comes, nothing is recorded and nothing slowed down."""
        # What it prints when it starts and stops would tear the live line.
        os.environ.setdefault("KINETO_LOG_LEVEL", "6")
        activities = [ProfilerActivity.CPU]
        if trainer.device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        self._profiler = torch.profiler.profile(
            activities=activities,
            schedule=torch.profiler.schedule(wait=WARMUP_STEPS - 1, warmup=1, active=STEPS, repeat=1),
            on_trace_ready=lambda profiler: self._write(profiler, trainer),
            acc_events=True,  # else it warns that events of other windows would be lost; there is one window
        )
        self._profiler.start()
        atexit.register(self._abandon)

    def on_step_end(self, trainer: Trainer, metrics: StepMetrics) -> None:
        """One step further; after the last of the window both files are written."""
        if self._profiler is None:
            return
        self._steps += 1
        if self._steps > WARMUP_STEPS:
            self._seconds += metrics.seconds
            self._between = time.perf_counter() - self._opened - self._seconds
        self._profiler.step()
        if self._steps == WARMUP_STEPS:
            self._opened = time.perf_counter()
        if self._steps == WARMUP_STEPS + STEPS:
            self._profiler = None

    def on_fit_end(self, trainer: Trainer) -> None:
        """Keep what a run that ends early has shown."""
        if self._profiler is None:
            return
        self._stop()
        if self._steps <= WARMUP_STEPS:
            self.say(f"no profile: the window opens after {WARMUP_STEPS} steps, and there were {self._steps}")

    def _stop(self) -> None:
        if self._profiler is not None:
            self._profiler.stop()
            self._profiler = None

    def _abandon(self) -> None:
        """After a run that failed in its window: a profiler that is open when Python ends crashes the process."""
        self._steps = 0
        self._stop()

    def _write(self, profiler: torch.profiler.profile, trainer: Trainer) -> None:
        """Write both files. A disk that refuses them does not end the run."""
        steps = min(self._steps - WARMUP_STEPS, STEPS)
        if steps < 1:
            return
        try:
            self.folder.mkdir(exist_ok=True)
            profiler.export_chrome_trace(str(self.folder / TRACE))
            text = tables(profiler, trainer.device, steps, self._seconds / steps, self._between / steps)
            write_file(self.folder / PROFILE_SUMMARY, text.encode())
        except (OSError, RuntimeError, ValueError) as error:
            self.say(f"no profile: {error}")
            return
        self.say(f"profiled {steps} steps: read {self.folder / PROFILE_SUMMARY}, open {self.folder / TRACE}")


def tables(
    profiler: torch.profiler.profile, device: torch.device, steps: int, step_seconds: float, between: float
) -> str:
    """The tables of summary.txt.

    Args:
        profiler: After its window.
        device: That computed.
        steps: In the window.
        step_seconds: Wall time of one, on average, as the profiler lets it run.
        between: And from one to the next.
    """
    events = [e for e in profiler.key_averages() if not str(e.key).startswith("ProfilerStep")]
    parts = [
        f"{steps} steps of {1e3 * step_seconds:.2f} ms on {device_name(device)},"
        f" PyTorch {torch.__version__}, Python {platform.python_version()}",
        "The profiler slows small steps down: shares mean more than times. An operator's time is its own, without"
        " what it\ncalls; times are per step.",
    ]
    if between > MUCH * step_seconds:
        parts.append(
            f"Between two steps {1e3 * between:.2f} ms passed, for metrics, evaluation or samples; they are in"
            " the tables, too.\n--log-every, --eval.every and others move them out of these steps."
        )
    hosts = [e for e in events if e.device_type.name == "CPU"]
    if device.type == "cuda":
        kernels = [e for e in events if e.device_type.name == "CUDA" and not e.is_user_annotation]
        parts += [
            _table("kernels on the GPU", _spent(kernels, "self_device_time_total"), steps, step_seconds),
            _table("operators, by GPU time", _spent(hosts, "self_device_time_total"), steps, step_seconds),
        ]
    parts.append(_table("operators, by CPU time", _spent(hosts, "self_cpu_time_total"), steps, step_seconds))
    return "\n\n".join(parts) + "\n"


def _spent(events: Iterable[torch.autograd.profiler_util.FunctionEventAvg], attribute: str) -> list[Spent]:
    """Profiler events, the slowest first; its times are in microseconds."""
    rows = [Spent(str(e.key), getattr(e, attribute) / 1e6, e.count) for e in events]
    return sorted((row for row in rows if row.seconds > 0), key=lambda row: -row.seconds)


def _table(title: str, rows: list[Spent], steps: int, step_seconds: float) -> str:
    total = sum(row.seconds for row in rows)
    lines = [
        f"{title}: {1e3 * total / steps:.2f} ms, {total / steps / step_seconds:.0%} of the step",
        f"{'ms':>10}{'share':>8}{'calls':>9}  name",
    ]
    if len(rows) > TOP:
        others = rows[TOP:]
        others_row = Spent(f"({len(others)} others)", sum(r.seconds for r in others), sum(r.calls for r in others))
        rows = [*rows[:TOP], others_row]
    for row in rows:
        name = row.name if len(row.name) <= 80 else row.name[:77] + "..."
        lines.append(f"{1e3 * row.seconds / steps:>10.3f}{row.seconds / total:>8.1%}{row.calls / steps:>9.4g}  {name}")
    return "\n".join(lines)
