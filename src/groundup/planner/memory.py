"""Bytes a training step needs, by formula.

For the backward pass PyTorch keeps, of each pre-norm block, in units of one (B, T, C) tensor: the inputs of the two
norms (2, always float32: they are the residual stream), the norms' outputs (2), q, k, v and the attention's output
(4), and the MLP's hidden layer before and after GELU (8). Fused attention keeps a number per head and token besides,
which is small. Rotary positions keep the rotated q and k beside the projection that v still needs (2), dropout the
masks of two places. Of a modern model's other parts, ReLU keeps its output alone, scales of the stream keep what they
scale (1), mixed values the difference and the sum (2), normalized queries and keys what rotary ones do. Our kernels for
CPUs keep no masks, of the squared ReLU the output alone, and rotate in place in blocks of GPT-2's parts.

CPUs keep more where our kernels do not compute: our GELU keeps a sigmoid (4), and PyTorch has no fused attention with
dropout for them, so the matrices of scores, weights and masks (B, H, T, T) stay.

On a GPU all of a step is counted as if it were there at once. On a CPU the peak is the largest of four moments, beside
weights and optimizer; what is kept shrinks from one to the next as evenly as gradients grow, so that nothing between
them is larger:

- the loss: all that is kept, and what the head works on; gradients only of earlier micro-steps;
- the way back through the last block: all that is kept, the block itself where it is computed again, what its MLP has
  in its hands, and the head's gradient, which waits for that of the embedding if they share a matrix;
- the way back through the first block: all gradients, and one block;
- the way back through the embedding: all gradients, and that of the table once more.

Where kernels compute a loss in one step, all that it needs is there at once.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from groundup.config.model import KERNEL_LANES, GPTConfig, ModernConfig, TransformerConfig
from groundup.config.train import OptimConfig, TrainConfig
from groundup.planner.params import count_parameters, lora_parameters, matrix_parameters, parameter_table

LOGITS_BYTES = {"cpu": 1 << 27, "cuda": 1 << 29}
"""Logits in float32 that `model/loss.py` has in memory at once, by device."""
LOGITS_SHARE = 32
"""A large GPU gives them this part of its memory instead: every chunk costs a pass over the head's gradient."""
HOLES = 60_000_000
"""Bytes that glibc's heap holds between blocks, where a CPU's step frees and asks: measured and not counted
(docs/how/planner.md). They hardly grow with the step; a small step has a quarter of what it asks for."""
LIBRARIES = 5_000_000
"""Bytes that libraries take as a CPU's first step runs, measured, too; in 16 bits twice as many."""
WIDEST_IN_ONE_CALL = 384
"""Of models whose blocks kernels compute in float32, too: of wider ones, products of a library are nearly all."""
LARGEST_IN_ONE_STEP = 1024
"""Vocabulary of models whose loss kernels compute in one step: of larger ones the head is nearly all."""
RESIDUAL_TENSORS = 2
NORM_OUTPUTS = 2


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes, by use."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    backward: int = 0
    """Of a CPU's way back: what it has in its hands beside what was kept, and a block that is computed again."""
    holes: int = 0
    """Of the heap, on a CPU, and what libraries keep."""

    @property
    def total(self) -> int:
        """The peak of a step. On a CPU the parts are those of that moment: gradients may not be there yet."""
        return self.weights + self.optimizer + self.of_step + self.holes

    @property
    def of_step(self) -> int:
        """What a step asks for and frees."""
        return self.gradients + self.activations + self.logits + self.backward


@dataclass(frozen=True, kw_only=True, slots=True)
class Arithmetic:
    """How a machine computes a step: it decides over what is kept."""

    half: bool = False
    """Activations in 16 bits (bf16 or fp16 autocast); weights, gradients and optimizer stay float32, and the 16-bit
    copies of the weights that autocast makes are counted with the activations."""
    cpu: bool = False
    """On a CPU, without torch.compile."""
    kernels: bool = False
    """Of a CPU: ours compute attention, dropout, GELU and the squared ReLU."""
    bf16: bool = False
    """They multiply in bfloat16: in 16 bits they compute GPT-2's blocks and copy no weights."""
    compiled: bool = False
    """On a GPU by torch.compile: logits and their gradient stay in 16 bits."""
    device_memory: int = 0
    """Bytes of the GPU; 0 takes a small one."""


def logits_bytes(device: str, device_memory: int = 0) -> int:
    """Bytes of logits, in float32, that are in memory at once; more tokens go through the head in chunks.

    Args:
        device: cpu, cuda or mps.
        device_memory: Bytes that the device has in all; 0 where that is unknown.
    """
    least = LOGITS_BYTES.get(device, LOGITS_BYTES["cpu"])
    return max(least, device_memory // LOGITS_SHARE) if device == "cuda" else least


def even_rows(n_rows: int, most: int) -> int:
    """Rows of equal chunks, instead of a small one at the end; a multiple of 128, which tiles of products divide.

    Args:
        n_rows: In all.
        most: In one chunk.
    """
    rows = -(-n_rows // -(-n_rows // most))
    return min(most, -(-rows // 128) * 128)


def training_memory(
    config: TransformerConfig,
    how: Arithmetic,
    *,
    micro_batch_size: int,
    recompute: bool = False,
    accumulates: bool = True,
    optim: OptimConfig | None = None,
    lora_rank: int = 0,
) -> Memory:
    """Peak memory of a training step.

    Args:
        config: The model's shape.
        how: It is computed.
        micro_batch_size: Sequences per forward pass (B).
        recompute: Of each block only the input is kept, and the block is computed again when it is needed.
        accumulates: On a CPU: gradients of earlier micro-steps, or of other ranks, are there from the beginning.
        optim: How it learns; None is AdamW without an average of the weights.
        lora_rank: Gradients are those of a change of this rank alone; 0 is without. `under_lora` tells the rest.
    """
    half, cpu, bf16 = how.half, how.cpu, how.bf16
    kernels = cpu and how.kernels
    one_step = kernels and not lora_rank and suits_one_step(config)
    one_call = one_step and suits_one_call(config, half=half, bf16=bf16)
    n, tokens = count_parameters(config), micro_batch_size * config.block_size
    learned = 4 * (lora_parameters(config, lora_rank) or n)
    block, ends = _kept(config, tokens, half=half, cpu=cpu, kernels=kernels, one_step=one_step, one_call=one_call)
    inputs = config.n_layer * (4 * tokens * config.n_embd if recompute else block)
    kept = inputs + ends + (2 * (config.vocab_size * config.n_embd if one_call else n) if half else 0)
    again = block if recompute else 0
    fixed = partial(Memory, weights=4 * n, optimizer=_optimizer(config, optim), holes=cpu * LIBRARIES * (1 + half))
    if not cpu:
        chunk = logits_bytes("cuda", how.device_memory)
        logits = _logits(config, tokens, half=half, compiled=how.compiled, chunk=chunk)
        return fixed(gradients=learned, activations=kept + again, logits=max(0, logits - again))  # these go first
    head = _head(config, tokens, half=half, kernels=kernels, bf16=bf16)
    passing = _passing(config, tokens, half=half, kernels=kernels, one_call=one_call)
    table, before = 0 if lora_rank else 4 * config.vocab_size * config.n_embd, learned if accumulates else 0
    if one_call and suits_a_whole_step(config, tokens) and not recompute:
        return fixed(gradients=before + learned, activations=kept, logits=0, backward=passing)
    waiting = table if accumulates and ModernConfig.of(config).tied_head else 0
    moments = (
        fixed(gradients=before, activations=kept, logits=head),
        fixed(gradients=before + table, activations=kept, logits=0, backward=again + passing),
        fixed(gradients=learned + waiting, activations=kept - inputs, logits=0, backward=block + passing),
        fixed(gradients=learned + waiting, activations=kept - inputs - ends, logits=0, backward=table),
    )
    peak = max(moments, key=lambda moment: moment.total)
    if recompute:  # its blocks are mapped alone, and leave no holes
        return peak
    return replace(peak, holes=_holes(config, peak, tokens, more_sizes=half and not one_call))


def suits_one_step(config: TransformerConfig) -> bool:
    """Whether the kernels of a CPU compute a block of this shape as one step: it is GPT-2's, rotated or not."""
    c = ModernConfig.of(config)
    differs = c.norm != "layer" or c.activation != "gelu_tanh" or c.qk_norm or c.value_residual or c.stream_scales
    as_wide = c.kv_heads == c.n_head and c.mlp_width == 4 * c.n_embd and c.head_dim % KERNEL_LANES == 0
    return as_wide and not differs


def suits_one_call(config: TransformerConfig, *, half: bool, bf16: bool = False) -> bool:
    """Whether the kernels of a CPU may compute such blocks in one call each way, without a library's products.

    Args:
        config: The model's shape.
        half: In 16 bits; in 32, of a narrow model alone.
        bf16: The kernels multiply in bfloat16, which blocks in 16 bits need.
    """
    return suits_one_step(config) and (bf16 if half else config.n_embd <= WIDEST_IN_ONE_CALL)


def suits_a_whole_step(config: TransformerConfig, tokens: int) -> bool:
    """Whether kernels that compute blocks in one call may compute the loss of so many tokens in that step, too.

    It has what all parameters get in its hands from the beginning, and asks for little else, so it leaves no holes.
    """
    small = config.vocab_size <= LARGEST_IN_ONE_STEP and _chunk_rows(config, tokens) == tokens
    return small and isinstance(config, GPTConfig)


def _holes(config: TransformerConfig, peak: Memory, tokens: int, *, more_sizes: bool) -> int:
    """Bytes between the blocks of a CPU's heap: twice as many where blocks come in more sizes.

    Those are steps in 16 bits that libraries multiply, whose residual stream stays in 32, and normalized queries and
    keys. Logits in chunks leave one more: in some runs a chunk does not find the place of an earlier one.
    """
    times = 2 if more_sizes or ModernConfig.of(config).qk_norm else 1
    rows = _chunk_rows(config, tokens) if peak.logits else tokens
    chunk = 4 * rows * config.vocab_size if rows < tokens else 0
    return times * min(HOLES, peak.of_step // 4) + chunk


def _chunk_rows(config: TransformerConfig, tokens: int) -> int:
    """Tokens whose logits a CPU has at once; all of them where that is allowed."""
    most = max(1, logits_bytes("cpu") // (4 * config.vocab_size))
    return tokens if tokens <= most else even_rows(tokens, most)


def _logits(config: TransformerConfig, tokens: int, *, half: bool, compiled: bool, chunk: int) -> int:
    """Bytes of a GPU's logits and their gradient, whole or in chunks."""
    # Under autocast the float32 copy that cross-entropy works on comes besides, unless compiled.
    each = 2 * 2 if half and compiled else 2 * 4 + (2 if half else 0)
    ids = tokens * config.vocab_size
    if 4 * ids <= chunk:
        return ids * each
    # What is left of all chunks: the gradients of both sides of the head.
    return chunk * each // 4 + 4 * config.n_embd * (tokens + config.vocab_size)


def _head(config: TransformerConfig, tokens: int, *, half: bool, kernels: bool, bf16: bool) -> int:
    """Most bytes that the head and the loss work on at once on a CPU, see `model/loss.py`.

    Whole, that is on the way back: ln p and the gradients of it and of the logits. In chunks: logits and ln p in place
    of which their gradient comes, in 16 bits with a copy, beside the head's gradient so far; then the gradient alone,
    and the head's so far beside that of this chunk. Kernels have the gradient in place of the logits, and where
    they multiply in 16 bits they add to the head's where it lies. The gradient of what the head reads is there in both.
    """
    rows = _chunk_rows(config, tokens)
    if rows == tokens:
        return (3 * 4 + (2 if half else 0)) * tokens * config.vocab_size
    width, table = (2 if half else 4), config.vocab_size * config.n_embd
    chunk, in_place = rows * config.vocab_size, kernels and not ModernConfig.of(config).logit_softcap
    visit = (width if in_place else 2 * 4) * chunk + 4 * table
    product = width * chunk + (4 if kernels and bf16 and half else 4 + width) * table
    return 4 * tokens * config.n_embd + max(visit, product)


def memory_of_run(
    config: TrainConfig, shape: TransformerConfig, how: Arithmetic, *, recompute: bool | None = None
) -> Callable[[int], Memory]:
    """What a step of a run needs, by its micro batch.

    Args:
        config: The run's.
        shape: Its model's, with its vocabulary.
        how: It is computed.
        recompute: See `training_memory`; None is as the run has it.
    """

    def need(size: int) -> Memory:
        step = training_memory(
            shape,
            how,
            micro_batch_size=size,
            recompute=config.runtime.recompute if recompute is None else recompute,
            accumulates=size * shape.block_size < config.tokens_per_step,
            optim=config.optim,
            lora_rank=config.lora.rank,
        )
        return under_lora(step, config, shape)

    return need


def largest_micro_batch(need: Callable[[int], Memory], samples: int, memory: int, *, shares: int = 1) -> int:
    """The largest divisor of `samples` whose step fits into a device's memory; 0 where not even one sequence does.

    Args:
        need: Of a step, by its micro batch.
        samples: Sequences per step of each device.
        memory: Bytes that each device has free.
        shares: Devices that share weights, gradients and optimizer (FSDP).
    """
    return next((n for n in range(samples, 0, -1) if samples % n == 0 and shared(need(n), shares).total <= memory), 0)


def shared(step: Memory, shares: int) -> Memory:
    """What a step needs of each device where so many share weights, gradients and optimizer (FSDP)."""
    return replace(
        step,
        weights=step.weights // shares,
        gradients=step.gradients // shares,
        optimizer=step.optimizer // shares,
    )


def under_lora(step: Memory, config: TrainConfig, shape: TransformerConfig) -> Memory:
    """What a step needs where, by the config, a change of low rank learns alone; it is one of matrices in blocks."""
    change = 4 * lora_parameters(shape, config.lora.rank)
    averages = 1 if config.optim.name == "muon" else 2
    if not change:
        return step
    return replace(step, weights=step.weights + change, optimizer=averages * change)


def _optimizer(config: TransformerConfig, optim: OptimConfig | None) -> int:
    """Bytes: AdamW's two averages, of which Muon and tables of n-grams keep one; the average of the weights."""
    n = count_parameters(config)
    muon = matrix_parameters(config) if optim is not None and optim.name == "muon" else 0
    tables = parameter_table(config)["n-gram embedding"]
    average = n if optim is not None and optim.average else 0
    return 4 * (2 * n - muon - tables + average)


def _kept(
    config: TransformerConfig, tokens: int, *, half: bool, cpu: bool, kernels: bool, one_step: bool, one_call: bool
) -> tuple[int, int]:
    """Bytes that the backward pass needs of each block, and of what stands before and after all blocks.

    In one call it computes what norms and the activation gave again, from what they were given.
    """
    width = 2 if half else 4
    stream = tokens * config.n_embd
    modern = ModernConfig.of(config)
    keys = tokens * config.kv_heads * config.head_dim  # or values
    hidden = tokens * config.mlp_width
    ends = stream * (4 + width)  # the last norm's input and output
    if modern.smear:
        ends += 4 * stream
    output_alone = modern.activation == "relu" or (modern.activation == "relu2" and kernels)
    narrow = 2 * (stream + keys) + (1 if output_alone or one_call else 2) * hidden
    if not one_call:
        narrow += NORM_OUTPUTS * stream
    by_kernel = kernels and config.head_dim % KERNEL_LANES == 0
    whole_scores = cpu and config.dropout > 0 and not by_kernel
    if modern.qk_norm or (modern.position == "rope" and not (whole_scores or one_step)):
        narrow += stream + keys
    if modern.value_residual:
        narrow += 2 * keys * (config.n_layer - 1) // config.n_layer
    block = 4 * RESIDUAL_TENSORS * stream + width * narrow
    if modern.stream_scales:
        block += 4 * stream
    # PyTorch has no fused RMSNorm for CPUs, and none there that stays in 16 bits.
    if cpu and modern.norm == "rms":
        block, ends = block + 2 * 4 * stream, ends + 4 * stream
    if cpu and modern.qk_norm and (not kernels or modern.position != "rope"):  # else a kernel, as it rotates
        block += (5 if half else 2) * (stream + keys) - width * stream
    if cpu and not half and not kernels and modern.activation == "gelu_tanh":
        block += 4 * hidden
    if config.dropout:
        mask, first = (0, 0) if kernels else (width, 4) if cpu else (1, 1)
        block += 2 * mask * stream
        ends += first * stream
        if whole_scores:  # scores, weights and masks, and copies of q, k and v
            block += 4 * (3 * tokens * config.n_head * config.block_size + 3 * stream) - 3 * width * stream
    return block, ends


def _passing(config: TransformerConfig, tokens: int, *, half: bool, kernels: bool, one_call: bool) -> int:
    """Bytes that the way back through a block has in its hands beside what was kept.

    In one call that is a gradient of all that products read or give, what norms and the activation give, and two of
    the stream; where tokens are many beside channels, also what matrices get from half of them, added up apart. Else it
    is most in the MLP: first a gradient and the copy that oneDNN makes of what the product's other side read, then the
    gradients of both sides of the activation, and their factor for a squared ReLU without kernels.
    """
    width = 2 if half else 4
    if one_call:
        apart = 12 * 4 * config.n_embd**2 if tokens > 3 * config.n_embd else 0  # `Gradients` in kernels/gradients.cpp
        return (16 * width + 2 * 4) * tokens * config.n_embd + apart
    tensors = 3 if ModernConfig.of(config).activation == "relu2" and not kernels else 2
    return tensors * width * tokens * config.mlp_width


def kv_cache_bytes(config: TransformerConfig, *, batch_size: int, tokens: int, width: int = 4) -> int:
    """Keys and values of every layer for `tokens` positions."""
    return 2 * config.n_layer * batch_size * tokens * config.kv_heads * config.head_dim * width
