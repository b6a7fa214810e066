"""Steps of AdamW on a CPU and the length of all gradients, by adamw.cpp.

PyTorch starts all cores for each tensor, and notes in Python what it is going to do: with a small model that takes
longer than the numbers.
"""

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from groundup.kernels.library import declare, numbers

MOVED = 5
"""Tensors of a step: a parameter, its gradient, the averages of this and of its square, the steps so far (a scalar)."""


class AdamWSteps:
    """Takes steps of AdamW, by a library."""

    def __init__(self, library: ctypes.CDLL) -> None:
        pointer, size = ctypes.c_void_p, ctypes.c_int64
        self._step = declare(library.adamw_step, pointer, pointer, size, pointer)
        self._length = declare(library.length_of, pointer, pointer, size, gives=ctypes.c_double)

    def suit(self, tensors: Sequence[Tensor]) -> bool:
        """Whether kernels can read these: float32 on the CPU, each in one piece."""
        kinds = (Tensor, torch.nn.Parameter)
        return all(type(t) in kinds and t.is_cpu and t.dtype == torch.float32 and t.is_contiguous() for t in tensors)

    def __call__(self, tensors: Sequence[Tensor], lr: float, betas: Sequence[float], eps: float, decay: float) -> None:
        """Take a step: parameters and state change in place.

        Args:
            tensors: MOVED of each parameter, one behind the other.
            lr: The learning rate.
            betas: Of both averages.
            eps: Added to the root.
            decay: Of weights.
        """
        addresses, sizes = [t.data_ptr() for t in tensors], [p.numel() for p in tensors[::MOVED]]
        how = (ctypes.c_double * 5)(lr, *betas, eps, decay)
        self._step(numbers(addresses), numbers(sizes), len(sizes), how)

    def length(self, tensors: Sequence[Tensor]) -> Tensor:
        """The norm of all of them together, a scalar."""
        addresses, sizes = [t.data_ptr() for t in tensors], [t.numel() for t in tensors]
        return torch.tensor(self._length(numbers(addresses), numbers(sizes), len(sizes)), dtype=torch.float32)
