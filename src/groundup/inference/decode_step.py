"""The steps of a decoding layer on a GPU, each as one Triton kernel where PyTorch starts two or more.

With one new token per text a kernel works for two or three microseconds, so their number is what a token costs. Triton
comes with PyTorch for Linux and compiles for the card at hand at the first use.
"""

import functools
import importlib.util
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from groundup.config.errors import first_line
from groundup.model.gpt import LayerNorm

STEP = 256
"""Positions whose keys are read together."""
READ_TOGETHER = 8192
"""Weights that a group of threads of `product` reads at once."""
WARPS = 8
"""Of such a group."""


def add_norm(
    x: Float[Tensor, "*B C"], y: Float[Tensor, "*B C"], weight: Float[Tensor, " C"], bias: Tensor | None, eps: float
) -> tuple[Float[Tensor, "*B C"], Float[Tensor, "*B C"]]:
    """X + y, and LayerNorm of it; all contiguous."""
    stream, normed = torch.empty_like(x), torch.empty_like(x)
    width = x.shape[-1]
    kernel = _add_norm_kernel()
    kernel[x.numel() // width,](
        x, y, weight, weight if bias is None else bias, stream, normed, width, eps,
        padded=_power_of_two(width), precise=_wide(x), has_bias=bias is not None, num_warps=4,
    )  # fmt: skip
    return stream, normed


def product(
    x: Float[Tensor, "B K"],
    linear: nn.Linear,
    *,
    norm: LayerNorm | None = None,
    gelu: bool = False,
    onto: Float[Tensor, "B N"] | None = None,
) -> Float[Tensor, "B N"]:
    """A linear layer of few rows: each weight is read once per row, by a group of threads that sums up its products.

    Args:
        x: Contiguous.
        linear: The layer.
        norm: What x goes through before it.
        gelu: Whether the tanh GELU comes after it.
        onto: What its output is added to.
    """
    n_out, n_in = linear.weight.shape
    out = torch.empty(len(x), n_out, dtype=x.dtype, device=x.device)
    outputs = max(1, READ_TOGETHER // _power_of_two(n_in))
    gain = shift = linear.weight
    if norm is not None:
        gain, shift = norm.weight, norm.weight if norm.bias is None else norm.bias
    kernel = _product_kernel()
    kernel[-(-n_out // outputs), len(x)](
        x, linear.weight, linear.weight if linear.bias is None else linear.bias, gain, shift,
        out if onto is None else onto, out, n_in, n_out, 0.0 if norm is None else norm.eps,
        padded=_power_of_two(n_in), outputs=outputs, precise=_wide(x), has_norm=norm is not None,
        has_shift=norm is not None and norm.bias is not None, has_bias=linear.bias is not None, gelu=gelu,
        adds=onto is not None, num_warps=WARPS,
    )  # fmt: skip
    return out


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
    kernel = _attend_kernel()
    kernel[rows, n_head](
        qkv, keys, values, held, out, head_dim**-0.5, keys.stride(0), keys.stride(1), n_head * head_dim,
        head_dim=head_dim, padded=_power_of_two(head_dim), step=STEP, precise=_wide(qkv), num_warps=8,
    )  # fmt: skip
    return out


def decode_step_works(device: torch.device, dtype: torch.dtype) -> str | None:
    """Try all kernels against PyTorch; None where they are right, else why they cannot be used."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.device(device):
        x, y, onto = (torch.randn(2, n, dtype=dtype) for n in (24, 24, 50))
        qkv = torch.randn(2, 72, dtype=dtype)
        keys, values = (torch.randn(2, 3, 300, 8, dtype=dtype) for _ in range(2))
        norm, linear = LayerNorm(24, bias=True).to(dtype), nn.Linear(24, 50, dtype=dtype)
        held = torch.tensor([0, 299])
    try:
        with torch.no_grad():
            got = (
                *add_norm(x, y, norm.weight, norm.bias, norm.eps),
                product(x, linear, norm=norm, gelu=True),
                product(x, linear, onto=onto),
                attend(qkv, keys, values, held),
            )
    except Exception as error:  # compilers fail in many ways
        return f"Triton failed: {first_line(error)}"
    q, k, v = (part.view(2, 3, 8) for part in qkv.view(2, 3, 24).unbind(1))
    for row, n in enumerate(held.tolist()):
        keys[row, :, n], values[row, :, n] = k[row], v[row]
    seen = (torch.arange(300, device=device) <= held[:, None])[:, None, None]
    expected = (
        x + y,
        norm(x + y),
        F.gelu(linear(norm(x)), approximate="tanh"),
        onto + linear(x),
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
def _add_norm_kernel() -> Any:
    """Of `add_norm`; nothing is compiled yet."""
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

    return add_norm


@functools.cache
def _product_kernel() -> Any:
    """Of `product`."""
    import triton
    import triton.language as tl

    @triton.jit  # type: ignore[untyped-decorator]
    def product(  # type: ignore[no-untyped-def]  # noqa: PLR0913
        x, weight, bias, gain, shift, onto, out, n_in, n_out, eps,
        padded: tl.constexpr, outputs: tl.constexpr, precise: tl.constexpr, has_norm: tl.constexpr,
        has_shift: tl.constexpr, has_bias: tl.constexpr, gelu: tl.constexpr, adds: tl.constexpr,
    ):  # fmt: skip
        at, n, row = tl.arange(0, padded), tl.program_id(0) * outputs + tl.arange(0, outputs), tl.program_id(1)
        there, asked = at < n_in, n < n_out
        # The weights are on their way while x is normalized.
        w = tl.load(weight + n[:, None] * n_in + at[None, :], mask=asked[:, None] & there[None, :], other=0.0)
        values = tl.load(x + row * n_in + at, mask=there, other=0.0)
        wide = values.to(precise)
        if has_norm:
            wide = tl.where(there, wide - tl.sum(wide, 0) / n_in, 0.0)
            wide = wide / tl.sqrt(tl.sum(wide * wide, 0) / n_in + eps)
            wide = wide * tl.load(gain + at, mask=there, other=0.0).to(precise)
            if has_shift:
                wide += tl.load(shift + at, mask=there, other=0.0).to(precise)
            wide = wide.to(values.dtype).to(precise)
        y = tl.sum(w.to(precise) * wide[None, :], 1)
        if has_bias:
            y += tl.load(bias + n, mask=asked, other=0.0).to(precise)
        if gelu:
            z = 1.5957691216057308 * (y + 0.044715 * y * y * y)  # 2 sqrt(2 / pi)
            y = y / (1.0 + tl.exp(-z))
        place = row * n_out + n
        if adds:
            y = y.to(values.dtype).to(precise) + tl.load(onto + place, mask=asked, other=0.0).to(precise)
        tl.store(out + place, y.to(values.dtype), mask=asked)

    return product


@functools.cache
def _attend_kernel() -> Any:
    """Of `attend`."""
    import triton
    import triton.language as tl

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
            old_k, old_v = tl.load(keys + read, mask=seen, other=0.0), tl.load(values + read, mask=seen, other=0.0)
            scores = tl.sum(old_k.to(precise) * q[None, :], 1)
            scores = tl.where(at < n, scores, float("-inf"))
            larger = tl.maximum(largest, tl.max(scores, 0))
            shares, rest = tl.exp(scores - larger), tl.exp(largest - larger)
            y = y * rest + tl.sum(shares[:, None] * old_v.to(precise), 0)
            total, largest = total * rest + tl.sum(shares, 0), larger
        tl.store(out + row * width + head * head_dim + d, (y / total).to(v.dtype), mask=there)

    return attend
