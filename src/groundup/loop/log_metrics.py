"""The metrics of the steps: to the log, and as a line to the terminal."""

from collections.abc import Callable
from typing import Any

from groundup.loop.callbacks import Every
from groundup.loop.trainer import Callback, StepMetrics, Trainer
from groundup.records.metrics import PEAK_AT_END, PEAK_AT_START, Logger
from groundup.terminal.display import Display

LONG = 30.0
"""Seconds of training after which a session measures the peak again at its end."""


class LogMetrics(Callback):
    """Write and show the numbers of a step, and the speed since the last such line.

    Args:
        when: When a line is due. One more is written where a session ends between two.
        log: Where lines go.
        display: The terminal.
        lr: Peak learning rate.
        flops_per_token: For MFU.
        peak_flops: Peak FLOP/s of the machine, where it is known.
        measure_peak: Measures it, which takes a second: for the second line, as who waits for the first one shall not
            wait for this; at the end, which shows whether the machine was as free as at the start; and where a
            step was faster than the peak. With neither, MFU is left out.
    """

    def __init__(
        self,
        *,
        when: Every,
        log: Logger,
        display: Display,
        lr: float,
        flops_per_token: float,
        peak_flops: float | None,
        measure_peak: Callable[[], float] | None = None,
    ) -> None:
        self.measure_peak = measure_peak
        self.when, self.log, self.display, self.lr = when, log, display, lr
        self.flops_per_token, self.peak_flops = flops_per_token, peak_flops
        self._first_peak = peak_flops
        self._lines = 0
        self._session = 0.0
        self._seconds = 0.0
        self._steps = 0
        self._parts: dict[str, float] = {}

    def on_step_end(self, trainer: Trainer, metrics: StepMetrics) -> None:
        """Add up times, and write a line when it is due; notes of a step are written at once."""
        for note in metrics.notes:
            self.log.write(step=trainer.state.step, event=note)
            self.display.say(note)
        self._session += metrics.seconds
        self._seconds += metrics.seconds
        self._steps += 1
        for part, seconds in metrics.parts.items():
            self._parts[part] = self._parts.get(part, 0.0) + seconds
        if self.when(trainer) or trainer.finished:
            self._write(trainer, metrics)
        else:
            self.display.tick(trainer.state.step)

    def on_fit_end(self, trainer: Trainer) -> None:
        """Write the peak that MFU was a share of, and that of now."""
        if self._first_peak and self.measure_peak is not None and self._session >= LONG:
            last = self.measure_peak()
            self.log.write(step=trainer.state.step, **{PEAK_AT_START: self._first_peak, PEAK_AT_END: last})

    def _mfu(self, tokens_per_sec: float) -> float | None:
        """The share of the peak; None where that is unknown, or the step is faster even when it is measured again."""
        if self.peak_flops is None and self.measure_peak is not None and self._lines > 1:
            self.peak_flops = self._first_peak = self.measure_peak()
        if not self.peak_flops:
            return None
        flops = tokens_per_sec * self.flops_per_token
        if flops > self.peak_flops and self.measure_peak is not None:  # it was measured at a bad moment
            self.peak_flops = max(self.peak_flops, self.measure_peak())
        return flops / self.peak_flops if flops <= self.peak_flops else None

    def _write(self, trainer: Trainer, metrics: StepMetrics) -> None:
        state = trainer.state
        self._lines += 1
        speed = self._steps * trainer.tokens_per_step / self._seconds
        mfu = self._mfu(speed)
        left = (trainer.max_steps - state.step) * self._seconds / self._steps
        parts = {f"perf/{part}_ms": round(1e3 * s / self._steps, 3) for part, s in self._parts.items()}
        self._seconds, self._steps, self._parts = 0.0, 0, {}
        loss = metrics.loss.item()
        values: dict[str, Any] = {
            "step": state.step,
            "tokens": state.tokens_seen,
            "seconds": round(state.seconds, 3),
            "train/loss": loss,
            "optim/lr": metrics.lr_scale * self.lr,
            "optim/grad_norm": metrics.grad_norm.item(),
            "perf/tokens_per_sec": round(speed, 1),
        }
        if mfu is not None:
            values["perf/mfu"] = round(mfu, 4)
        if state.skipped_steps:
            values["optim/skipped_steps"] = state.skipped_steps
        self.log.write(**values, **parts)
        self.display.update(step=state.step, loss=loss, tokens_per_sec=speed, mfu=mfu, left=left)
