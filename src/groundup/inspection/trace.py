"""One forward pass with everything that can be looked at: the residual stream, the heads, what each part added.

The model computes attention without ever holding its weights (`scaled_dot_product_attention`). They are computed here
from what each attention layer was given, by its own `project`. Nothing in the model knows that it is looked at: the
parts are watched by hooks.
"""

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from groundup.model.types import evaluating


@dataclass(frozen=True, slots=True)
class Trace:
    """What a model computed for one sequence of T tokens, without dropout.

    Args:
        idx: The token ids.
        residual: The stream before the first block, and after each: entry 0 is the embedding.
        attention: Weights: entry (l, h, i, j) is what position i takes from position j. Rows sum to 1; the future is 0.
        queries: What a position asks in a head, after whatever the model does to it (rotary positions, norms).
        keys: What a position is found by.
        values: What a head hands to the positions that look at one.
        attn: What attention added to the stream in each layer.
        mlp: What the MLP added.
        logits: The model's output.
    """

    idx: Int[Tensor, " T"]
    residual: Float[Tensor, "L+1 T C"]
    attention: Float[Tensor, "L H T T"]
    queries: Float[Tensor, "L H T D"]
    keys: Float[Tensor, "L H T D"]
    values: Float[Tensor, "L H T D"]
    attn: Float[Tensor, "L T C"]
    mlp: Float[Tensor, "L T C"]
    logits: Float[Tensor, "T V"]


@torch.no_grad()
def trace(model: Any, idx: Int[Tensor, " T"]) -> Trace:
    """Run a model on one sequence and keep what its parts computed.

    Args:
        model: A GPT-2 or a modern model: blocks in `h`, each with `attn` and `mlp`.
        idx: One sequence of token ids.

    Raises:
        UserError: More positions than block_size.
    """
    seen: dict[str, list[Tensor]] = defaultdict(list)

    def before_block(_block: nn.Module, given: tuple[Any, ...]) -> None:
        seen["residual"].append(given[0][0])

    def after_attention(module: Any, given: tuple[Any, ...], _output: Any) -> None:
        q, k, v = module.project(*given)  # (1, H, T, D), and (1, K, T, D) twice
        group = q.shape[1] // k.shape[1]  # queries that share a head of keys and values
        q, k, v = q[0], k[0].repeat_interleave(group, 0), v[0].repeat_interleave(group, 0)
        for name, part in (("queries", q), ("keys", k), ("values", v), ("attention", _weights(q, k))):
            seen[name].append(part)

    def after_projection(_module: nn.Module, _given: tuple[Any, ...], output: Tensor) -> None:
        seen["attn"].append(output[0])

    def after_mlp(_module: nn.Module, _given: tuple[Any, ...], output: Tensor) -> None:
        seen["mlp"].append(output[0])

    handles = [model.ln_f.register_forward_pre_hook(before_block)]
    for block in model.h:
        handles += [
            block.register_forward_pre_hook(before_block),
            block.attn.register_forward_hook(after_attention),
            block.attn.c_proj.register_forward_hook(after_projection),
            block.mlp.register_forward_hook(after_mlp),
        ]
    idx = idx.to(model.wte.weight.device)
    try:
        with evaluating(model):
            logits = model(idx[None])[0]
    finally:
        for handle in handles:
            handle.remove()
    return Trace(idx=idx, logits=logits, **{name: torch.stack(parts) for name, parts in seen.items()})


def _weights(q: Float[Tensor, "H T D"], k: Float[Tensor, "H T D"]) -> Float[Tensor, "H T T"]:
    T = q.shape[1]
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    future = torch.ones(T, T, dtype=torch.bool, device=q.device).triu(1)
    return scores.masked_fill(future, -math.inf).softmax(dim=-1)
