"""Steps of AdamW on a CPU and the length of all gradients, by adamw.cpp.

PyTorch starts all cores for each tensor, and notes in Python what it is going to do: with a small model that takes
longer than the numbers.
"""

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from groundup.kernels.library import declare, numbers

STATE = "exp_avg", "exp_avg_sq", "step"
"""Of a parameter, by PyTorch's names: averages of its gradient and of this squared, and the steps so far, a scalar."""


class Moved:
    """Parameters and their state, as the library takes them.

    Args:
        tensors: A parameter and its STATE, then the next; they stay where they are.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._tensors, sizes = tensors, [p.numel() for p in tensors[:: 1 + len(STATE)]]
        self.addresses, self.sizes = numbers([t.data_ptr() for t in tensors]), numbers(sizes)


class AdamWSteps:
    """Takes steps of AdamW, by a library."""

    def __init__(self, library: ctypes.CDLL) -> None:
        pointer, size = ctypes.c_void_p, ctypes.c_int64
        self._step = declare(library.adamw_step, *3 * [pointer], size, pointer)
        self._length = declare(library.length_of, pointer, pointer, size, gives=ctypes.c_double)

    def suit(self, tensors: Sequence[Tensor]) -> bool:
        """Whether kernels can read these: float32 on the CPU, each in one piece."""
        kinds, dtype = (Tensor, torch.nn.Parameter), torch.float32
        return all(type(t) in kinds and t.dtype is dtype and t.is_cpu and t.is_contiguous() for t in tensors)

    def __call__(
        self, moved: Moved, gradients: Sequence[Tensor], lr: float, betas: Sequence[float], eps: float, decay: float
    ) -> None:
        """Take a step: parameters and state change in place.

        Args:
            moved: Changes.
            gradients: One of each parameter.
            lr: The learning rate.
            betas: Of both averages.
            eps: Added to the root.
            decay: Of weights.
        """
        how = (ctypes.c_double * 5)(lr, *betas, eps, decay)
        addresses = numbers([grad.data_ptr() for grad in gradients])
        self._step(moved.addresses, addresses, moved.sizes, len(gradients), how)

    def length(self, tensors: Sequence[Tensor]) -> Tensor:
        """The norm of all of them together, a scalar."""
        addresses, sizes = [t.data_ptr() for t in tensors], [t.numel() for t in tensors]
        return torch.full((), self._length(numbers(addresses), numbers(sizes), len(sizes)), dtype=torch.float32)
