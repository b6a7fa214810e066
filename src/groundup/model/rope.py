"""Rotary position embedding (Su et al. 2021, section 3.4), in the half-split layout of GPT-NeoX and Llama.

Each pair of coordinates (i, i + D/2) of a query or key is rotated by an angle that grows with the position, fast for
the first pairs and slowly for the last. The product of a query and a key then depends on their distance,
not on their positions.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from groundup.kernels.training import TrainingKernels

Rotation = tuple[Float[Tensor, "*B T D"], Float[Tensor, "*B T D"]]
"""Cosine and sine for every coordinate at every position."""


def rope_angles(
    positions: Int[Tensor, "*B T"],
    head_dim: int,
    base: float,
    dtype: torch.dtype = torch.float32,
    *,
    share: float = 1.0,
) -> Rotation:
    """Cosines and sines of the angle of every coordinate at every position.

    They are computed in float32 at least: 16 bits cannot tell position 1,000 from 1,001. Both halves carry the same
    angles, so that `rotate` is two products and a sum.

    Args:
        positions: Of the tokens.
        head_dim: Width of a head (D).
        base: Of the wavelengths: they grow from 2 pi to 2 pi * base.
        dtype: Of the result.
        share: Of the pairs that are rotated; the others carry no position.
    """
    table = _apart if torch.compiler.is_compiling() else _table
    return table(positions, head_dim, base, dtype, share)


def _table(positions: Tensor, head_dim: int, base: float, dtype: torch.dtype, share: float) -> tuple[Tensor, Tensor]:
    wide = torch.promote_types(dtype, torch.float32)
    pairs = torch.arange(head_dim // 2, device=positions.device, dtype=wide)
    turned = max(1, round(share * (head_dim // 2)))
    speeds = (base ** -(pairs / turned)).where(pairs < turned, 0.0)
    angles = positions[..., None].to(wide) * speeds  # (*B, T, D/2)
    angles = torch.cat((angles, angles), dim=-1)  # (*B, T, D)
    return angles.cos().to(dtype), angles.sin().to(dtype)


@torch.library.custom_op("groundup::rope_angles", mutates_args=())
def _apart(positions: Tensor, head_dim: int, base: float, dtype: torch.dtype, share: float) -> tuple[Tensor, Tensor]:
    """What torch.compile does not look into: it would compute a sine per element in every kernel that rotates."""
    return _table(positions, head_dim, base, dtype, share)


@_apart.register_fake
def _shapes(positions: Tensor, head_dim: int, base: float, dtype: torch.dtype, share: float) -> tuple[Tensor, Tensor]:
    shape = (*positions.shape, head_dim)
    return positions.new_empty(shape, dtype=dtype), positions.new_empty(shape, dtype=dtype)


def rotate(x: Float[Tensor, "*B D"], cos: Float[Tensor, "*#B D"], sin: Float[Tensor, "*#B D"]) -> Float[Tensor, "*B D"]:
    """Rotate queries or keys by their angles."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class Rotate(nn.Module):
    """`rotate` as a part of a model.

    Args:
        kernels: Compute it for float32 and bfloat16 on a CPU, where there are some: in one pass, and one more going
            back, with a norm or without.
    """

    def __init__(self, kernels: TrainingKernels | None = None) -> None:
        super().__init__()
        self._kernels = kernels

    def forward(
        self, x: Float[Tensor, "B T H D"], cos: Tensor, sin: Tensor, *, norm_eps: float | None = None
    ) -> Float[Tensor, "B T H D"]:
        """Rotate queries or keys by their angles; with `norm_eps`, give them the mean square 1 before."""
        compiling = torch.compiler.is_compiling()
        known = x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16) and cos.dtype == torch.float32
        if self._kernels is not None and known and not compiling:
            return _ByKernels.apply(x, cos, sin, norm_eps, self._kernels)  # type: ignore[no-untyped-call]
        if norm_eps is None:
            return rotate(x, cos, sin)
        if compiling:
            return _NormedRotation.apply(x, cos, sin, norm_eps)  # type: ignore[no-untyped-call]
        return rotate(F.rms_norm(x, x.shape[-1:], eps=norm_eps), cos, sin)


class _ByKernels(torch.autograd.Function):
    """The gradient is turned back by the same angles; that of a norm is the formula of `_NormedRotation`."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, norm_eps: float | None, kernels: TrainingKernels
    ) -> Tensor:
        ctx.kernels = kernels
        if norm_eps is None:
            ctx.save_for_backward(cos, sin)
            return kernels.rotate(x, cos, sin)
        y, scales = kernels.normed_rotate(x, cos, sin, norm_eps)
        ctx.save_for_backward(cos, sin, y, scales)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        cos, sin, *normed = ctx.saved_tensors
        if normed:
            grad_x = ctx.kernels.normed_rotate_backward(grad, cos, sin, *normed)
        else:
            grad_x = ctx.kernels.rotate(grad, cos, sin, back=True)
        return grad_x, None, None, None, None


class _NormedRotation(torch.autograd.Function):
    """Norm and rotation for torch.compile. The gradient needs only their result y, which attention keeps, too.

    With x = y turned back, over the scale r: dx = r * (dy - y * mean(y * dy)) turned back. The sum comes before the
    rotation, and the compiler makes one kernel of both; of the gradient of the plain formula it makes two.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, eps: float) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        scale = (wide.square().mean(-1, keepdim=True) + eps).rsqrt()
        y = rotate((wide * scale).to(x.dtype), cos, sin)
        ctx.save_for_backward(y, scale, cos, sin)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        y, scale, cos, sin = ctx.saved_tensors
        wide, y = grad.to(scale.dtype), y.to(scale.dtype)
        inner = wide - y * (wide * y).mean(-1, keepdim=True)
        return (rotate(inner, cos, -sin) * scale).to(grad.dtype), None, None, None
