"""Products of many rows, such as a prompt: by the kernels or by a library, whichever is measured to be faster here."""

import functools
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from groundup.inference.pick import largest_layer
from groundup.kernels.compiled import CompiledKernels
from groundup.runtime.matmul import onednn_is_there, onednn_product
from groundup.runtime.remember import remembered
from groundup.runtime.stored import DTYPES, PlainKernels, Stored, Weights, inputs_for, store
from groundup.runtime.timing import turns

Many = Literal["default", "onednn", "kernels"]
"""What multiplies many rows: PyTorch's usual library or oneDNN with widened weights, or the compiled kernels."""
MANY = 256
"""Rows that `pick_many` measures with."""
CHOICES = "many-rows.json"


@functools.cache
def pick_many(kernels: PlainKernels, weights: Weights, *, n_embd: int) -> Many:
    """What reads prompts fastest: measured once a machine, width and type of weights, and remembered."""
    key = f"{kernels.key}, {n_embd} wide, {weights}"
    there: list[Many] = ["default"]
    there += ["onednn"] if onednn_is_there(torch.device("cpu")) else []
    there += ["kernels"] if isinstance(kernels, CompiledKernels) else []

    def measure() -> Many:
        weight, x = largest_layer(n_embd, rows=MANY)
        stored = kernels.arranged(store(weight, weights))
        least = turns({way: partial(_product, way, kernels, x, stored, None) for way in there})
        return min(there, key=lambda way: least[way])

    return remembered(CHOICES, f"{key}, torch {torch.__version__}", there, measure)


def multiply_many(
    kernels: PlainKernels, x: Float[Tensor, "B C"], stored: Stored, bias: Float[Tensor, " D"] | None = None
) -> Float[Tensor, "B D"]:
    """X @ weight.T + bias for many rows, the way that `pick_many` says."""
    weights = next(name for name, dtype in DTYPES.items() if dtype == stored.weight.dtype)
    return _product(pick_many(kernels, weights, n_embd=min(stored.shape)), kernels, x, stored, bias)


def _product(way: Many, kernels: PlainKernels, x: Tensor, stored: Stored, bias: Tensor | None) -> Tensor:
    if way == "kernels":
        return kernels.linear(x, stored, bias)
    return (onednn_product if way == "onednn" else F.linear)(inputs_for(stored, x), stored.widened(), bias)
