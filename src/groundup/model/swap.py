"""Swap parts of a model for others that compute the same, so that `gpt.py` and `modern.py` stay as they are.

LoRA, oneDNN's products, and for CPUs attention, activations, rotations and whole blocks come in here. The new part
takes over the tensors of the old one, so parameters and the names of the state dict remain.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from groundup.kernels.attention import CausalAttention
from groundup.kernels.compiled import CompiledKernels
from groundup.kernels.dropout import CountedDropout
from groundup.kernels.gelu import SigmoidGELU
from groundup.kernels.gpt_block import HowBlock, run_block
from groundup.kernels.head import CompiledHead
from groundup.kernels.one_call import OneCallBlocks
from groundup.kernels.relu import CompiledReLUSquared
from groundup.model import modern
from groundup.model.gpt import Block, Blocks, CausalSelfAttention, TiedHead
from groundup.model.kv_cache import KVCache
from groundup.model.ngrams import NgramEmbedding
from groundup.model.rope import Rotate, Rotation
from groundup.planner.memory import suits_one_step
from groundup.runtime.matmul import Matmul, OneDNNHead, OneDNNLinear, Products
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


def use_kernels(model: nn.Module, kernels: PlainKernels, *, one_call: bool = False) -> None:
    """Compute attention, activations, dropout, rotations, blocks and the loss on a CPU by kernels, if any, in place.

    Args:
        model: The model.
        kernels: The kernels.
        one_call: Products of whole blocks in float32, too.
    """
    if isinstance(kernels, CompiledKernels):
        replace_modules(model, SigmoidGELU, lambda _: SigmoidGELU(kernels))
        replace_modules(model, modern.ReLUSquared, lambda _: CompiledReLUSquared(kernels))
        replace_modules(model, nn.Dropout, lambda drop: CountedDropout(drop.p, kernels).train(drop.training))
        replace_modules(model, Rotate, lambda _: Rotate(kernels))
        replace_modules(model, TiedHead, lambda _: CompiledHead(kernels))
        replace_modules(model, OneDNNHead, lambda head: CompiledHead(kernels, head))
        for part in model.modules():
            if isinstance(part, (CausalSelfAttention, modern.CausalSelfAttention)):
                part.attend = CausalAttention(kernels)
        one_step = partial(OneStepBlock, kernels=kernels, one_call=one_call)
        one_step_modern = partial(OneStepModernBlock, kernels=kernels, one_call=one_call)
        replace_modules(model, Block, one_step)
        replace_modules(model, Blocks, OneStepBlocks)
        replace_modules(
            model, modern.Block, lambda block: one_step_modern(block) if suits_one_step(block.attn.config) else block
        )


def use_sparse_gradients(model: nn.Module) -> None:
    """Let tables of n-grams have gradients of the rows that were used, for one process on a CPU, in place."""
    for part in model.modules():
        if isinstance(part, NgramEmbedding):
            part.sparse = True


def use_cpu_parts(
    model: nn.Module, matmul: Matmul, kernels: PlainKernels, *, alone: bool, one_call: bool = False
) -> None:
    """What training on a CPU has in place of parts of the pages: products, kernels, sparse gradients of one process."""
    use_matmul(model, matmul, kernels)
    use_kernels(model, kernels, one_call=one_call)
    if alone:
        use_sparse_gradients(model)


class _OneStep(nn.Module):
    """A block that is one step of autograd, by kernels; as the page has it where they do not suit.

    Args:
        block: The block it stands for; its parts are taken over, not copied.
        kernels: Compute it.
        one_call: All of it in float32, too, without a library's products.
    """

    ln_1: Any
    attn: Any
    ln_2: Any
    mlp: Any
    _kernels: CompiledKernels
    _one_call: bool

    def __init__(self, block: nn.Module, kernels: CompiledKernels, *, one_call: bool = False) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(block.__dict__, _kernels=kernels, _one_call=one_call)

    def in_one_step(
        self, x: Float[Tensor, "B T C"], n_head: int, cache: KVCache | None, rotation: Rotation | None = None
    ) -> Float[Tensor, "B T C"] | None:
        """The residual stream after the block; None where the kernels do not suit."""
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        if cache is not None or not self._suits(x, n_head, dtype):
            return None
        if call := self.call(dtype):
            return call(x.contiguous(), n_head, self.ln_1.eps, self.dropout, self.tensors, rotation)
        wide = getattr(self.attn.c_attn, "products", None) if dtype == torch.float32 else None
        how = HowBlock(self._kernels, wide or Products(), n_head, self.ln_1.eps, self.dropout, dtype, rotation)
        return run_block(x.contiguous(), how, self.tensors)

    def call(self, dtype: torch.dtype) -> OneCallBlocks | None:
        """Computes the block without a library's products; None where these are faster."""
        return self._kernels.one_call.get(dtype) if self._one_call or dtype != torch.float32 else None

    @property
    def tensors(self) -> list[Tensor | None]:
        """Weights and biases, as the kernels take them."""
        attn, mlp = self.attn, self.mlp
        parts = (self.ln_1, attn.c_attn, attn.c_proj, self.ln_2, mlp.c_fc, mlp.c_proj)
        return [tensor for part in parts for tensor in (part.weight, part.bias)]

    @property
    def dropout(self) -> float:
        """The probability, now."""
        return float(self.attn.drop.p) if self.training else 0.0

    def _suits(self, x: Float[Tensor, "B T C"], n_head: int, dtype: torch.dtype) -> bool:
        """Whether the kernels compute all parts of it, and nobody wants to see what is in between."""
        attn, mlp = self.attn, self.mlp
        linears = attn.c_attn, attn.c_proj, mlp.c_fc, mlp.c_proj
        return (
            dtype in (torch.float32, torch.bfloat16)
            and x.shape[-1] // n_head % self._kernels.lanes == 0
            and not torch.compiler.is_compiling()
            and x.device.type == "cpu"
            and x.dtype == attn.c_attn.weight.dtype == torch.float32
            and attn.drop.p == mlp.drop.p < 1
            and isinstance(mlp.act, SigmoidGELU)
            and all(type(part) in (nn.Linear, OneDNNLinear) for part in linears)
            and not _watched(self)
        )


def _watched(module: nn.Module) -> bool:
    """Whether anything below a module has hooks. It takes a fifth of the time of `modules()`."""
    return any(_hooked(part) or _watched(part) for part in module._modules.values() if part is not None)


def _hooked(part: nn.Module) -> bool:
    hooks = part._forward_hooks, part._forward_pre_hooks, part._backward_hooks, part._backward_pre_hooks
    return any(hooks)


class OneStepBlock(_OneStep, Block):
    """That of `gpt.py`."""

    def forward(
        self, x: Float[Tensor, "B T C"], *, cache: KVCache | None = None, mask: Bool[Tensor, "*B T S"] | None = None
    ) -> Float[Tensor, "B T C"]:
        """As the page's."""
        y = self.in_one_step(x, self.attn.n_head, cache)
        return Block.forward(self, x, cache=cache, mask=mask) if y is None else y

    def is_like(self, first: nn.Module, x: Float[Tensor, "B T C"], dtype: torch.dtype) -> bool:
        """Whether it can follow this block in one step; not where anything happens as it is called."""
        alone = _hooked(self) or self._compiled_call_impl is not None or not self._suits(x, self.attn.n_head, dtype)
        same = isinstance(first, OneStepBlock) and (self.dropout, self.ln_1.eps) == (first.dropout, first.ln_1.eps)
        return same and not alone


class OneStepBlocks(Blocks):
    """All blocks of `gpt.py` as one step, where each takes one call; they are taken over, not copied."""

    def __init__(self, blocks: Blocks) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(blocks.__dict__)

    def forward(self, x: Float[Tensor, "B T C"], *, recompute: bool = False, **context: Any) -> Float[Tensor, "B T C"]:
        """As the page's."""
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        blocks = [block for block in self if isinstance(block, OneStepBlock) and block.is_like(self[0], x, dtype)]
        together = len(blocks) == len(self) > 0 and not recompute and context.get("cache") is None
        if not together or (call := blocks[0].call(dtype)) is None:
            return super().forward(x, recompute=recompute, **context)
        first = blocks[0]
        tensors = [tensor for block in blocks for tensor in block.tensors]
        return call(x.contiguous(), first.attn.n_head, first.ln_1.eps, first.dropout, tensors)


class OneStepModernBlock(_OneStep, modern.Block):
    """That of `modern.py`, of which `suits_one_step`."""

    def forward(
        self,
        x: Float[Tensor, "B T C"],
        x0: Float[Tensor, "B T C"],
        rotation: Rotation | None,
        first: modern.Values | None,
        *,
        cache: KVCache | None = None,
        mask: Bool[Tensor, "*B T S"] | None = None,
    ) -> tuple[Float[Tensor, "B T C"], modern.Values | None]:
        """As the page's; the values of this layer, which no other mixes with its own, are not told."""
        y = self.in_one_step(x, self.attn.config.n_head, cache, rotation)
        return modern.Block.forward(self, x, x0, rotation, first, cache=cache, mask=mask) if y is None else (y, None)


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
