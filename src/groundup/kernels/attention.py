"""Causal attention of whole texts on a CPU, forward and back, by the kernels of attention.cpp.

PyTorch's kernel multiplies small matrices one by one through a library, and takes a fifth of a small model's step in
float32, a third in bfloat16; docs/log.md has the measurements. `model.swap` puts ours into a model.
"""

import ctypes
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from groundup.kernels.dropout import Counted, count
from groundup.kernels.library import declare

if TYPE_CHECKING:
    from groundup.kernels.training import TrainingKernels

TYPES = {torch.float32: 0, torch.bfloat16: 1}
"""As attention.cpp counts them."""
_PREFIXES = {torch.float32: "", torch.bfloat16: "bf16_"}


def in_type(library: ctypes.CDLL, name: str, dtype: torch.dtype) -> Any:
    """The function of the library that has this name and multiplies numbers of this type."""
    return getattr(library, _PREFIXES[dtype] + name)


class AttentionCalls:
    """Attention of a library, there and back.

    Args:
        library: The shared library of the kernels.
        dtype: Of what products read.
    """

    def __init__(self, library: ctypes.CDLL, dtype: torch.dtype) -> None:
        self.forward = declare(in_type(library, "attention_forward", dtype), *6 * [ctypes.c_void_p])
        self.backward = declare(in_type(library, "attention_backward", dtype), *10 * [ctypes.c_void_p])


class _View(ctypes.Structure):
    _fields_ = (("at", ctypes.c_void_p), *((name, ctypes.c_int64) for name in ("text", "token", "head")))


class _Sizes(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("B", "T", "H", "K", "D")),
        ("type", ctypes.c_int32),
        *((name, ctypes.c_uint32) for name in ("seed", "other_seed", "dropped")),
    )


class CausalAttention:
    """Stands for `F.scaled_dot_product_attention`, which computes all that the kernels do not.

    Args:
        kernels: Compute attention in float32 or bfloat16, where each head has keys of its own or groups share some.
    """

    def __init__(self, kernels: "TrainingKernels") -> None:
        self._kernels = kernels

    def __call__(
        self,
        q: Float[Tensor, "B H T D"],
        k: Float[Tensor, "B K T D"],
        v: Float[Tensor, "B K T D"],
        *,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        enable_gqa: bool = False,
    ) -> Float[Tensor, "B H T D"]:
        """Each token's mean of the values up to its own, weighted by its query's products with the keys."""
        if torch.is_autocast_enabled(q.device.type):
            q, k, v = (x.to(torch.get_autocast_dtype(q.device.type)) for x in (q, k, v))
        known = q.device.type == "cpu" and q.dtype in TYPES and q.dtype == k.dtype == v.dtype
        fits = known and is_causal and _fit(q, k, v, shared=enable_gqa) and q.shape[-1] % self._kernels.lanes == 0
        if not fits or torch.compiler.is_compiling():
            return F.scaled_dot_product_attention(
                q, k, v, dropout_p=dropout_p, is_causal=is_causal, enable_gqa=enable_gqa
            )
        return _Attention.apply(q, k, v, dropout_p, self._kernels)  # type: ignore[no-untyped-call]


class _Attention(torch.autograd.Function):
    """Keeps a number per row, from which the way back computes the row's weights again (Dao et al. 2022).

    Dropout keeps two seeds.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, dropout_p: float, kernels: "TrainingKernels") -> Tensor:
        q, k, v = map(_in_rows, (q, k, v))
        y, log_sums = _like(q), torch.empty(q.shape[:-1])
        ctx.dropout = count(dropout_p)
        kernels.attention[q.dtype].forward(
            _sizes(q.shape, k.shape[1], q.dtype, ctx.dropout), *map(_view, (q, k, v, y)), log_sums.data_ptr()
        )
        ctx.save_for_backward(q, k, v, y, log_sums)
        ctx.kernels = kernels
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q, k, v, y, log_sums = ctx.saved_tensors
        grad = _in_rows(grad.to(q.dtype))  # has a name, because a view of it is but its address
        grads = _like(q), _like(k), _like(v)
        parts = map(_view, (q, k, v, y, grad))
        ctx.kernels.attention[q.dtype].backward(
            _sizes(q.shape, k.shape[1], q.dtype, ctx.dropout), *parts, log_sums.data_ptr(), *map(_view, grads)
        )
        return *grads, None, None


def attend_side_by_side(
    qkv: Float[Tensor, "B T 3*C"], n_head: int, dropout: Counted, kernels: "TrainingKernels"
) -> tuple[Float[Tensor, "B T C"], Float[Tensor, "B H T"]]:
    """Attention where queries, keys and values lie side by side, as one product gives them.

    Args:
        qkv: They, contiguous, float32 or bfloat16.
        n_head: Heads, whose width is a multiple of the kernels' lanes.
        dropout: Of weights.
        kernels: Compute it.

    Returns:
        The heads' outputs, and what `attend_side_by_side_back` needs beside them.
    """
    texts, tokens, width = qkv.shape
    y, log_sums = qkv.new_empty(texts, tokens, width // 3), torch.empty(texts, n_head, tokens)
    views = (*_thirds(qkv, n_head), _heads_of(y, n_head))
    kernels.attention[qkv.dtype].forward(_sizes_of(qkv, n_head, dropout), *views, log_sums.data_ptr())
    return y, log_sums


def attend_side_by_side_back(
    grad: Float[Tensor, "B T C"],
    qkv: Float[Tensor, "B T 3*C"],
    y: Float[Tensor, "B T C"],
    log_sums: Float[Tensor, "B H T"],
    dropout: Counted,
    kernels: "TrainingKernels",
) -> Float[Tensor, "B T 3*C"]:
    """What qkv gets where y, an output of `attend_side_by_side`, gets grad."""
    n_head, grad_qkv = log_sums.shape[1], torch.empty_like(qkv)
    views = (*_thirds(qkv, n_head), _heads_of(y, n_head), _heads_of(grad, n_head))
    sizes = _sizes_of(qkv, n_head, dropout)
    kernels.attention[qkv.dtype].backward(sizes, *views, log_sums.data_ptr(), *_thirds(grad_qkv, n_head))
    return grad_qkv


def _thirds(qkv: Float[Tensor, "B T 3*C"], n_head: int) -> tuple[Any, Any, Any]:
    _, tokens, row = qkv.shape
    at, width = qkv.data_ptr(), row // 3
    views = (_View(at + i * width * qkv.element_size(), tokens * row, row, width // n_head) for i in range(3))
    q, k, v = map(ctypes.byref, views)
    return q, k, v


def _heads_of(x: Float[Tensor, "B T C"], n_head: int) -> Any:
    _, tokens, width = x.shape
    return ctypes.byref(_View(x.data_ptr(), tokens * width, width, width // n_head))


def _sizes_of(qkv: Float[Tensor, "B T 3*C"], n_head: int, dropout: Counted) -> Any:
    texts, tokens, row = qkv.shape
    return _sizes((texts, n_head, tokens, row // 3 // n_head), n_head, qkv.dtype, dropout)


def _fit(
    q: Float[Tensor, "B H T D"], k: Float[Tensor, "B K T D"], v: Float[Tensor, "B K T D"], *, shared: bool
) -> bool:
    """Whether each head has keys, its own or, where that is asked for, its group's."""
    (texts, heads, *rest), (_, groups, *_) = q.shape, k.shape
    fits = heads % groups == 0 if shared else heads == groups
    return fits and k.shape == v.shape == (texts, groups, *rest)


def _like(x: Float[Tensor, "B H T D"]) -> Float[Tensor, "B H T D"]:
    """Room for as much, token by token: heads side by side again need no copy."""
    texts, heads, tokens, width = x.shape
    return x.new_empty(texts, tokens, heads, width).transpose(1, 2)


def _in_rows(x: Float[Tensor, "B H T D"]) -> Float[Tensor, "B H T D"]:
    return x if x.stride(-1) == 1 else x.contiguous()


def _view(x: Float[Tensor, "B H T D"]) -> Any:
    text, head, token, _ = x.stride()
    return ctypes.byref(_View(x.data_ptr(), text, token, head))


def _sizes(shape: tuple[int, ...], groups: int, dtype: torch.dtype, dropout: Counted) -> Any:
    """Of queries (B, H, T, D), and how many heads of keys they share."""
    texts, heads, tokens, width = shape
    return ctypes.byref(_Sizes(texts, tokens, heads, groups, width, TYPES[dtype], *dropout))
