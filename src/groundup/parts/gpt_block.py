"""A block of GPT-2 as one step of autograd, for training on a CPU; queries and keys may be rotated.

As the page writes a block, PyTorch notes some thirty operations of it, and visits each again going back: a tenth of a
small model's step. Here the same operations follow each other in the same order, with the same numbers, and the way
back is written out. `parts.swap` puts it into a model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from groundup.kernels.attention import attend_side_by_side, attend_side_by_side_back
from groundup.kernels.dropout import Counted, count
from groundup.kernels.training import TrainingKernels
from groundup.runtime.matmul import Products

Gradients = tuple[Tensor, Tensor | None, Tensor | None]
"""Of the inputs, the weight and the bias."""


@dataclass(frozen=True, slots=True)
class HowBlock:
    """What a block is beside its tensors."""

    kernels: TrainingKernels
    products: Products
    n_head: int
    eps: float
    dropout: float
    """Of attention's weights and of what is added to the stream."""
    dtype: torch.dtype
    """Of what products read and give, float32 or bfloat16. The stream and norms have float32."""
    rotation: tuple[Float[Tensor, "T 1 D"], Float[Tensor, "T 1 D"]] | None = None
    """Of queries and keys, float32."""


def run_block(x: Float[Tensor, "B T C"], how: HowBlock, tensors: Sequence[Tensor | None]) -> Float[Tensor, "B T C"]:
    """The residual stream after a block.

    Args:
        x: Before it, contiguous, float32.
        how: What else the block is.
        tensors: Weight and bias, or None, of ln_1, c_attn, c_proj of attention, ln_2, c_fc and c_proj of the MLP.
    """
    return _Block.apply(x, how, *tensors)  # type: ignore[no-untyped-call]


class _Block(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, how: HowBlock, *tensors: Any) -> Tensor:
        gain_1, shift_1, w_qkv, b_qkv, w_proj, b_proj, gain_2, shift_2, w_fc, b_fc, w_out, b_out = tensors
        (texts, tokens, width), products = x.shape, how.products
        dropped = [count(how.dropout) for _ in ("weights", "attention", "MLP")]
        with torch.autocast("cpu", enabled=False):
            w_qkv, w_proj, w_fc, w_out = (w.to(how.dtype) for w in (w_qkv, w_proj, w_fc, w_out))
            stream = x.view(-1, width)
            a, *moments_1 = torch.native_layer_norm(stream, (width,), gain_1, shift_1, how.eps)
            a = a.to(how.dtype)
            qkv = products.outputs(a, w_qkv, b_qkv).view(texts, tokens, -1)
            _rotate(qkv, how)
            y, log_sums = attend_side_by_side(qkv, how.n_head, dropped[0], how.kernels)
            between = stream + _drop(products.outputs(y.view(-1, width), w_proj, b_proj), dropped[1], how)
            b, *moments_2 = torch.native_layer_norm(between, (width,), gain_2, shift_2, how.eps)
            b = b.to(how.dtype)
            h = products.outputs(b, w_fc, b_fc)
            g = how.kernels.gelu(h)
            out = between + _drop(products.outputs(g, w_out, b_out), dropped[2], how)
        ctx.how, ctx.dropped = how, dropped
        ctx.save_for_backward(
            *(stream, gain_1, shift_1, *moments_1, a, w_qkv, qkv, y, log_sums, w_proj),
            *(between, gain_2, shift_2, *moments_2, b, w_fc, h, g, w_out),
        )
        return out.view(texts, tokens, width)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        stream, gain_1, shift_1, mean_1, scale_1, a, w_qkv, qkv, y, log_sums, w_proj, *mlp = ctx.saved_tensors
        between, gain_2, shift_2, mean_2, scale_2, b, w_fc, h, g, w_out = mlp
        how, (texts, tokens, width) = ctx.how, y.shape
        _, of_qkv, of_proj, _, of_fc, of_out = zip(*2 * [iter(ctx.needs_input_grad[2:])], strict=True)

        grad_out = grad_out.reshape(-1, width)
        grad = _drop(grad_out.to(how.dtype), ctx.dropped[2], how)
        grad, *grads_out = _linear(how, grad, g, w_out, of_out)
        grad, *grads_fc = _linear(how, how.kernels.gelu_backward(h, grad), b, w_fc, of_fc, torch.float32)
        grad, *grads_ln_2 = _norm(grad, between, gain_2, shift_2, mean_2, scale_2)
        grad_between = grad.add_(grad_out)
        grad = _drop(grad_between.to(how.dtype), ctx.dropped[1], how)
        grad, *grads_proj = _linear(how, grad, y.view(-1, width), w_proj, of_proj)
        grad = attend_side_by_side_back(grad.view_as(y), qkv, y, log_sums, ctx.dropped[0], how.kernels)
        _rotate(grad, how, back=True)
        grad, *grads_qkv = _linear(how, grad.view(-1, 3 * width), a, w_qkv, of_qkv, torch.float32)
        grad, *grads_ln_1 = _norm(grad, stream, gain_1, shift_1, mean_1, scale_1)
        grad_x = grad.add_(grad_between).view(texts, tokens, width)
        return grad_x, None, *grads_ln_1, *grads_qkv, *grads_proj, *grads_ln_2, *grads_fc, *grads_out


def _rotate(qkv: Float[Tensor, "B T 3*C"], how: HowBlock, *, back: bool = False) -> None:
    """Queries and keys by the angles of their tokens, in place."""
    if how.rotation is not None:
        heads = qkv.view(*qkv.shape[:2], 3 * how.n_head, -1)[:, :, : 2 * how.n_head]
        how.kernels.rotate(heads, *how.rotation, back=back, in_place=True)


def _drop(x: Tensor, counted: Counted, how: HowBlock) -> Tensor:
    return how.kernels.dropout(x, counted) if how.dropout else x


def _linear(
    how: HowBlock,
    grad: Float[Tensor, "N D"],
    x: Float[Tensor, "N C"],
    weight: Float[Tensor, "D C"],
    needed: tuple[bool, bool],
    dtype: torch.dtype | None = None,
) -> Gradients:
    """What a linear layer passes back, in this type, and what its weight and bias get, if they need it."""
    of_weight = how.products.of_weight(grad, x).float() if needed[0] else None
    of_bias = grad.sum(0).float() if needed[1] else None
    return how.products.of_inputs(grad, weight, dtype or how.dtype), of_weight, of_bias


def _norm(
    grad: Float[Tensor, "N C"],
    x: Float[Tensor, "N C"],
    gain: Float[Tensor, " C"],
    shift: Float[Tensor, " C"] | None,
    mean: Float[Tensor, "N 1"],
    scale: Float[Tensor, "N 1"],
) -> Gradients:
    """The same of a norm."""
    needed = (True, True, shift is not None)
    return torch.ops.aten.native_layer_norm_backward(grad, x, x.shape[-1:], mean, scale, gain, shift, needed)
