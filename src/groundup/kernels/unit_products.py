"""The products of a linear layer in bfloat16 by a processor's matrix unit: narrow.cpp.

Weights are rounded as they are read, and their gradient is not rounded at all.
"""

import ctypes
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from groundup.kernels.block import TYPES
from groundup.runtime.matmul import Products


class _Lying(ctypes.Structure):
    _fields_ = (
        ("at", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("rows", "columns")),
        ("type", ctypes.c_int32),
    )


class UnitProducts(Products):
    """As `Products`, of activations in bfloat16 and weights in float32.

    Args:
        library: The shared library of the kernels.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        pointer = ctypes.c_void_p
        self._product, self._gradient = library.narrow_product, library.narrow_gradient
        self._product.argtypes = [pointer, ctypes.c_int, pointer, ctypes.c_int, *2 * [pointer]]
        self._gradient.argtypes = 3 * [pointer]
        self._product.restype = self._gradient.restype = None

    def weights(self, weight: Float[Tensor, "D C"], dtype: torch.dtype) -> Float[Tensor, "D C"]:
        """The weights themselves."""
        return weight

    def outputs(
        self, x: Float[Tensor, "B C"], weight: Float[Tensor, "D C"], bias: Float[Tensor, " D"] | None
    ) -> Float[Tensor, "B D"]:
        """X @ weight.T + bias."""
        return self.product(x, weight.T, x.dtype, bias)

    def of_inputs(
        self, grad: Float[Tensor, "B D"], weight: Float[Tensor, "D C"], dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "B C"]:
        """Grad @ weight."""
        return self.product(grad, weight, dtype)

    def of_weight(self, grad: Float[Tensor, "B D"], x: Float[Tensor, "B C"]) -> Float[Tensor, "D C"]:
        """Grad.T @ x, in float32."""
        out = torch.empty(grad.shape[1], x.shape[1])
        self._gradient(*(_lying(part) for part in (grad, x, out)))
        return out

    def product(
        self, a: Float[Tensor, "M K"], b: Float[Tensor, "K N"], dtype: torch.dtype, bias: Tensor | None = None
    ) -> Float[Tensor, "M N"]:
        """A @ b of matrices rounded to bfloat16, plus a bias (N) in float32; sums are float32.

        Either is float32 or bfloat16, and it or its transpose is contiguous.
        """
        out, turned = torch.empty(len(a), b.shape[1], dtype=dtype), [not part.is_contiguous() for part in (a, b)]
        left, right = (_lying(part.T if is_turned else part) for part, is_turned in zip((a, b), turned, strict=True))
        self._product(left, turned[0], right, turned[1], None if bias is None else bias.data_ptr(), _lying(out))
        return out


def _lying(x: Float[Tensor, "M N"]) -> Any:
    """A matrix in one piece, for narrow.cpp."""
    assert x.is_contiguous()
    return ctypes.byref(_Lying(x.data_ptr(), *x.shape, TYPES[x.dtype]))
