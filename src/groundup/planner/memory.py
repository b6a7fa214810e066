"""Bytes a training step needs, by formula.

For the backward pass PyTorch keeps, of each pre-norm block, in units of one (B, T, C) tensor: the inputs of the two
norms (2, always float32: they are the residual stream), the norms' outputs (2), q, k, v and the attention's output
(4), and the MLP's hidden layer before and after GELU (8). Fused attention keeps a number per head and token besides,
which is small. Rotary positions keep the rotated q and k beside the projection that v still needs (2), dropout the
masks of two places.

CPUs keep more: our GELU there keeps a sigmoid (4), and PyTorch has no fused attention with dropout for them, so the
matrices of scores, weights and masks (B, H, T, T) stay.
"""

from dataclasses import dataclass

from groundup.config.model import TransformerConfig
from groundup.planner.params import count_parameters, has_position_table

LOGITS_BYTES = {"cpu": 1 << 27, "cuda": 1 << 29}
"""Logits in float32 that are in memory at once, by device, as in `model/loss.py`; a test holds the two together."""
RESIDUAL_TENSORS = 2
NARROW_TENSORS = 2 + 4 + 8


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


def training_memory(
    config: TransformerConfig, *, micro_batch_size: int, half: bool = False, cpu: bool = False, recompute: bool = False
) -> Memory:
    """Peak memory of a training step.

    Args:
        config: The model's shape.
        micro_batch_size: Sequences per forward pass (B).
        half: Activations in 16 bits (bf16 or fp16 autocast); weights, gradients and optimizer stay float32, and the
            16-bit copies of the weights that autocast makes are counted with the activations.
        cpu: Computed on a CPU without torch.compile.
        recompute: Of each block only the input is kept, and the block is computed again when it is needed.
    """
    n = count_parameters(config)
    width = 2 if half else 4
    tokens = micro_batch_size * config.block_size
    stream = tokens * config.n_embd
    block = stream * (4 * RESIDUAL_TENSORS + width * NARROW_TENSORS)
    ends = stream * (4 + width)  # the last norm's input and output
    if not has_position_table(config) and not (cpu and config.dropout):
        block += 2 * width * stream
    if cpu and not half:
        block += 4 * 4 * stream
    if config.dropout:
        mask = width if cpu else 1
        block += 2 * mask * stream
        ends += (4 if cpu else 1) * stream
        if cpu:  # scores, weights and masks, and copies of q, k and v
            block += 4 * (3 * tokens * config.n_head * config.block_size + 3 * stream) - 3 * width * stream
    blocks = config.n_layer * 4 * stream + block if recompute else config.n_layer * block
    activations = blocks + ends + (2 * n if half else 0)
    # Logits and their gradient; under autocast the float32 copy that cross-entropy works on besides.
    logits = tokens * config.vocab_size * (2 * 4 + (2 if half else 0))
    chunk = LOGITS_BYTES["cpu" if cpu else "cuda"]
    if 4 * tokens * config.vocab_size > chunk:  # what is left of all chunks: the gradients of both sides of the head
        logits = chunk * (2 * 4 + (2 if half else 0)) // 4 + 4 * stream + 4 * config.vocab_size * config.n_embd
    return Memory(weights=4 * n, gradients=4 * n, optimizer=8 * n, activations=activations, logits=logits)


def kv_cache_bytes(config: TransformerConfig, *, batch_size: int, tokens: int, width: int = 4) -> int:
    """Keys and values of every layer for `tokens` positions."""
    return 2 * config.n_layer * batch_size * tokens * config.n_embd * width
