"""Whether a step may change the weights: NaN, loss spikes, fp16 overflows.

The guard sees two numbers per step, the loss and the gradient norm, which are the same on all ranks (the trainer
averages both in one exchange). So all ranks make the same decision without another exchange.

A spike is a value more than THRESHOLD deviations above the median of the last WINDOW finite values; a gradient norm
must be NORM_FACTOR medians, too. Median and median absolute deviation are used, not mean and standard deviation, with
which one spike in the window would hide the next. Only finite values enter: with a running sum, one NaN would disable
the detector for good; with a plain window, for as long as the NaN is in it. Finite spikes do enter, so that a level
that stays becomes the new normal. The window is saved with the run, so that a resumed run skips the same steps.
"""

import math
import statistics
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

WINDOW = 128
"""Finite values that a new one is compared with."""
ENOUGH = 32
"""With fewer values nothing is called a spike: in the first steps of a run the loss changes fast."""
THRESHOLD = 6.0
"""Deviations above the median; of a normal distribution, one value in a billion lies there."""
NORM_FACTOR = 5.0
"""A gradient norm must also be so many medians: norms have long tails. Of 1,200 steps of a healthy run, 6 were more
than 6 deviations above the median and the largest was 2.6 medians; clipping takes care of those."""
LEAST_DEVIATION = 1e-3
"""A deviation is at least this share of the median: else, among values that barely change, any change is a spike."""
MAX_OVERFLOWS = 50
"""fp16 steps skipped in a row that stop a run: the loss scale was halved that often, so it is not the cause."""


class Window:
    """The last finite values of one number.

    Args:
        values: The first ones, the oldest first.
    """

    def __init__(self, values: Iterable[float] = ()) -> None:
        self.values = deque(values, WINDOW)

    def add(self, value: float) -> None:
        """Remember a value, unless it is not finite."""
        if math.isfinite(value):
            self.values.append(value)

    def deviations(self, value: float) -> float:
        """How far a value is above the median, in deviations (1.4826 MAD: sigma of a normal distribution)."""
        if len(self.values) < ENOUGH:
            return 0.0
        median = statistics.median(self.values)
        spread = 1.4826 * statistics.median(abs(v - median) for v in self.values)
        return (value - median) / max(spread, LEAST_DEVIATION * abs(median), math.ulp(1.0))


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a step is made."""

    act: Literal["go", "skip", "stop"]
    reason: str = ""
    """What is wrong; empty when nothing is that a user needs to know."""
    flag: str = ""
    """The flag with which a resumed run skips such a step; empty where there is none."""


class Guard:
    """Checks every step before it changes the weights.

    Args:
        nonfinite: What to do about a loss or gradient that is not finite.
        spikes: What to do about a spike.
        max_skips: Steps skipped in a row that stop the run.
    """

    def __init__(
        self,
        *,
        nonfinite: Literal["stop", "skip"] = "stop",
        spikes: Literal["off", "warn", "skip", "stop"] = "warn",
        max_skips: int = 10,
    ) -> None:
        self.nonfinite, self.spikes, self.max_skips = nonfinite, spikes, max_skips
        self.losses, self.grad_norms = Window(), Window()
        self.skipped_in_a_row = 0

    def judge(self, loss: float, grad_norm: float, *, scaled: bool) -> Decision:
        """Decide about one step, and remember its numbers.

        Args:
            loss: Mean over the step.
            grad_norm: Before clipping.
            scaled: fp16: an infinite gradient under a finite loss only says that the scale was too large.
        """
        act, reason, flag, most = "go", "", "", self.max_skips
        if not math.isfinite(loss) or not (scaled or math.isfinite(grad_norm)):
            act, reason = self.nonfinite, f"the loss is {loss:.4g} and the gradient norm {grad_norm:.4g}"
            flag = "--guard.nonfinite skip"
        elif not math.isfinite(grad_norm):
            act, most = "skip", MAX_OVERFLOWS
        elif self.spikes != "off" and (reason := self._spike(loss, grad_norm)):
            act, flag = "go" if self.spikes == "warn" else self.spikes, "--guard.spikes skip"
        self.losses.add(loss)
        self.grad_norms.add(grad_norm)
        if act == "go":
            self.skipped_in_a_row = 0
            return Decision("go", reason)
        self.skipped_in_a_row += 1
        if act == "skip" and self.skipped_in_a_row >= most:
            reason = reason or "fp16 gradients overflow, however small the loss is scaled"
            return Decision("stop", f"{reason}; {self.skipped_in_a_row} steps in a row changed nothing")
        return Decision("skip", reason) if act == "skip" else Decision("stop", reason, flag)

    def _spike(self, loss: float, grad_norm: float) -> str:
        """Which of the two is a spike, in words; empty when none is."""
        for name, window, value, factor in (
            ("loss", self.losses, loss, 1.0),
            ("gradient norm", self.grad_norms, grad_norm, NORM_FACTOR),
        ):
            median = statistics.median(window.values or (value,))
            if value > factor * median and (far := window.deviations(value)) > THRESHOLD:
                return f"the {name} {value:.4g} is a spike, {far:.1f} deviations above the median {median:.4g}"
        return ""

    def state_dict(self) -> dict[str, Any]:
        """JSON values; floats come back as they were."""
        return {
            "losses": list(self.losses.values),
            "grad_norms": list(self.grad_norms.values),
            "skipped_in_a_row": self.skipped_in_a_row,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.losses, self.grad_norms = Window(state["losses"]), Window(state["grad_norms"])
        self.skipped_in_a_row = state["skipped_in_a_row"]
