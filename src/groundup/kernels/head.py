"""The head of a model in training on a CPU: cross-entropy, and what weights get, by head.cpp."""

import ctypes
from collections.abc import Collection
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float, Int
from torch import Tensor, nn

from groundup.kernels.attention import TYPES, in_type
from groundup.kernels.library import declare
from groundup.runtime.matmul import OneDNNHead

if TYPE_CHECKING:
    from groundup.kernels.training import TrainingKernels


class HeadKernels:
    """Those of a library.

    Args:
        library: The shared library of the kernels.
        dtypes: Of products that it has.
    """

    def __init__(self, library: ctypes.CDLL, dtypes: Collection[torch.dtype]) -> None:
        pointer, size, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
        self._cross_entropy = declare(library.cross_entropy, number, *3 * [pointer], *2 * [size], number)
        calls = {dtype: in_type(library, "weight_gradient", dtype) for dtype in dtypes}
        self._gradients = {dtype: declare(call, *3 * [pointer], *3 * [size], number) for dtype, call in calls.items()}

    def cross_entropy(
        self, logits: Float[Tensor, "N V"], picked: Int[Tensor, "N 1"], *, back: bool
    ) -> Float[Tensor, "N 1"]:
        """-ln p of the picked column of each row; going back, p - onehot(picked) comes in place of the logits.

        Args:
            logits: Contiguous, float32 or bfloat16.
            picked: Columns.
            back: Whether it goes back.

        Raises:
            IndexError: There is no such column.
        """
        picked, (n_rows, n_columns) = picked.contiguous(), logits.shape
        if n_rows and not 0 <= int(picked.min()) <= int(picked.max()) < n_columns:
            raise IndexError(f"columns are 0 to {n_columns - 1}")
        nats = torch.empty(n_rows, 1)
        addresses = (part.data_ptr() for part in (logits, picked, nats))
        self._cross_entropy(TYPES[logits.dtype], *addresses, n_rows, n_columns, back)
        return nats

    def add_gradient(
        self, total: Float[Tensor, "D C"] | None, grad: Float[Tensor, "B D"], x: Float[Tensor, "B C"]
    ) -> Float[Tensor, "D C"]:
        """Grad.T @ x in float32, of float32 or bfloat16; added to a total, in its place, if there is one."""
        grad, x = grad.contiguous(), x.contiguous()
        out = x.new_empty(grad.shape[1], x.shape[1], dtype=torch.float32) if total is None else total
        addresses = (part.data_ptr() for part in (grad, x, out))
        self._gradients[x.dtype](*addresses, len(x), *out.shape, total is not None)
        return out


class CompiledHead(nn.Module):
    """A head whose loss the kernels compute.

    Args:
        kernels: The kernels.
        products: Multiplies what they do not; None is PyTorch.
    """

    def __init__(self, kernels: "TrainingKernels", products: OneDNNHead | None = None) -> None:
        super().__init__()
        self.kernels, self.products = kernels, products

    def forward(self, x: Float[Tensor, "*B C"], weight: Float[Tensor, "V C"]) -> Float[Tensor, "*B V"]:
        """Logits."""
        return F.linear(x, weight) if self.products is None else self.products(x, weight)

    def matrix(self, weight: Float[Tensor, "V C"]) -> Float[Tensor, "V C"]:
        """What x is multiplied with."""
        return weight

    def suits(self, logits: Float[Tensor, "N V"]) -> bool:
        """Whether the kernels compute the cross-entropy of these."""
        return logits.dtype in TYPES and logits.device.type == "cpu" and logits.is_contiguous()

    def adds(self, grad: Float[Tensor, "N V"]) -> bool:
        """Whether the kernels add up what the weights get: in bfloat16, where the processor multiplies it."""
        return grad.dtype == torch.bfloat16 and grad.device.type == "cpu" and self.kernels.has_bf16
