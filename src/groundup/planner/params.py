"""How many numbers a model learns."""

from dataclasses import replace

from groundup.config.model import ModernConfig, TransformerConfig
from groundup.config.printable import counted


def has_position_table(config: TransformerConfig) -> bool:
    """Whether positions are learned, as vectors beside those of the tokens."""
    return ModernConfig.of(config).position == "learned"


def shape_in_words(config: TransformerConfig) -> str:
    """Layers, heads, width and context."""
    sizes = f"{counted(config.n_layer, 'layer')}, {counted(config.n_head, 'head')}"
    return f"{sizes}, {config.n_embd} wide, context {config.block_size}"


def parameter_table(config: TransformerConfig) -> dict[str, int]:
    """Parameters by part; a tied head adds none."""
    C, L, D = config.n_embd, config.n_layer, config.head_dim
    bias = 1 if config.bias else 0
    modern = ModernConfig.of(config)
    qkv = D * (config.n_head + 2 * config.kv_heads)
    mixes = L - 1 if modern.value_residual else 0
    shifts = 0 if modern.norm == "rms" else bias
    return {
        "token embedding": config.vocab_size * C,
        "position embedding": config.block_size * C if has_position_table(config) else 0,
        "n-gram embedding": modern.ngram_rows * C if modern.ngram > 1 else 0,
        "attention": L * (C * qkv + C * C + bias * (qkv + C)) + mixes,
        "MLP": L * (2 * C * config.mlp_width + bias * (config.mlp_width + C)),
        "norms": (2 * L + 1) * C * (1 + shifts),
        "scales": (2 * L if modern.stream_scales else 0) + (C if modern.smear else 0),
        "head": config.vocab_size * C if not modern.tied_head else 0,
    }


def matrix_parameters(config: TransformerConfig) -> int:
    """Parameters of the matrices inside the blocks: those that Muon learns."""
    table = parameter_table(replace(ModernConfig.of(config), bias=False, value_residual=False))
    return table["attention"] + table["MLP"]


def lora_parameters(config: TransformerConfig, rank: int) -> int:
    """Numbers that learn under LoRA: two thin matrices beside each matrix of the blocks; 0 without it."""
    C, W = config.n_embd, config.mlp_width
    qkv = config.head_dim * (config.n_head + 2 * config.kv_heads)
    return rank * config.n_layer * ((C + qkv) + (C + C) + 2 * (C + W))


def count_parameters(config: TransformerConfig) -> int:
    """All parameters."""
    return sum(parameter_table(config).values())
