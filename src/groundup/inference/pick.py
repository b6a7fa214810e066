"""Which weights decode fastest on this machine: measured once, and remembered."""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from groundup.kernels.compiled import load_kernels
from groundup.runtime.remember import remembered
from groundup.runtime.stored import DTYPES, PlainKernels, Weights, store
from groundup.runtime.timing import turns

CANDIDATES: tuple[Weights, ...] = ("fp32", "fp16", "int8")
MIN_SPEEDUP = 1.15
CHOICES = "weights.json"
OUT_OF_CACHE = 128 << 20


def pick_weights(device: torch.device, *, n_embd: int, rows: int, say: Callable[[str], None]) -> Weights:
    """What decodes fastest: measured once a machine, width and number of rows, and remembered.

    Fewer bits are taken only for MIN_SPEEDUP: they cost precision. GPUs get 16 bits, which they multiply faster.
    """
    if device.type != "cpu":
        return "fp16"
    kernels = load_kernels(say)
    key = f"{kernels.key}, {n_embd} wide, {rows} rows"
    return remembered(CHOICES, key, DTYPES, lambda: _fastest(n_embd, rows, kernels))


def _fastest(n_embd: int, rows: int, kernels: PlainKernels) -> Weights:
    """Products of GPT-2's largest layer, with matrices enough that none is in a cache."""
    weight, x = largest_layer(n_embd, rows)
    copies = min(32, 1 + OUT_OF_CACHE // weight.nbytes)
    stored = {name: [kernels.arranged(store(weight.clone(), name)) for _ in range(copies)] for name in CANDIDATES}

    def products(name: Weights) -> None:
        for matrix in stored[name]:
            kernels.linear(x, matrix)

    least = turns({name: partial(products, name) for name in CANDIDATES})
    best: Weights = CANDIDATES[0]
    for name in CANDIDATES[1:]:
        if least[best] > MIN_SPEEDUP * least[name]:
            best = name
    return best


def largest_layer(n_embd: int, rows: int) -> tuple[Float[Tensor, "D C"], Float[Tensor, "B C"]]:
    """Weights like those of GPT-2's, and some rows for them."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4 * n_embd, n_embd, generator=generator)
    return weight, torch.randn(rows, n_embd, generator=generator)
