"""Hugging Face's config.json for GPT-2, both directions.

`GPT2Config` describes a family of models. Ours is the published one; whatever would make another function of the same
weights is refused by name.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from groundup.config.errors import UserError
from groundup.config.model import GPTConfig, ModernConfig, TransformerConfig
from groundup.config.presets import GPT2
from groundup.interop.imported import gpt_config

NORM_EPS = 1e-5
"""Of every layer norm of ours; see `model.gpt`."""


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
    _Rule("activation_function", "gelu_new", ("gelu_new", "gelu_pytorch_tanh", "gelu_fast")),
    _Rule("layer_norm_epsilon", NORM_EPS, (NORM_EPS,)),
    _Rule("scale_attn_weights", True, (True,)),  # noqa: FBT003
    _Rule("scale_attn_by_inverse_layer_idx", False, (False,)),  # noqa: FBT003
    _Rule("add_cross_attention", False, (False,)),  # noqa: FBT003
    _Rule("quantization_config", None, (None,)),
)
"""The three names of GELU's tanh form differ in rounding alone, and so does `reorder_and_upcast_attn`, which is not
here."""


def read_hf_config(values: Any, where: str) -> GPTConfig:
    """Our config of what a Hugging Face config.json describes, without dropout.

    Args:
        values: The parsed JSON.
        where: Its path, for the message.

    Raises:
        UserError: It is not a GPT-2 as we build it; one message lists everything.
    """
    if not isinstance(values, dict):
        raise UserError(f"{where} is not a model's config: it must be an object")
    faults = [fault for rule in _RULES if (fault := rule.fault(values))]
    shape = {
        "n_layer": values.get("n_layer", GPT2.n_layer),
        "n_head": values.get("n_head", GPT2.n_head),
        "n_embd": values.get("n_embd", GPT2.n_embd),
        "block_size": values.get("n_positions", values.get("n_ctx", GPT2.block_size)),
        "vocab_size": values.get("vocab_size", GPT2.vocab_size),
    }
    faults += [f"{key} is {value!r}, not a number" for key, value in shape.items() if type(value) is not int]
    inner = values.get("n_inner")
    if type(shape["n_embd"]) is int and inner not in (None, 4 * shape["n_embd"]):
        faults.append(f"n_inner is {inner}, only 4 * n_embd = {4 * shape['n_embd']} is supported")
    if faults:
        raise UserError(f"{where} is not a GPT-2 that groundup can build: {'; '.join(faults)}")
    if shape["vocab_size"] < 1:
        raise UserError(f"{where}: vocab_size must be at least 1, got {shape['vocab_size']}")
    return gpt_config(shape, where)


def hf_config(config: GPTConfig, *, dtype: str, eot_id: int | None) -> dict[str, Any]:
    """The config.json that makes transformers build our model.

    Args:
        config: A plain GPT-2: see `as_gpt2`.
        dtype: Of the weights, as PyTorch spells it: float32.
        eot_id: The id between documents, for both ends of a text; None where the vocabulary has none.
    """
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_embd": config.n_embd,
        "n_positions": config.block_size,
        "n_ctx": config.block_size,
        "vocab_size": config.vocab_size,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": NORM_EPS,
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.dropout,
        "tie_word_embeddings": True,
        "bos_token_id": eot_id,
        "eos_token_id": eot_id,
        "torch_dtype": dtype,
    }


def as_gpt2(config: TransformerConfig, target: str) -> GPTConfig:
    """The config of the GPT-2 that a model is; a modern one is a GPT-2 when all its switches say so.

    Raises:
        UserError: The model has parts that the published GPT-2 has no place for.
    """
    if isinstance(config, ModernConfig):
        for name, value in config.AS_GPT2.items():
            if getattr(config, name) != value and name != "proj_init":  # which trained weights have left behind
                raise UserError(
                    f"{target} has no place for model.{name} {getattr(config, name)}, only for GPT-2's {value};"
                    f" --format onnx takes it, or train one with --model.{name.replace('_', '-')} {value}"
                )
    return GPTConfig(**{field.name: getattr(config, field.name) for field in dataclasses.fields(GPTConfig)})
