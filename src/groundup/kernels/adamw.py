"""Steps of AdamW on a CPU and the length of all gradients, by adamw.cpp.

PyTorch starts all cores for each tensor, and notes in Python what it is going to do: with a small model that takes
longer than the numbers.
"""

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

Moved = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""A parameter, its gradient, the averages of this and of its square, and the number of steps so far, a scalar."""


class AdamWSteps:
    """Takes steps of AdamW, by a library."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._step, self._length = library.adamw_step, library.length_of
        self._step.argtypes, self._step.restype = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p], None
        self._length.argtypes, self._length.restype = [ctypes.c_void_p, ctypes.c_int64], ctypes.c_double

    def suit(self, tensors: Sequence[Tensor]) -> bool:
        """Whether kernels can read these: float32 on the CPU, each in one piece."""
        kinds = (Tensor, torch.nn.Parameter)
        return all(type(t) in kinds and t.is_cpu and t.dtype == torch.float32 and t.is_contiguous() for t in tensors)

    def __call__(self, tensors: Sequence[Moved], lr: float, betas: Sequence[float], eps: float, decay: float) -> None:
        """Take a step: parameters and state change in place."""
        numbers = [n for t in tensors for n in (*(part.data_ptr() for part in t), t[0].numel())]
        how = (ctypes.c_double * 5)(lr, *betas, eps, decay)
        self._step((ctypes.c_int64 * len(numbers))(*numbers), len(tensors), how)

    def length(self, tensors: Sequence[Tensor]) -> Tensor:
        """The norm of all of them together, a scalar."""
        numbers = [n for t in tensors for n in (t.data_ptr(), t.numel())]
        return torch.tensor(self._length((ctypes.c_int64 * len(numbers))(*numbers), len(tensors)), dtype=torch.float32)
