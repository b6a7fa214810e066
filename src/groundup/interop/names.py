"""One table of names: every parameter of a GPT-2, as we, Hugging Face, nanoGPT, llm.c and GGUF call it.

Hugging Face and nanoGPT use our names behind `transformer.`. Hugging Face keeps OpenAI's layout for the four matrices
of a block, (in, out), the transpose of `nn.Linear`'s (out, in) that everybody else uses. llm.c has no names: it writes
the parameters in the order of this table, each for all blocks before the next.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from groundup.config.errors import UserError
from groundup.config.model import GPTConfig


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
        return f"transformer.{self.ours}"

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
_HEAD = "lm_head.weight"
_BUFFERS = (".attn.bias", ".attn.masked_bias")
"""The causal mask, which older versions of Hugging Face and nanoGPT saved with the weights."""
_PREFIXES = ("module.", "_orig_mod.", "transformer.")
"""Left by DistributedDataParallel, by torch.compile, and by the class around the trunk: in this order."""


def names(n_layer: int) -> Iterator[Name]:
    """Every parameter of a GPT-2 with biases and learned positions, in llm.c's order."""
    yield from _EMBEDDINGS
    for name in _BLOCK:
        yield from (name.of_block(i) for i in range(n_layer))
    yield from _FINAL


def from_hf(state: dict[str, Tensor], n_layer: int) -> dict[str, Tensor]:
    """Hugging Face's tensors under our names and in our layout; `from_nanogpt` for what is laid out as ours is.

    Tensors of names that the table does not know are passed on: the check against the model's shape lists them.

    Raises:
        UserError: The head is not tied to the token embedding.
    """
    transposed = {name.ours for name in names(n_layer) if name.transposed}
    return {
        name: tensor.mT.contiguous() if name in transposed and tensor.dim() == 2 else tensor
        for name, tensor in from_nanogpt(state).items()
    }


def from_nanogpt(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of nanoGPT under our names: prefixes, masks and the tied copy of the head go.

    Raises:
        UserError: The head is not tied to the token embedding.
    """
    ours = {}
    for full_name, tensor in state.items():
        name = full_name
        for prefix in _PREFIXES:
            name = name.removeprefix(prefix)
        if not name.endswith(_BUFFERS):
            ours[name] = tensor
    head = ours.pop(_HEAD, None)
    if head is not None and "wte.weight" in ours and not torch.equal(head, ours["wte.weight"]):
        raise UserError("lm_head.weight is not wte.weight: models with a head of their own are not GPT-2s")
    return ours


def to_hf(state: dict[str, Tensor], n_layer: int) -> dict[str, Tensor]:
    """Our tensors under Hugging Face's names and in its layout; the head is left out, as its own folders do.

    `to_hf(from_hf(x)) == x`, bit for bit.
    """
    return {
        name.hf: state[name.ours].mT.contiguous() if name.transposed else state[name.ours] for name in names(n_layer)
    }


def to_gguf(state: dict[str, Tensor], n_layer: int) -> dict[str, Tensor]:
    """Our tensors under GGUF's names; the layout is ours."""
    return {name.gguf: state[name.ours] for name in names(n_layer)}


def with_biases(state: dict[str, Tensor], config: GPTConfig) -> dict[str, Tensor]:
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
    """Cut the rows that pad the token embedding to a round number: no token has their ids.

    Raises:
        UserError: The embedding has fewer rows than there are tokens, or more than padding to 64 or 128 explains.
    """
    rows = state["wte.weight"].shape[0]
    if rows == vocab_size:
        return state
    if rows % 64 or not 0 < rows - vocab_size < 128:
        raise UserError(
            f"the weights have {rows} ids and the tokenizer {vocab_size}; name the right tokenizer with --tokenizer"
        )
    return {**state, "wte.weight": state["wte.weight"][:vocab_size].contiguous()}
