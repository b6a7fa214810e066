"""What computes the products of training on a CPU: a library, or for whole blocks our kernels, in one call each way."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from groundup.config.model import TransformerConfig
from groundup.kernels.training import TrainingKernels
from groundup.parts.gpt_block import HowBlock, run_block
from groundup.planner.memory import suits_one_call
from groundup.runtime.matmul import MOST_ROWS, Matmul, pick_matmul, products_of
from groundup.runtime.remember import remembered
from groundup.runtime.stored import PlainKernels
from groundup.runtime.timing import turns

CHOICES = "blocks.json"
MIN_SPEEDUP = 1.05
"""A library must be measured this much faster."""


def pick_products(
    kernels: PlainKernels, config: TransformerConfig, *, half: bool, rows: int, lora: bool = False
) -> tuple[Matmul, bool]:
    """The library, and whether blocks do without it: in float32 what is faster here.

    For blocks a library must be faster by MIN_SPEEDUP: with it cores wait for each other more often, and beside other
    programs a step takes many times as long. That is measured once a machine and shape, and remembered.

    Args:
        kernels: Of this machine.
        config: The model's shape.
        half: In 16 bits, which oneDNN multiplies for PyTorch, too.
        rows: Tokens at a time.
        lora: A change of low rank learns alone, which the page computes.
    """
    if half:
        return "default", not lora and suits_one_call(config, half=True, bf16=kernels.has_bf16)
    matmul = pick_matmul(torch.device("cpu"), rows=rows, n_embd=config.n_embd, training=True, kernels=kernels)
    if lora or not isinstance(kernels, TrainingKernels) or not suits_one_call(config, half=False):
        return matmul, False
    texts = max(1, min(rows, MOST_ROWS) // config.block_size)
    size = f"{config.n_embd} wide, {config.n_head} heads, {texts} x {config.block_size} tokens"
    key = f"{kernels.key}, {size}, beside {matmul}, torch {torch.__version__}"
    measure = partial(_faster, kernels, matmul, config, texts)
    return matmul, remembered(CHOICES, key, ("one call", "library"), measure) == "one call"


def _faster(kernels: TrainingKernels, matmul: Matmul, config: TransformerConfig, texts: int) -> str:
    width, generator = config.n_embd, torch.Generator().manual_seed(0)
    shapes: list[tuple[int, ...]] = []
    for matrices in ((3 * width, width), (width, width)), ((4 * width, width), (width, 4 * width)):
        shapes += [(width,), (width,), *(shape for size in matrices for shape in (size, size[:1]))]
    tensors = [torch.randn(shape, generator=generator).mul_(0.02).requires_grad_() for shape in shapes]
    x, grad = torch.randn(2, texts, config.block_size, width, generator=generator)
    how = HowBlock(kernels, products_of(matmul, kernels), config.n_head, 1e-5, 0.0, torch.float32)
    in_one_call = kernels.one_call[torch.float32]

    def one_call(x: Tensor, tensors: Sequence[Tensor | None]) -> Tensor:
        return in_one_call(x, config.n_head, 1e-5, 0.0, tensors)

    def library(x: Tensor, tensors: Sequence[Tensor | None]) -> Tensor:
        return run_block(x, how, tensors)

    def step(way: Callable[..., Float[Tensor, "B T C"]]) -> None:
        y = way(x.requires_grad_(), tensors)
        y.register_hook(lambda _: grad)  # type: ignore[no-untyped-call]  # see pick_matmul
        torch.autograd.backward(y.sum())

    with torch.enable_grad():
        least = turns({"one call": partial(step, one_call), "library": partial(step, library)})
    return "one call" if least["one call"] <= MIN_SPEEDUP * least["library"] else "library"
