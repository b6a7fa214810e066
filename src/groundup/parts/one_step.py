"""Blocks that are one step of autograd, by kernels, and what they do where these do not suit: as the page has it."""

from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from groundup.kernels.activations import SigmoidGELU
from groundup.kernels.dropout import CountedDropout
from groundup.kernels.head import CompiledHead
from groundup.kernels.one_call import OneCallBlocks
from groundup.kernels.training import TrainingKernels
from groundup.model import modern
from groundup.model.gpt import Block, Blocks, LayerNorm
from groundup.model.kv_cache import KVCache
from groundup.model.rope import Rotation
from groundup.parts.gpt_block import HowBlock, run_block
from groundup.parts.whole_model import WholeModel, suit_a_step
from groundup.planner.memory import suits_a_whole_step
from groundup.runtime.matmul import OneDNNLinear, Products


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
    _kernels: TrainingKernels
    _one_call: bool

    def __init__(self, block: nn.Module, kernels: TrainingKernels, *, one_call: bool = False) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(block.__dict__, _kernels=kernels, _one_call=one_call)

    def in_one_step(
        self, x: Float[Tensor, "B T C"], n_head: int, cache: KVCache | None, rotation: Rotation | None = None
    ) -> Float[Tensor, "B T C"] | None:
        """The residual stream after the block; None where the kernels do not suit."""
        dtype = _of_products(x.dtype)
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


def _of_products(dtype: torch.dtype) -> torch.dtype:
    """The type of products, where what they read has this one."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else dtype


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
    """All blocks of `gpt.py` as one step, where each takes one call, and the loss with them; they are taken over.

    Args:
        blocks: The page's.
        alone: No other process shares the gradients.
    """

    _alone: bool
    _whole: WholeModel | None

    def __init__(self, blocks: Blocks, *, alone: bool = False) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(blocks.__dict__, _alone=alone, _whole=None)

    def forward(self, x: Float[Tensor, "B T C"], *, recompute: bool = False, **context: Any) -> Float[Tensor, "B T C"]:
        """As the page's."""
        dtype = _of_products(x.dtype)
        alone = recompute or context.get("cache") is not None
        blocks = [] if alone else self._alike(x, dtype)
        if not blocks or (call := blocks[0].call(dtype)) is None:
            return super().forward(x, recompute=recompute, **context)
        first = blocks[0]
        tensors = [tensor for block in blocks for tensor in block.tensors]
        return call(x.contiguous(), first.attn.n_head, first.ln_1.eps, first.dropout, tensors)

    def _alike(self, x: Float[Tensor, "*B T C"], dtype: torch.dtype) -> list[OneStepBlock]:
        """All blocks, if they can follow each other in one step, else none."""
        blocks = [block for block in self if isinstance(block, OneStepBlock) and block.is_like(self[0], x, dtype)]
        return blocks if len(blocks) == len(self) else []

    def loss(
        self, model: Any, idx: Int[Tensor, "B T"], targets: Int[Tensor, "B T"], tokens: int
    ) -> Float[Tensor, ""] | None:
        """`LossModule` of the model whose blocks these are, in one step; None where that does not suit."""
        if not (self._alone and torch.is_grad_enabled()) or model.recompute or torch.compiler.is_compiling():
            return None
        if not (suits_a_whole_step(model.config, idx.numel()) and suit_a_step(idx, targets, model.config.block_size)):
            return None
        dtype = _of_products(torch.float32)
        if self._whole is None or not self._whole.holds(dtype):
            self._whole = WholeModel(model, dtype, self._all_tensors(model, dtype))
        tensors, first = self._whole.tensors, cast("OneStepBlock", self[0])
        if tensors is None:
            return None
        how = first.attn.n_head, first.ln_1.eps, first.dropout
        return first._kernels.whole_loss[dtype](idx.contiguous(), targets.contiguous(), *how, tensors, tokens)

    def _all_tensors(self, model: Any, dtype: torch.dtype) -> list[Tensor | None] | None:
        """Those of the model, as the kernels take them; None where they do not compute all of it."""
        wte, wpe, norm, blocks = model.wte, model.wpe, model.ln_f, self._alike(model.wte.weight, dtype)
        plain = type(wte) is type(wpe) is nn.Embedding and type(norm) is LayerNorm
        plain = plain and isinstance(model.drop, CountedDropout) and isinstance(model.lm_head, CompiledHead)
        if not plain or not blocks or blocks[0].call(dtype) is None:
            return None
        if (model.drop.p, norm.eps) != (blocks[0].attn.drop.p, blocks[0].ln_1.eps):
            return None
        return [wte.weight, wpe.weight, norm.weight, norm.bias, *(t for block in blocks for t in block.tensors)]


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
