"""Two steps of a decoding layer on a GPU, each as one Triton kernel where PyTorch starts three or more.

With one new token per text a kernel works for two or three microseconds, so their number is what a token costs. Triton
comes with PyTorch for Linux and compiles for the card at hand at the first use.
"""

import functools
import importlib.util
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

STEP = 128
"""Positions whose keys are read together."""


def add_norm(
    x: Float[Tensor, "*B C"], y: Float[Tensor, "*B C"], weight: Float[Tensor, " C"], bias: Tensor | None, eps: float
) -> tuple[Float[Tensor, "*B C"], Float[Tensor, "*B C"]]:
    """X + y, and LayerNorm of it; all contiguous."""
    stream, normed = torch.empty_like(x), torch.empty_like(x)
    width = x.shape[-1]
    kernel = _kernels()[0]
    kernel[x.numel() // width,](
        x, y, weight, weight if bias is None else bias, stream, normed, width, eps,
        padded=_power_of_two(width), precise=_wide(x), has_bias=bias is not None, num_warps=4,
    )  # fmt: skip
    return stream, normed


def attend(
    qkv: Float[Tensor, "B 3C"],
    keys: Float[Tensor, "B H S D"],
    values: Float[Tensor, "B H S D"],
    held: Int[Tensor, " B"],
) -> Float[Tensor, "B C"]:
    """Write the keys and values of one new token per row behind those held, and attend to all of them.

    Args:
        qkv: Queries, keys and values of all heads side by side, contiguous.
        keys: A layer of a cache; positions may be cut off, everything else is as it was allocated.
        values: The same.
        held: Tokens in each row.
    """
    rows, n_head, _, head_dim = keys.shape
    out = torch.empty(rows, n_head * head_dim, dtype=qkv.dtype, device=qkv.device)
    kernel = _kernels()[1]
    kernel[rows, n_head](
        qkv, keys, values, held, out, head_dim**-0.5, keys.stride(0), keys.stride(1), n_head * head_dim,
        head_dim=head_dim, padded=_power_of_two(head_dim), step=STEP, precise=_wide(qkv), num_warps=8,
    )  # fmt: skip
    return out


def decode_step_works(device: torch.device, dtype: torch.dtype) -> str | None:
    """Try both kernels against PyTorch; None where they are right, else why they cannot be used."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        x, y, weight, bias = (torch.randn(n, 24, device=device, dtype=dtype) for n in (2, 2, 1, 1))
        qkv = torch.randn(2, 72, device=device, dtype=dtype)
        keys, values = (torch.randn(2, 3, 300, 8, device=device, dtype=dtype) for _ in range(2))
    held = torch.tensor([0, 299], device=device)
    try:
        got = *add_norm(x, y, weight[0], bias[0], 1e-5), attend(qkv, keys, values, held)
    except Exception as error:  # compilers fail in many ways
        return f"Triton failed: {(str(error).strip().splitlines() or [type(error).__name__])[0]}"
    q, k, v = (part.view(2, 3, 8) for part in qkv.view(2, 3, 24).unbind(1))
    for row, n in enumerate(held.tolist()):
        keys[row, :, n], values[row, :, n] = k[row], v[row]
    seen = (torch.arange(300, device=device) <= held[:, None])[:, None, None]
    expected = (
        x + y,
        F.layer_norm(x + y, (24,), weight[0], bias[0]),
        F.scaled_dot_product_attention(q[:, :, None], keys, values, attn_mask=seen).reshape(2, 24),
    )
    close = (torch.allclose(a, b, rtol=1e-2, atol=1e-2) for a, b in zip(got, expected, strict=True))
    return None if all(close) else "Triton's kernels gave other numbers on their test"


def _power_of_two(n: int) -> int:
    return 1 << (n - 1).bit_length()


def _wide(x: Tensor) -> Any:
    import triton.language as tl

    return tl.float64 if x.dtype == torch.float64 else tl.float32


@functools.cache
def _kernels() -> tuple[Any, Any]:
    """Both kernels; nothing is compiled yet."""
    import triton
    import triton.language as tl

    @triton.jit  # type: ignore[untyped-decorator]
    def add_norm(  # type: ignore[no-untyped-def]  # noqa: PLR0913
        x, y, weight, bias, stream, normed, width, eps,
        padded: tl.constexpr, precise: tl.constexpr, has_bias: tl.constexpr,
    ):  # fmt: skip
        at = tl.arange(0, padded)
        there, place = at < width, tl.program_id(0) * width + at
        old, change = tl.load(x + place, mask=there, other=0.0), tl.load(y + place, mask=there, other=0.0)
        total = (old.to(precise) + change.to(precise)).to(old.dtype)
        tl.store(stream + place, total, mask=there)
        wide = total.to(precise)
        centered = tl.where(there, wide - tl.sum(wide, 0) / width, 0.0)
        scaled = centered / tl.sqrt(tl.sum(centered * centered, 0) / width + eps)
        scaled = scaled * tl.load(weight + at, mask=there, other=0.0).to(precise)
        if has_bias:
            scaled += tl.load(bias + at, mask=there, other=0.0).to(precise)
        tl.store(normed + place, scaled.to(old.dtype), mask=there)

    @triton.jit  # type: ignore[untyped-decorator]
    def attend(  # type: ignore[no-untyped-def]  # noqa: PLR0913
        qkv, keys, values, held, out, scale, row_stride, head_stride, width,
        head_dim: tl.constexpr, padded: tl.constexpr, step: tl.constexpr, precise: tl.constexpr,
    ):  # fmt: skip
        row, head, d = tl.program_id(0), tl.program_id(1), tl.arange(0, padded)
        there = d < head_dim
        new = qkv + row * 3 * width + head * head_dim + d
        q = tl.load(new, mask=there, other=0.0).to(precise) * scale
        k, v = tl.load(new + width, mask=there, other=0.0), tl.load(new + 2 * width, mask=there, other=0.0)
        n, place = tl.load(held + row), row * row_stride + head * head_stride + d
        tl.store(keys + place + n * head_dim, k, mask=there)
        tl.store(values + place + n * head_dim, v, mask=there)
        # The softmax of all scores, a few at a time (Milakov & Gimelshein 2018); the new token's own comes first.
        largest, y = tl.sum(q * k.to(precise), 0), v.to(precise)
        total = tl.exp(largest - largest)
        for start in range(0, n, step):
            at = start + tl.arange(0, step)
            seen, read = (at < n)[:, None] & there[None, :], place[None, :] + at[:, None] * head_dim
            scores = tl.sum(tl.load(keys + read, mask=seen, other=0.0).to(precise) * q[None, :], 1)
            scores = tl.where(at < n, scores, float("-inf"))
            larger = tl.maximum(largest, tl.max(scores, 0))
            shares, rest = tl.exp(scores - larger), tl.exp(largest - larger)
            y = y * rest + tl.sum(shares[:, None] * tl.load(values + read, mask=seen, other=0.0).to(precise), 0)
            total, largest = total * rest + tl.sum(shares, 0), larger
        tl.store(out + row * width + head * head_dim + d, (y / total).to(v.dtype), mask=there)

    return add_norm, attend
