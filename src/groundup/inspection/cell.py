"""One attention weight, step by step: query times key, scaled, masked, softmax, times the value."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from groundup.inspection.trace import Trace


@dataclass(frozen=True, slots=True)
class Cell:
    """The numbers behind entry (row, column) of a head's pattern: what position `row` takes from position `column`.

    Args:
        query: Of the row's position.
        key: Of the column's position.
        products: Their products, component by component.
        score: The sum of the products over sqrt(D).
        scores: Of the whole row, before the softmax; positions after `row` are masked and left out.
        exponentials: Of scores minus their largest.
        weight: The column's exponential over the sum of all.
        value: Of the column's position.
        taken: weight x value: what the head gathers from this position.
    """

    query: Float[Tensor, " D"]
    key: Float[Tensor, " D"]
    products: Float[Tensor, " D"]
    score: float
    scores: Float[Tensor, " R"]
    exponentials: Float[Tensor, " R"]
    weight: float
    value: Float[Tensor, " D"]
    taken: Float[Tensor, " D"]


@torch.no_grad()
def explain_cell(seen: Trace, *, layer: int, head: int, row: int, column: int) -> Cell:
    """Compute one attention weight again, with everything in between.

    Args:
        seen: The trace of a text.
        layer: From 0.
        head: From 0.
        row: The position that looks.
        column: The position it looks at; at most `row`, as the future is masked.

    Raises:
        IndexError: The trace has no such cell, or it is masked.
    """
    n_layer, n_head, T, D = seen.queries.shape
    if not (0 <= layer < n_layer and 0 <= head < n_head and 0 <= column <= row < T):
        raise IndexError(f"no cell ({row}, {column}) of layer {layer} head {head}: {n_layer} x {n_head} heads, T = {T}")
    query, keys = seen.queries[layer, head, row], seen.keys[layer, head, : row + 1]
    scores = keys @ query / math.sqrt(D)
    exponentials = (scores - scores.max()).exp()
    weight = exponentials[column] / exponentials.sum()
    value = seen.values[layer, head, column]
    return Cell(
        query=query,
        key=keys[column],
        products=query * keys[column],
        score=float(scores[column]),
        scores=scores,
        exponentials=exponentials,
        weight=float(weight),
        value=value,
        taken=weight * value,
    )
