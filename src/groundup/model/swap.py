"""Swap parts of a model for others that compute the same, so that `gpt.py` and `modern.py` stay as they are.

LoRA, oneDNN's products and single operations for CPUs come in here, whole blocks in the room above (`parts`). The new
part takes over the tensors of the old one, so parameters and the names of the state dict remain.
"""

from collections.abc import Callable
from typing import TypeVar

from torch import nn

from groundup.kernels.activations import CompiledReLUSquared, SigmoidGELU
from groundup.kernels.attention import CausalAttention
from groundup.kernels.dropout import CountedDropout
from groundup.kernels.head import CompiledHead
from groundup.kernels.training import TrainingKernels
from groundup.model import modern
from groundup.model.gpt import CausalSelfAttention, TiedHead
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
    """Compute attention, activations, dropout, rotations and the loss on a CPU by kernels, if any, in place."""
    if isinstance(kernels, TrainingKernels):
        replace_modules(model, SigmoidGELU, lambda _: SigmoidGELU(kernels))
        replace_modules(model, modern.ReLUSquared, lambda _: CompiledReLUSquared(kernels))
        replace_modules(model, nn.Dropout, lambda drop: CountedDropout(drop.p, kernels).train(drop.training))
        replace_modules(model, Rotate, lambda _: Rotate(kernels))
        replace_modules(model, TiedHead, lambda _: CompiledHead(kernels))
        replace_modules(model, OneDNNHead, lambda head: CompiledHead(kernels, head))
        for part in model.modules():
            if isinstance(part, (CausalSelfAttention, modern.CausalSelfAttention)):
                part.attend = CausalAttention(kernels)
