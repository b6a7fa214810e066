"""The global random generators, kept and restored as tensors.

Dropout draws from them; data order and sampling have their own generators and never touch these.
"""

import hashlib

import torch
from torch import Tensor


def seed_rank(seed: int, *, rank: int = 0, step: int = 0) -> None:
    """Seed the generators so that no two ranks drop the same units.

    Args:
        seed: Of the run; rank 0 at step 0 takes it as it is.
        rank: Of this process.
        step: Where a rank begins that was not there before.
    """
    if rank or step:
        seed = int.from_bytes(hashlib.sha256(f"{seed} {rank} {step}".encode()).digest()[:7])
    torch.manual_seed(seed)


def capture_rng() -> dict[str, Tensor]:
    """State of PyTorch's generators on the CPU and on this process's GPU."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    if torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state()
    return state


def restore_rng(state: dict[str, Tensor]) -> None:
    """Put the generators back; a device this machine has not is passed over."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    if "mps" in state and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"])
