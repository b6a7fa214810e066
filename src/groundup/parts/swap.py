"""What training has in place of parts of the pages: on a CPU whole blocks, and the loss with them."""

from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from groundup.kernels.training import TrainingKernels
from groundup.model import modern
from groundup.model.gpt import Block, Blocks
from groundup.model.ngrams import NgramEmbedding
from groundup.model.swap import replace_modules, use_kernels, use_matmul
from groundup.parts.one_step import OneStepBlock, OneStepBlocks, OneStepModernBlock
from groundup.planner.memory import suits_one_step
from groundup.runtime.matmul import Matmul
from groundup.runtime.stored import PlainKernels


def use_cpu_parts(
    model: nn.Module, matmul: Matmul, kernels: PlainKernels, *, alone: bool, one_call: bool = False
) -> None:
    """Train on a CPU by products, kernels, blocks in one step and sparse gradients, where there are some, in place.

    Args:
        model: The model.
        matmul: See `use_matmul`.
        kernels: The kernels.
        alone: No other process shares the gradients.
        one_call: Products of whole blocks by kernels in float32, too.
    """
    use_matmul(model, matmul, kernels)
    use_kernels(model, kernels)
    if isinstance(kernels, TrainingKernels):
        one_step = partial(OneStepBlock, kernels=kernels, one_call=one_call)
        one_step_modern = partial(OneStepModernBlock, kernels=kernels, one_call=one_call)
        replace_modules(model, Block, one_step)
        replace_modules(model, Blocks, partial(OneStepBlocks, alone=alone))
        replace_modules(
            model, modern.Block, lambda block: one_step_modern(block) if suits_one_step(block.attn.config) else block
        )
    if alone:
        use_sparse_gradients(model)


def use_sparse_gradients(model: nn.Module) -> None:
    """Let tables of n-grams have gradients of the rows that were used, for one process on a CPU, in place."""
    for part in model.modules():
        if isinstance(part, NgramEmbedding):
            part.sparse = True


class NarrowEmbedding(nn.Module):
    """An embedding whose vectors come in autocast's type, and with them the residual stream that they begin.

    On a GPU a step waits for memory as long as for products, and the stream is what blocks read and write most.
    Weights, gradients and the sums inside norms stay in float32.
    """

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.weight = embedding.weight

    def forward(self, idx: Int[Tensor, "*B T"]) -> Float[Tensor, "*B T C"]:
        """The vectors of ids."""
        x, device = F.embedding(idx, self.weight), self.weight.device.type
        return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x


def use_narrow_stream(model: nn.Module) -> None:
    """Give the residual stream autocast's type under autocast, in place."""
    replace_modules(model, nn.Embedding, NarrowEmbedding)
