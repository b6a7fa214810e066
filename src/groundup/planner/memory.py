"""Bytes a training step needs, by formula.

Activations are those that PyTorch's layers keep for the backward pass of a pre-norm block with fused attention, in
units of one (B, T, C) tensor: the two norm inputs and outputs (4), q, k, v and the attention output (4), the input of
the output projection is that output, the residual sums (2), and the MLP's hidden layer before and after GELU (8);
plus the attention's log-sum-exp, which is small. Dropout keeps a mask more for each of its three places.
"""

from dataclasses import dataclass

from groundup.config.model import GPTConfig
from groundup.planner.params import count_parameters

BLOCK_TENSORS = 18
DROPOUT_TENSORS = 3


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes, by use."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        """The peak of a step: all at once, at the start of the backward pass."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits


def training_memory(config: GPTConfig, *, micro_batch_size: int, half: bool = False) -> Memory:
    """Peak memory of a training step.

    Args:
        config: The model's shape.
        micro_batch_size: Sequences per forward pass (B).
        half: Activations in 16 bits (bf16 or fp16 autocast); weights, gradients and optimizer stay float32, and the
            16-bit copies of the weights that autocast makes are counted with the activations.
    """
    n = count_parameters(config)
    width = 2 if half else 4
    tokens = micro_batch_size * config.block_size
    tensors = BLOCK_TENSORS + (DROPOUT_TENSORS if config.dropout else 0)
    activations = config.n_layer * tensors * tokens * config.n_embd * width + (2 * n if half else 0)
    # Logits and their gradient; under autocast the float32 copy that cross-entropy works on besides.
    logits = tokens * config.vocab_size * (2 * 4 + (2 if half else 0))
    return Memory(weights=4 * n, gradients=4 * n, optimizer=8 * n, activations=activations, logits=logits)


def kv_cache_bytes(config: GPTConfig, *, batch_size: int, tokens: int, width: int = 4) -> int:
    """Keys and values of every layer for `tokens` positions."""
    return 2 * config.n_layer * batch_size * tokens * config.n_embd * width
