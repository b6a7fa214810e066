"""Switch heads and MLPs off, and see what the model can no longer do.

A head's output is a slice of what the output projection reads: set to 0, or to its mean over the text. The mean is the
gentler question ("what if this head knew nothing of where it is?"): zero is far from anything the model has seen.
"""

import contextlib
from collections.abc import Collection, Iterable, Iterator
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from groundup.config.errors import UsageError
from groundup.model.types import evaluating

Instead = Literal["zero", "mean"]


@contextlib.contextmanager
def without(
    model: Any, *, heads: Collection[tuple[int, int]] = (), mlps: Collection[int] = (), instead: Instead = "mean"
) -> Iterator[None]:
    """In this context the model computes without some of its parts.

    Args:
        model: A GPT-2 or a modern model.
        heads: (layer, head) of each that is off.
        mlps: Layers whose MLP is off.
        instead: What stands for the output that is missing: 0, or its mean over the positions of the text.

    Raises:
        UsageError: There is no such layer or head.
    """
    n_layer, n_head = model.config.n_layer, model.config.n_head
    for layer, head in [*heads, *((layer, 0) for layer in mlps)]:
        if not (0 <= layer < n_layer and 0 <= head < n_head):
            raise UsageError(f"there is no layer {layer} head {head}: the model has {n_layer} layers of {n_head} heads")
    handles = []
    for layer in {layer for layer, _ in heads}:
        off = torch.zeros(n_head, dtype=torch.bool)
        off[[head for at, head in heads if at == layer]] = True
        columns = off.repeat_interleave(model.config.n_embd // n_head)
        projection = model.h[layer].attn.c_proj
        handles.append(projection.register_forward_pre_hook(_without_columns(columns, instead)))
    handles += [model.h[layer].mlp.register_forward_hook(_without_output(instead)) for layer in set(mlps)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def importances(
    model: Any, idx: Int[Tensor, " T"], heads: Iterable[tuple[int, int]], *, instead: Instead = "mean"
) -> Iterator[float]:
    """By how much the loss on a text grows when each of some heads alone is off: nats per token.

    One pass through the model for each, and one before the first. Others may use the model between two of them.

    Args:
        model: A GPT-2 or a modern model.
        idx: The text.
        heads: (layer, head) of each.
        instead: What stands for a head that is off.

    Raises:
        UsageError: A text of one token has no loss.
    """
    if len(idx) < 2:
        raise UsageError(f"the loss of a text needs at least 2 tokens, got {len(idx)}")
    idx = idx.to(model.wte.weight.device)

    @torch.no_grad()
    def loss() -> float:
        with evaluating(model):
            # The last token, too, is part of the text that a mean is over.
            return float(cross_entropy(model(idx[None])[0, :-1], idx[1:]))

    whole = loss()
    for head in heads:
        with without(model, heads=[head], instead=instead):
            growth = loss() - whole
        yield growth


def _without_columns(columns: Tensor, instead: Instead) -> Any:
    def hook(_module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        (x,) = given
        return (torch.where(columns.to(x.device), _stand_in(x, instead), x),)

    return hook


def _without_output(instead: Instead) -> Any:
    def hook(_module: nn.Module, _given: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return _stand_in(output, instead).expand_as(output)

    return hook


def _stand_in(x: Float[Tensor, "B T C"], instead: Instead) -> Tensor:
    return x.mean(1, keepdim=True) if instead == "mean" else torch.zeros_like(x)
