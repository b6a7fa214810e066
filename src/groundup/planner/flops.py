"""Floating-point operations, counted the way the field counts them.

A matrix product of a parameter with one token's vector is one multiplication and one addition; the backward pass is
twice the forward. So training costs 6 FLOPs per parameter and token, plus 12 L C T for the two products inside
attention (PaLM, Chowdhery et al. 2022, appendix B; the convention of nanoGPT's MFU). Position embeddings are looked
up, not multiplied, and do not count, nor does the token embedding beside a head of its own; a tied one counts once, as
the head. Vectors of n-grams are looked up, too.
"""

from groundup.config.model import TransformerConfig
from groundup.planner.params import parameter_table


def flops_per_token(config: TransformerConfig, context: int) -> float:
    """Training FLOPs per token at a context length T: forward and backward."""
    return 3 * forward_flops_per_token(config, context)


def forward_flops_per_token(config: TransformerConfig, context: int) -> float:
    """Forward FLOPs per token when every token attends over a context of T (not halved for causality)."""
    table = parameter_table(config)
    multiplied = sum(table.values()) - table["position embedding"] - table["n-gram embedding"]
    if table["head"]:
        multiplied -= table["token embedding"]
    return 2 * multiplied + 4 * config.n_layer * config.n_embd * context
