"""What a reader of somebody else's files hands over, and what every reader needs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from groundup.config.errors import UserError
from groundup.config.model import GPTConfig


@dataclass(frozen=True, slots=True)
class Foreign:
    """A model from elsewhere, under our names and in our layout, not yet checked against its shape."""

    config: GPTConfig
    """Its vocab_size counts the rows of the embedding, padding included."""
    state: dict[str, Tensor]
    info: dict[str, Any]
    """What is known of its training."""
    note: str = ""
    """What the user should know: where our model is not exactly theirs."""


def load_pickled_tensors(path: Path) -> Any:
    """Read a PyTorch file with the unpickler that builds tensors and plain containers, and runs nothing.

    Raises:
        UserError: It cannot be read, or holds anything else.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:
        # Damaged and hostile files make every kind of exception; PyTorch's own text spans a page.
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(f"{path} is not a plain PyTorch file of tensors, and nothing else is read: {reason}") from error
