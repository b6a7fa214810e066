"""Rotary position embedding (Su et al. 2021, section 3.4), in the half-split layout of GPT-NeoX and Llama.

Each pair of coordinates (i, i + D/2) of a query or key is rotated by an angle that grows with the position, fast for
the first pairs and slowly for the last. The product of a query and a key then depends on their distance,
not on their positions.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

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
    wide = torch.promote_types(dtype, torch.float32)
    pairs = torch.arange(head_dim // 2, device=positions.device, dtype=wide)
    turned = max(1, round(share * (head_dim // 2)))
    speeds = (base ** -(pairs / turned)).where(pairs < turned, 0.0)
    angles = positions[..., None].to(wide) * speeds  # (*B, T, D/2)
    angles = torch.cat((angles, angles), dim=-1)  # (*B, T, D)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(
    x: Float[Tensor, "B H T D"], cos: Float[Tensor, "*#B T D"], sin: Float[Tensor, "*#B T D"]
) -> Float[Tensor, "B H T D"]:
    """Rotate queries or keys by their angles."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin
