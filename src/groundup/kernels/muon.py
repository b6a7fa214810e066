"""Steps of Muon on a CPU by muon.cpp: one core computes all of a matrix's step, in its caches.

As operations on stacks of matrices, cores wait for each other behind each of some seventy, most of which read and write
the whole stack. All products but the last are symmetric, which a library does not make use of.
"""

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from groundup.kernels.library import declare

MOST_COLUMNS = 1024
"""Of the shorter side of a matrix, and four times as many of the longer: one core takes a second for the largest."""


class _Matrix(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("p", "grad", "momentum")),
        *((name, ctypes.c_int64) for name in ("rows", "columns")),
    )


class _Step(ctypes.Structure):
    _fields_ = (
        ("coefficients", ctypes.c_float * 3),
        ("iterations", ctypes.c_int32),
        *((name, ctypes.c_float) for name in ("eps", "momentum", "lr", "decay")),
        ("cautious", ctypes.c_int32),
    )


class MuonMatrix(NamedTuple):
    """A parameter in which `maps` matrices lie one below the other, its gradient and its momentum."""

    p: Tensor
    grad: Tensor
    momentum: Tensor
    maps: int

    @property
    def shape(self) -> tuple[int, int]:
        """Of a map."""
        return self.p.shape[0] // self.maps, self.p.shape[1]


class MuonHow(NamedTuple):
    """What a step is beside its matrices, see `optim.muon`."""

    coefficients: tuple[float, float, float]
    iterations: int
    eps: float
    momentum: float
    lr: float
    decay: float
    cautious: bool


class MuonSteps:
    """Takes steps of Muon.

    Args:
        library: The shared library of the kernels.
        lanes: Of vectors, which the sides of a matrix must fill.
    """

    def __init__(self, library: ctypes.CDLL, lanes: int) -> None:
        self._lanes = lanes
        self._step = declare(library.muon_step, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p)

    def suits(self, matrix: MuonMatrix) -> bool:
        """Whether its step can be taken here: it is not too large, fills vectors and is float32."""
        short, long = sorted(matrix.shape)
        return (
            short <= MOST_COLUMNS
            and long <= 4 * MOST_COLUMNS
            and short % self._lanes == long % self._lanes == 0
            and all(
                part.device.type == "cpu" and part.dtype == torch.float32 and part.is_contiguous()
                for part in (matrix.p, matrix.grad, matrix.momentum)
            )
        )

    def __call__(self, matrices: Sequence[MuonMatrix], how: MuonHow) -> None:
        """Take a step: parameters and momenta change in place. The largest matrices are the first."""
        parts = [_Matrix(*addresses, *m.shape) for m in matrices for addresses in _addresses(m)]
        parts.sort(key=lambda part: part.rows * part.columns, reverse=True)
        step = _Step((ctypes.c_float * 3)(*how.coefficients), *how[1:])
        self._step((_Matrix * len(parts))(*parts), len(parts), ctypes.byref(step))


def _addresses(matrix: MuonMatrix) -> list[tuple[int, int, int]]:
    """Where each of its maps begins."""
    p, grad, momentum, maps = matrix
    size = p.nbytes // maps
    return [(p.data_ptr() + at, grad.data_ptr() + at, momentum.data_ptr() + at) for at in range(0, p.nbytes, size)]
