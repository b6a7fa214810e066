"""Swap parts of a model for others that compute the same, so that `gpt.py` and `modern.py` stay as they are.

LoRA, oneDNN's products, attention, activations and rotations for CPUs come in here. The new part takes over the tensors
of the old one, so parameters and the names of the state dict remain.
"""

from collections.abc import Callable
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from groundup.kernels.attention import CausalAttention
from groundup.kernels.compiled import CompiledKernels
from groundup.kernels.dropout import CountedDropout
from groundup.kernels.gelu import SigmoidGELU
from groundup.kernels.relu import CompiledReLUSquared
from groundup.model import modern
from groundup.model.gpt import CausalSelfAttention, TiedHead
from groundup.model.ngrams import NgramEmbedding
from groundup.model.rope import Rotate
from groundup.runtime.matmul import Matmul, OneDNNHead, OneDNNLinear
from groundup.runtime.stored import PlainKernels

M = TypeVar("M", bound=nn.Module)


def replace_modules(root: nn.Module, kind: type[M], make: Callable[[M], nn.Module]) -> None:
    """Put `make(part)` in the place of every part of this kind below a module, in place.

    Args:
        root: Where to look; the root itself stays.
        kind: A class; its subclasses count.
        make: Gives the new part, or the old one to leave it.
    """
    for parent in list(root.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, kind):
                setattr(parent, name, make(child))


def replace_linears(root: nn.Module, make: Callable[[nn.Linear], nn.Module]) -> None:
    """Put `make(linear)` in the place of every linear layer below a module, in place."""
    replace_modules(root, nn.Linear, make)


def use_matmul(model: nn.Module, matmul: Matmul, kernels: PlainKernels | None = None) -> None:
    """Compute the matrix products of a model with this library, in place. Call it before `add_lora`.

    Args:
        model: The model.
        matmul: What `pick_matmul` says.
        kernels: For "kernels".
    """
    if matmul == "default":
        return
    kernels = kernels if matmul == "kernels" else None
    replace_linears(model, lambda linear: OneDNNLinear(linear, kernels) if type(linear) is nn.Linear else linear)
    replace_modules(model, TiedHead, lambda _: OneDNNHead(kernels))


def use_sigmoid_gelu(model: nn.Module) -> None:
    """Compute the tanh GELU by a sigmoid where that is faster, in place."""
    replace_modules(model, nn.GELU, lambda gelu: SigmoidGELU() if gelu.approximate == "tanh" else gelu)


def use_kernels(model: nn.Module, kernels: PlainKernels) -> None:
    """Compute attention, activations, dropout and rotations on a CPU by kernels, where those are compiled, in place."""
    if isinstance(kernels, CompiledKernels):
        replace_modules(model, SigmoidGELU, lambda _: SigmoidGELU(kernels))
        replace_modules(model, modern.ReLUSquared, lambda _: CompiledReLUSquared(kernels))
        replace_modules(model, nn.Dropout, lambda drop: CountedDropout(drop.p, kernels).train(drop.training))
        replace_modules(model, Rotate, lambda _: Rotate(kernels))
        for part in model.modules():
            if isinstance(part, (CausalSelfAttention, modern.CausalSelfAttention)):
                part.attend = CausalAttention(kernels)


def use_sparse_gradients(model: nn.Module) -> None:
    """Let tables of n-grams have gradients of the rows that were used, for one process on a CPU, in place."""
    for part in model.modules():
        if isinstance(part, NgramEmbedding):
            part.sparse = True


def use_cpu_parts(model: nn.Module, matmul: Matmul, kernels: PlainKernels, *, alone: bool) -> None:
    """What training on a CPU has in place of parts of the pages: products, kernels, sparse gradients of one process."""
    use_matmul(model, matmul, kernels)
    use_kernels(model, kernels)
    if alone:
        use_sparse_gradients(model)


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
