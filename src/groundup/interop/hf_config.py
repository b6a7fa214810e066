"""Hugging Face's config.json for GPT-2, both directions.

`GPT2Config` describes a family of models. The published one is our `gpt`; another activation, width of the MLP or
epsilon, or a head that is not tied, makes it a `modern`. Another scale of attention becomes one of the
weights that make queries. Whatever else would make another function of the same weights is refused by name.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from groundup.config.errors import UserError
from groundup.config.model import GPTConfig, ModernConfig, TransformerConfig, model_flag
from groundup.config.presets import GPT2
from groundup.interop.imported import gpt_config

ACTIVATIONS = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "relu": "relu",
    "relu2": "relu2",
}
"""Theirs to ours; the names of one form of GELU differ in rounding alone, and so does `reorder_and_upcast_attn`."""
_SHAPE = {
    "n_layer": ("n_layer", "num_hidden_layers"),
    "n_head": ("n_head", "num_attention_heads"),
    "n_embd": ("n_embd", "hidden_size"),
    "block_size": ("n_positions", "max_position_embeddings"),
    "vocab_size": ("vocab_size",),
}
"""Our names to the two that transformers reads: GPT-2's, and the one of all its models."""
SWITCHES = ("activation", "n_inner", "norm_eps", "tied_head")
"""Of `ModernConfig`: what transformers has a place for."""


@dataclass(frozen=True, slots=True)
class _Rule:
    """Values of one key under which a config describes our model."""

    key: str
    default: Any
    """What Hugging Face takes where the key is not given."""
    allowed: tuple[Any, ...]

    def fault(self, values: dict[str, Any]) -> str | None:
        value = values.get(self.key, self.default)
        if value in self.allowed:
            return None
        return f"{self.key} is {value!r}, only {' or '.join(map(repr, self.allowed))} is supported"


_RULES = (
    _Rule("model_type", "gpt2", ("gpt2",)),
    _Rule("activation_function", "gelu_new", tuple(ACTIVATIONS)),
    _Rule("scale_attn_weights", True, (True, False)),  # noqa: FBT003
    _Rule("scale_attn_by_inverse_layer_idx", False, (True, False)),  # noqa: FBT003
    _Rule("add_cross_attention", False, (False,)),  # noqa: FBT003
    _Rule("quantization_config", None, (None,)),
)


def read_hf_config(values: Any, where: str) -> GPTConfig | ModernConfig:
    """Our config of what a Hugging Face config.json describes, without dropout. Whether the head is tied, tensors tell.

    Args:
        values: The parsed JSON.
        where: Its path, for the message.

    Raises:
        UserError: It is not a GPT-2 as we build it; one message lists everything.
    """
    if not isinstance(values, dict):
        raise UserError(f"{where} is not a model's config: it must be an object")
    faults = [fault for rule in _RULES if (fault := rule.fault(values))]
    shape = {name: getattr(GPT2, name) for name in _SHAPE}
    for ours, theirs in _SHAPE.items():
        said = {name: values[name] for name in theirs if name in values}
        if len(set(map(str, said.values()))) > 1:
            faults.append("it says both " + " and ".join(f"{name} {value}" for name, value in said.items()))
        shape[ours] = next(iter(said.values()), shape[ours])
    if not {"n_positions", "max_position_embeddings"} & values.keys():
        shape["block_size"] = values.get("n_ctx", GPT2.block_size)
    if not values.keys() & set(_SHAPE["n_head"]):
        odd = [name for name, value in values.items() if "head" in name.lower() and type(value) is int]
        faults += [f"{name} is no key of GPT-2's config, where heads are n_head" for name in odd]
    faults += [f"{key} is {value!r}, not a number" for key, value in shape.items() if type(value) is not int]
    inner, eps = values.get("n_inner"), values.get("layer_norm_epsilon", 1e-5)
    if inner is not None and type(inner) is not int:
        faults.append(f"n_inner is {inner!r}, not a number")
    if type(eps) not in (int, float):
        faults.append(f"layer_norm_epsilon is {eps!r}, not a number")
    if faults:
        raise UserError(f"{where} is not a GPT-2 that groundup can build: {'; '.join(faults)}")
    if shape["vocab_size"] < 1:
        raise UserError(f"{where}: vocab_size must be at least 1, got {shape['vocab_size']}")
    switches = {
        "activation": ACTIVATIONS[values.get("activation_function", "gelu_new")],
        "n_inner": 0 if inner in (None, 4 * shape["n_embd"]) else inner,
        "norm_eps": eps,
    }
    return gpt_config(shape, where, switches)


def scaled_queries(values: dict[str, Any], config: TransformerConfig, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights with which our attention gives what theirs gives with another scale.

    Scores are q k / sqrt(head_dim). Without `scale_attn_weights` they are q k, and with
    `scale_attn_by_inverse_layer_idx` those of block i are divided by i + 1: either is a factor of the rows of c_attn
    that make q.

    Args:
        values: A config.json that `read_hf_config` has let through.
        config: What it gave.
        state: All weights, by our names and in our layout. Where a factor is no power of two, those of 16 bits become
            float32, for they would lose digits.
    """
    factors = [1.0] * config.n_layer
    if not values.get("scale_attn_weights", True):
        factors = [math.sqrt(config.n_embd // config.n_head)] * config.n_layer
    if values.get("scale_attn_by_inverse_layer_idx", False):
        factors = [factor / (i + 1) for i, factor in enumerate(factors)]
    if all(factor == 1.0 for factor in factors):
        return state
    if any(math.frexp(factor)[0] != 0.5 for factor in factors):  # 0.5: a power of two
        state = {name: t.float() if t.element_size() < 4 else t for name, t in state.items()}
    scaled = dict(state)
    for i, factor in enumerate(factors):
        for name in (f"h.{i}.attn.c_attn.weight", f"h.{i}.attn.c_attn.bias"):
            if name in state and state[name].shape[:1] == (3 * config.n_embd,):  # else it is told what is wrong with it
                q, k, v = state[name].chunk(3)
                scaled[name] = torch.cat([q * factor, k, v])
    return scaled


def hf_config(config: TransformerConfig, *, dtype: str, eot_id: int | None) -> dict[str, Any]:
    """The config.json that makes transformers build our model.

    Args:
        config: One that `fitting` has let through.
        dtype: Of the weights, as PyTorch spells it: float32.
        eot_id: The id between documents, for both ends of a text; None where the vocabulary has none.
    """
    modern = ModernConfig.of(config)
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_embd": config.n_embd,
        "n_positions": config.block_size,
        "n_ctx": config.block_size,
        "vocab_size": config.vocab_size,
        "n_inner": modern.n_inner or None,
        "activation_function": next(theirs for theirs, ours in ACTIVATIONS.items() if ours == modern.activation),
        "layer_norm_epsilon": modern.norm_eps,
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.dropout,
        "tie_word_embeddings": modern.tied_head,
        "bos_token_id": eot_id,
        "eos_token_id": eot_id,
        "torch_dtype": dtype,
    }


def fitting(config: TransformerConfig, target: str, switches: Collection[str] = ()) -> ModernConfig:
    """The config of a model with every switch written out, where another program has a place for what it says.

    Args:
        config: Of the model.
        target: The other program's model, for the message.
        switches: The switches that it has; all others must have GPT-2's value.

    Raises:
        UserError: The model has parts that it has no place for.
    """
    modern = ModernConfig.of(config)
    free = ("proj_init", *switches)  # proj_init: weights were trained
    if modern.kv_heads == modern.n_head:
        modern = replace(modern, n_kv_head=0)
    others = {n: value for n, value in modern.AS_GPT2.items() if n not in free and getattr(modern, n) != value}
    if others:
        has = " and ".join(f"model.{name} {getattr(modern, name)}" for name in others)
        flags = " ".join(model_flag(name, value) for name, value in others.items())
        raise UserError(
            f"{target} has no place for {has}, only for GPT-2's {' and '.join(map(str, others.values()))};"
            f" --format onnx takes {'them' if len(others) > 1 else 'it'}, or train one with {flags}"
        )
    return modern
