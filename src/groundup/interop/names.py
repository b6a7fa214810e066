"""One table of names: every parameter of a GPT-2, as we, Hugging Face, nanoGPT, llm.c and GGUF call it.

Hugging Face and nanoGPT use our names behind `transformer.`. Hugging Face keeps OpenAI's layout for the four matrices
of a block, (in, out), the transpose of `nn.Linear`'s (out, in) that everybody else uses. llm.c has no names: it writes
the parameters in the order of this table, each for all blocks before the next.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from groundup.config.errors import UserError
from groundup.config.model import TransformerConfig


@dataclass(frozen=True, slots=True)
class Name:
    """One parameter. In the names of a block's parameters `{i}` stands for its index."""

    ours: str
    gguf: str
    transposed: bool = False
    """Hugging Face stores the transpose (its Conv1D)."""

    @property
    def hf(self) -> str:
        """The name in a Hugging Face folder."""
        return f"transformer.{self.ours}" if self.ours != HEAD else _HEAD

    def of_block(self, i: int) -> "Name":
        """The same parameter of one block."""
        return Name(self.ours.format(i=i), self.gguf.format(i=i), self.transposed)


_EMBEDDINGS = (
    Name("wte.weight", "token_embd.weight"),
    Name("wpe.weight", "position_embd.weight"),
)
_BLOCK = (
    Name("h.{i}.ln_1.weight", "blk.{i}.attn_norm.weight"),
    Name("h.{i}.ln_1.bias", "blk.{i}.attn_norm.bias"),
    Name("h.{i}.attn.c_attn.weight", "blk.{i}.attn_qkv.weight", transposed=True),
    Name("h.{i}.attn.c_attn.bias", "blk.{i}.attn_qkv.bias"),
    Name("h.{i}.attn.c_proj.weight", "blk.{i}.attn_output.weight", transposed=True),
    Name("h.{i}.attn.c_proj.bias", "blk.{i}.attn_output.bias"),
    Name("h.{i}.ln_2.weight", "blk.{i}.ffn_norm.weight"),
    Name("h.{i}.ln_2.bias", "blk.{i}.ffn_norm.bias"),
    Name("h.{i}.mlp.c_fc.weight", "blk.{i}.ffn_up.weight", transposed=True),
    Name("h.{i}.mlp.c_fc.bias", "blk.{i}.ffn_up.bias"),
    Name("h.{i}.mlp.c_proj.weight", "blk.{i}.ffn_down.weight", transposed=True),
    Name("h.{i}.mlp.c_proj.bias", "blk.{i}.ffn_down.bias"),
)
_FINAL = (
    Name("ln_f.weight", "output_norm.weight"),
    Name("ln_f.bias", "output_norm.bias"),
)
HEAD, _HEAD = "unembed.weight", "lm_head.weight"
"""A head of its own, as we and everybody else call it; a GPT-2 has none, for its head is the token embedding."""
_BUFFERS = (".attn.bias", ".attn.masked_bias")
"""The causal mask, which older versions of Hugging Face and nanoGPT saved with the weights."""
_WRAPPERS = {
    *("_orig_mod", "module", "model", "base_model", "transformer"),
    *("_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"),
    *("base_layer", "original_module", "modules_to_save", "default"),
}
"""Words that classes around a model leave in its names, wherever they stand: torch.compile, DistributedDataParallel,
Lightning, Fabric, PEFT, FSDP, recomputation, and the class around the trunk. No name of the table holds one."""


_PADDED = {8: 8, 16: 16, 32: 32, 64: 128}
"""Rows that padding leaves over are fewer than this, by the power of two up to 64 that divides all rows."""


def names(n_layer: int, *, tied_head: bool = True) -> Iterator[Name]:
    """Every parameter of a GPT-2 with biases and learned positions, in llm.c's order."""
    yield from _EMBEDDINGS
    for name in _BLOCK:
        yield from (name.of_block(i) for i in range(n_layer))
    yield from _FINAL
    if not tied_head:
        yield Name(HEAD, "output.weight")


def to_ours(state: Mapping[Any, Tensor], where: str) -> dict[str, Tensor]:
    """Tensors of Hugging Face, nanoGPT and what was built around them, under our names and in our layout.

    Words of wrappers, what else stands before all names, masks and the tied copy of the head go; a head that differs
    from the embedding is kept. The layout is known by its shapes: (C, 3C) is Hugging Face's. Names that the table does
    not know are passed on: the check against the model's shape lists them.

    Args:
        state: Their tensors by name.
        where: Their file, for messages.

    Raises:
        UserError: These are not a GPT-2's tensors: it has no token embedding, two of one name, or
            several models.
    """
    if odd := next((name for name in state if not isinstance(name, str)), None):
        raise UserError(f"{where} must hold tensors by name, and one of its names is {odd!r}")
    if lora := next((name for name in state if ".lora_" in name), None):
        raise UserError(
            f"{where} holds a LoRA beside the weights ({lora}): merge it first, with PEFT's merge_and_unload(), and"
            " save the model again"
        )
    ours: dict[str, Tensor] = {}
    for name, tensor in state.items():
        short = ".".join(word for word in name.split(".") if word not in _WRAPPERS)
        if short in ours:
            raise UserError(f"{where} holds two tensors that are {short}; one of them is {name}")
        if not short.endswith(_BUFFERS):
            ours[short] = tensor
    ours = _without_prefix(ours, where)
    head = ours.pop(_HEAD, None)
    if head is not None and not torch.equal(head, ours.setdefault("wte.weight", head)):  # a file may name either alone
        ours[HEAD] = head
    if "wte.weight" not in ours or ours["wte.weight"].dim() != 2:
        first = ", ".join(list(state)[:3])
        raise UserError(f"{where} is no GPT-2: it has no matrix wte.weight; its {len(state)} names begin with {first}")
    if not _is_transposed(ours):
        return ours
    ends = tuple(name.ours.removeprefix("h.{i}") for name in _BLOCK if name.transposed)
    return {name: t.mT.contiguous() if name.endswith(ends) and t.dim() == 2 else t for name, t in ours.items()}


def _without_prefix(state: dict[str, Tensor], where: str) -> dict[str, Tensor]:
    """The names without what a class of any name put before them: `net.wte.weight` is `wte.weight`.

    Raises:
        UserError: There are several models.
    """
    found = [name.removesuffix("wte.weight") for name in state if name.endswith(".wte.weight")]
    if "wte.weight" in state or not found:
        return state
    if len(found) > 1:
        raise UserError(
            f"{where}: it holds {len(found)} models, {' and '.join(found[:4])}; save the one that you want alone"
        )
    return {name.removeprefix(found[0]): tensor for name, tensor in state.items()}


def _is_transposed(state: dict[str, Tensor]) -> bool:
    """Whether the matrices of the blocks are laid out (in, out)."""
    matrix = next((tensor for name, tensor in state.items() if name.endswith(".attn.c_attn.weight")), None)
    return matrix is not None and matrix.dim() == 2 and matrix.shape[1] == 3 * matrix.shape[0]


def to_hf(state: dict[str, Tensor], n_layer: int) -> dict[str, Tensor]:
    """Our tensors under Hugging Face's names and in its layout; a tied head is left out, as its own folders do.

    `to_hf(to_ours(x)) == x`, bit for bit.
    """
    return {
        name.hf: state[name.ours].mT.contiguous() if name.transposed else state[name.ours]
        for name in names(n_layer, tied_head=HEAD not in state)
    }


def to_gguf(state: dict[str, Tensor], n_layer: int) -> dict[str, Tensor]:
    """Our tensors under GGUF's names; the layout is ours."""
    return {name.gguf: state[name.ours] for name in names(n_layer, tied_head=HEAD not in state)}


def with_biases(state: dict[str, Tensor], config: TransformerConfig) -> dict[str, Tensor]:
    """The same function with every bias written out: zeros, where the model was built without.

    Other formats know only the published shape.
    """
    if config.bias:
        return state
    full = dict(state)
    for name, tensor in state.items():
        # A matrix has an output for each row, a norm one for each weight; embeddings have no bias.
        if name.startswith(("h.", "ln_f.")):
            full[name.removesuffix("weight") + "bias"] = torch.zeros(tensor.shape[0], dtype=tensor.dtype)
    return full


def without_padding(state: dict[str, Tensor], vocab_size: int) -> dict[str, Tensor]:
    """Cut the rows that pad the token embedding, and a head of its own, to a round number: no token has their ids.

    Raises:
        UserError: The embedding has fewer rows than there are tokens, or more than padding to 8, 16, 32, 64 or 128
            explains.
    """
    rows = state["wte.weight"].shape[0]
    if rows == vocab_size:
        return state
    if not 0 < rows - vocab_size < _PADDED.get(math.gcd(rows, 64), 0):
        resize = f"; where the rest is padding, cut it with transformers' resize_token_embeddings({vocab_size})"
        raise UserError(
            f"the weights have {rows} ids and the tokenizer {vocab_size}; name the right tokenizer with --tokenizer"
            + (resize if rows > vocab_size else "")
        )
    padded = [name for name in ("wte.weight", HEAD) if name in state]
    return {**state, **{name: state[name][:vocab_size].contiguous() for name in padded}}
