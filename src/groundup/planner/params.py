"""How many numbers a model learns."""

from groundup.config.model import ModernConfig, TransformerConfig


def has_position_table(config: TransformerConfig) -> bool:
    """Whether positions are learned, as vectors beside those of the tokens."""
    return not isinstance(config, ModernConfig) or config.position == "learned"


def parameter_table(config: TransformerConfig) -> dict[str, int]:
    """Parameters by part; the tied head adds none."""
    C, L = config.n_embd, config.n_layer
    bias = 1 if config.bias else 0
    return {
        "token embedding": config.vocab_size * C,
        "position embedding": config.block_size * C if has_position_table(config) else 0,
        "attention": L * (3 * C * C + C * C + bias * (3 * C + C)),
        "MLP": L * (8 * C * C + bias * (4 * C + C)),
        "norms": (2 * L + 1) * C * (1 + bias),
    }


def count_parameters(config: TransformerConfig) -> int:
    """All parameters."""
    return sum(parameter_table(config).values())
