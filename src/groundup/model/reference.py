"""The whole model as pure functions, softmax written out: what `gpt.py` must compute, without any of its speed.

A page to read first, and the oracle of the tests. Weights come as a dictionary under the names of the published
checkpoints; shapes stand on the line that makes them.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from groundup.config.model import ModernConfig, TransformerConfig

Weights = dict[str, Tensor]


def gelu(x: Tensor) -> Tensor:
    """Gaussian error linear unit, tanh form (Hendrycks & Gimpel 2016)."""
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def softmax(x: Tensor) -> Tensor:
    """Exponentials that sum to one; the maximum is taken off first so that none overflows."""
    e = torch.exp(x - x.max(dim=-1, keepdim=True).values)
    return e / e.sum(dim=-1, keepdim=True)


def layer_norm(x: Tensor, w: Weights, name: str) -> Tensor:
    """Mean 0 and variance 1 for every token, then a learned gain and, where there is one, a shift."""
    mean = x.mean(dim=-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(dim=-1, keepdim=True)
    return (x - mean) / torch.sqrt(variance + 1e-5) * w[f"{name}.weight"] + w.get(f"{name}.bias", 0)


def linear(x: Tensor, w: Weights, name: str) -> Tensor:
    """A matrix product and, where there is one, a bias."""
    return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0)


def rope(x: Float[Tensor, "B H T D"], base: float) -> Float[Tensor, "B H T D"]:
    """Turn the plane (i, i + D/2) at position t by the angle t / base**(2i / D), as a product of complex numbers."""
    T, D = x.shape[-2:]
    angles = torch.arange(T, dtype=x.dtype)[:, None] / base ** (torch.arange(0, D, 2, dtype=x.dtype) / D)  # (T, D/2)
    turned = torch.complex(x[..., : D // 2], x[..., D // 2 :]) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat((turned.real, turned.imag), dim=-1)


def attention(x: Float[Tensor, "B T C"], w: Weights, name: str, config: TransformerConfig) -> Float[Tensor, "B T C"]:
    """Every token takes a mean of the values before it, weighted by how well its query fits their keys."""
    B, T, C = x.shape
    qkv = linear(x, w, f"{name}.c_attn").chunk(3, dim=-1)  # 3 x (B, T, C)
    q, k, v = (part.view(B, T, config.n_head, -1).transpose(1, 2) for part in qkv)  # (B, H, T, D)
    if isinstance(config, ModernConfig) and config.position == "rope":
        q, k = rope(q, config.rope_base), rope(k, config.rope_base)
    scores = q @ k.transpose(-2, -1) / math.sqrt(config.head_dim)  # (B, H, T, T)
    future = torch.ones(T, T, dtype=torch.bool).triu(1)
    weights = softmax(scores.masked_fill(future, -math.inf))  # (B, H, T, T), rows sum to 1
    return linear((weights @ v).transpose(1, 2).reshape(B, T, C), w, f"{name}.c_proj")


def mlp(x: Float[Tensor, "B T C"], w: Weights, name: str) -> Float[Tensor, "B T C"]:
    """Each token thinks about what it gathered."""
    return linear(gelu(linear(x, w, f"{name}.c_fc")), w, f"{name}.c_proj")


def gpt(idx: Int[Tensor, "B T"], w: Weights, config: TransformerConfig) -> Float[Tensor, "B T V"]:
    """Logits of the next token at every position."""
    x = w["wte.weight"][idx]  # (B, T, C)
    if "wpe.weight" in w:
        x = x + w["wpe.weight"][: idx.shape[1]]
    for i in range(config.n_layer):
        x = x + attention(layer_norm(x, w, f"h.{i}.ln_1"), w, f"h.{i}.attn", config)
        x = x + mlp(layer_norm(x, w, f"h.{i}.ln_2"), w, f"h.{i}.mlp")
    return layer_norm(x, w, "ln_f") @ w["wte.weight"].T
