"""The counters of a run, which a checkpoint holds beside the tensors."""

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(slots=True)
class TrainState:
    """Counters of a run. A checkpoint stores them, and a resumed run continues from them."""

    step: int = 0
    """Optimizer steps made."""
    tokens_seen: int = 0
    """Tokens trained on, over all devices."""
    seconds: float = 0.0
    """Time spent in training steps, over all sessions of the run; evaluation and saving are not counted."""
    best_loss: float = math.inf
    """Lowest validation loss so far."""
    best_step: int = -1
    """The step that reached it."""
    skipped_steps: int = 0
    """Steps that changed no weight: fp16 overflows, and what the guard skipped."""
    val_text: str = ""
    """What the losses are measured on (`records.measured`); a checkpoint of an older groundup does not say."""
    val_texts: int = 0
    """How often that has changed."""

    def measure_on(self, text: str, *, before: str) -> bool:
        """Go on with a text of validation; the best loss on another one is forgotten.

        Args:
            text: What losses are measured on from now on.
            before: What they were measured on, where the state does not say; empty is unknown.

        Returns:
            Whether it is another text than before.
        """
        changed = (self.val_text or before or text) != text
        self.val_text = text
        if changed:
            self.best_loss, self.best_step = math.inf, -1
            self.val_texts += 1
        return changed

    def to_dict(self) -> dict[str, Any]:
        """JSON values; an infinite best loss is null."""
        values = asdict(self)
        values["best_loss"] = None if math.isinf(self.best_loss) else self.best_loss
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TrainState":
        """The inverse of `to_dict`."""
        return cls(**{**values, "best_loss": math.inf if values["best_loss"] is None else values["best_loss"]})
