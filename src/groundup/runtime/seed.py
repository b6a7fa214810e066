"""The global random generators, kept and restored as tensors.

Dropout draws from them; data order and sampling have their own generators and never touch these.
"""

import torch
from torch import Tensor


def capture_rng() -> dict[str, Tensor]:
    """State of PyTorch's generators on the CPU and on every CUDA device."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state |= {f"cuda{i}": s for i, s in enumerate(torch.cuda.get_rng_state_all())}
    return state


def restore_rng(state: dict[str, Tensor]) -> None:
    """Put the generators back; devices this machine has not are passed over."""
    torch.set_rng_state(state["cpu"])
    for i in range(torch.cuda.device_count()):
        if f"cuda{i}" in state:
            torch.cuda.set_rng_state(state[f"cuda{i}"], i)
