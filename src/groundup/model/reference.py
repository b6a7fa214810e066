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


def rms(x: Tensor, eps: float) -> Tensor:
    """Every vector at mean square 1."""
    return x / torch.sqrt((x**2).mean(dim=-1, keepdim=True) + eps)


def norm(x: Tensor, w: Weights, name: str, config: ModernConfig) -> Tensor:
    """Mean 0 (unless it is an RMSNorm) and variance 1 for every token, then a learned gain and, perhaps, a shift."""
    mean = x.mean(dim=-1, keepdim=True) if config.norm == "layer" else 0
    return rms(x - mean, config.norm_eps) * w[f"{name}.weight"] + w.get(f"{name}.bias", 0)


def activation(x: Tensor, config: ModernConfig) -> Tensor:
    """Of the MLP."""
    relu = x * (x > 0)
    match config.activation:
        case "gelu_tanh":
            return gelu(x)
        case "gelu":
            return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))
        case "relu":
            return relu
        case "relu2":
            return relu**2


def linear(x: Tensor, w: Weights, name: str) -> Tensor:
    """A matrix product and, where there is one, a bias."""
    return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0)


def rope(x: Float[Tensor, "B H T D"], base: float, share: float) -> Float[Tensor, "B H T D"]:
    """Turn the plane (i, i + D/2) at position t by the angle t / base**(i / n), as a product of complex numbers.

    Only the first n = share * D / 2 planes turn.
    """
    T, D = x.shape[-2:]
    n = max(1, round(share * (D // 2)))
    angles = torch.zeros(T, D // 2, dtype=x.dtype)
    angles[:, :n] = torch.arange(T, dtype=x.dtype)[:, None] / base ** (torch.arange(n, dtype=x.dtype) / n)
    turned = torch.complex(x[..., : D // 2], x[..., D // 2 :]) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat((turned.real, turned.imag), dim=-1)


def ngrams(idx: Int[Tensor, "B T"], table: Float[Tensor, "R C"], longest: int) -> Float[Tensor, "B T C"]:
    """At each token the sum of the rows for the last 2, 3, ..., `longest` tokens; before the first token are zeros."""
    sums = []
    for row in idx.tolist():
        ids = [0] * (longest - 1) + [token + 1 for token in row]
        for end in range(longest, len(ids) + 1):
            key, places = ids[end - 1], []
            for start in range(end - 2, end - longest - 1, -1):
                key = (key * 1_000_003 + ids[start]) % (2**31 - 1)
                places.append(key % len(table))
            sums.append(table[places].sum(dim=0))
    return torch.stack(sums).view(*idx.shape, -1)


def attention(
    x: Float[Tensor, "B T C"], w: Weights, name: str, config: ModernConfig, first: Tensor | None
) -> tuple[Float[Tensor, "B T C"], Float[Tensor, "B H T D"]]:
    """Every token takes a mean of the values before it, weighted by how well its query fits their keys.

    Returns the values, too: those of the first layer are mixed into the later ones.
    """
    B, T, C = x.shape
    D, group = config.head_dim, config.n_head // config.kv_heads
    qkv = linear(x, w, f"{name}.c_attn").view(B, T, -1, D).transpose(1, 2)  # (B, H + 2K, T, D)
    q, k, v = torch.split(qkv, [config.n_head, config.kv_heads, config.kv_heads], dim=1)
    k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)  # (B, H, T, D)
    if config.qk_norm:
        q, k = rms(q, config.norm_eps), rms(k, config.norm_eps)
    if config.position == "rope":
        q, k = rope(q, config.rope_base, config.rope_share), rope(k, config.rope_base, config.rope_share)
    if config.value_residual and first is not None:
        mix = w[f"{name}.value_mix"]
        v = (1 - mix) * v + mix * first
    scores = q @ k.transpose(-2, -1) / math.sqrt(config.head_dim)  # (B, H, T, T)
    future = torch.ones(T, T, dtype=torch.bool).triu(1)
    weights = softmax(scores.masked_fill(future, -math.inf))  # (B, H, T, T), rows sum to 1
    return linear((weights @ v).transpose(1, 2).reshape(B, T, C), w, f"{name}.c_proj"), v


def mlp(x: Float[Tensor, "B T C"], w: Weights, name: str, config: ModernConfig) -> Float[Tensor, "B T C"]:
    """Transform each token's vector on its own."""
    return linear(activation(linear(x, w, f"{name}.c_fc"), config), w, f"{name}.c_proj")


def gpt(idx: Int[Tensor, "B T"], w: Weights, config: TransformerConfig) -> Float[Tensor, "B T V"]:
    """Logits of the next token at every position."""
    config = ModernConfig.of(config)
    x = w["wte.weight"][idx]  # (B, T, C)
    if config.smear:
        x = x + w["smear"] * torch.cat((torch.zeros_like(x[:, :1]), x[:, :-1]), dim=1)
    if config.ngram > 1:
        x = x + ngrams(idx, w["ngrams.weight"], config.ngram)
    if config.position == "learned":
        x = x + w["wpe.weight"][: idx.shape[1]]
    x0, first = x, None
    for i in range(config.n_layer):
        if config.stream_scales:
            x = w[f"h.{i}.x_scale"] * x + w[f"h.{i}.x0_scale"] * x0
        gathered, values = attention(norm(x, w, f"h.{i}.ln_1", config), w, f"h.{i}.attn", config, first)
        x = x + gathered
        x = x + mlp(norm(x, w, f"h.{i}.ln_2", config), w, f"h.{i}.mlp", config)
        first = values if i == 0 else first
    logits = norm(x, w, "ln_f", config) @ w["wte.weight" if config.tied_head else "unembed.weight"].T
    cap = config.logit_softcap
    return cap * torch.tanh(logits / cap) if cap else logits
