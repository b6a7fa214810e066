"""Bytes a training step needs, by formula.

For the backward pass PyTorch keeps, of each pre-norm block, in units of one (B, T, C) tensor: the inputs of the two
norms (2, always float32: they are the residual stream), the norms' outputs (2), q, k, v and the attention's output
(4), and the MLP's hidden layer before and after GELU (8). Fused attention keeps a number per head and token besides,
which is small. Rotary positions keep the rotated q and k beside the projection that v still needs (2), dropout the
masks of two places. Of a modern model's other parts, ReLU keeps its output alone, scales of the stream keep what they
scale (1), mixed values the difference and the sum (2), normalized queries and keys what rotary ones do. Our kernels for
CPUs keep no masks, and of the squared ReLU the output alone.

CPUs keep more: our GELU there keeps a sigmoid (4; not the compiled one, but a plan should hold for every machine), and
PyTorch has no fused attention with dropout for them, so the matrices of scores, weights and masks (B, H, T, T) stay
where our kernels do not compute it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from groundup.config.model import ModernConfig, TransformerConfig
from groundup.config.train import OptimConfig, TrainConfig
from groundup.planner.params import count_parameters, lora_parameters, matrix_parameters, parameter_table

LOGITS_BYTES = {"cpu": 1 << 27, "cuda": 1 << 29}
"""Logits in float32 that `model/loss.py` has in memory at once, by device."""
LOGITS_SHARE = 32
"""A large GPU gives them this part of its memory instead: every chunk costs a pass over the head's gradient."""
HOLES = 0.45
"""Of what is kept: glibc's heap holds so much more between blocks, where a CPU's step frees and asks (docs/log.md)."""
HOLES_OF_CHUNKS = 0.25
"""Of logits that come in chunks, in the same way. Fitted to one setting, whose peak differs by a fifth between runs."""
KERNEL_LANES = 16
"""Widths that are multiples of this suit the kernels of training: they fill the vectors of every machine."""
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
    holes: int = 0
    """Of the heap, on a CPU."""

    @property
    def total(self) -> int:
        """The peak of a step: all at once, at the start of the backward pass."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits + self.holes


def logits_bytes(device: str, device_memory: int = 0) -> int:
    """Bytes of logits, in float32, that are in memory at once; more tokens go through the head in chunks.

    Args:
        device: cpu, cuda or mps.
        device_memory: Bytes that the device has in all; 0 where that is unknown.
    """
    least = LOGITS_BYTES.get(device, LOGITS_BYTES["cpu"])
    return max(least, device_memory // LOGITS_SHARE) if device == "cuda" else least


def training_memory(
    config: TransformerConfig,
    *,
    micro_batch_size: int,
    half: bool = False,
    cpu: bool = False,
    recompute: bool = False,
    device_memory: int = 0,
    compiled: bool = False,
    optim: OptimConfig | None = None,
) -> Memory:
    """Peak memory of a training step.

    Args:
        config: The model's shape.
        micro_batch_size: Sequences per forward pass (B).
        half: Activations in 16 bits (bf16 or fp16 autocast); weights, gradients and optimizer stay float32, and the
            16-bit copies of the weights that autocast makes are counted with the activations.
        cpu: Computed on a CPU without torch.compile.
        recompute: Of each block only the input is kept, and the block is computed again when it is needed.
        device_memory: Bytes of the GPU; 0 takes a small one.
        compiled: On a GPU by torch.compile: logits and their gradient stay in 16 bits. On a CPU: attention, dropout
            and the squared ReLU by our kernels.
        optim: How it learns; None is AdamW without an average of the weights.
    """
    n = count_parameters(config)
    tokens = micro_batch_size * config.block_size
    stream = tokens * config.n_embd
    block, ends = _kept(config, tokens, half=half, cpu=cpu, kernels=cpu and compiled)
    blocks = config.n_layer * (4 * stream if recompute else block)
    if recompute:
        blocks += block
        if cpu:
            blocks += _passing(config, tokens, half=half, kernels=compiled)
    activations = blocks + ends + (2 * n if half else 0)
    # Logits and their gradient; under autocast the float32 copy that cross-entropy works on besides, unless compiled.
    each = 2 * 2 if half and compiled and not cpu else 2 * 4 + (2 if half else 0)
    ids = tokens * config.vocab_size
    logits = ids * each
    chunk = logits_bytes("cpu" if cpu else "cuda", device_memory)
    chunked = 4 * ids > chunk
    if chunked:  # what is left of all chunks: the gradients of both sides of the head
        logits = chunk * each // 4 + 4 * stream + 4 * config.vocab_size * config.n_embd
    if recompute:
        logits = max(0, logits - block)  # they are gone when the first block is computed again
    holes = 0
    if cpu and not recompute:
        holes = _holes(config, activations, logits if chunked else 0, tokens, half=half)
    return Memory(
        weights=4 * n,
        gradients=4 * n,
        optimizer=_optimizer(config, optim),
        activations=activations,
        logits=logits,
        holes=holes,
    )


def _holes(config: TransformerConfig, activations: int, chunks: int, tokens: int, *, half: bool) -> int:
    """Bytes between the blocks of a CPU's heap.

    GELU's sigmoid, which a compiled GELU does not keep, is counted in 32 bits and is as large as the holes; in 16 bits
    they are as large. Blocks that are computed again are mapped alone, and leave none.
    """
    gelu = ModernConfig.of(config).activation == "gelu_tanh"
    of_blocks = 2 * half * config.n_layer * tokens * config.mlp_width if gelu else HOLES * activations
    return round(of_blocks + HOLES_OF_CHUNKS * chunks)


def memory_of_run(
    config: TrainConfig, shape: TransformerConfig, *, half: bool, cpu: bool, compiled: bool = False
) -> Callable[[int], Memory]:
    """What a step of a run needs, by its micro batch.

    Args:
        config: The run's.
        shape: Its model's, with its vocabulary.
        half: See `training_memory`.
        cpu: See `training_memory`.
        compiled: See `training_memory`.
    """

    def need(size: int) -> Memory:
        step = training_memory(
            shape,
            micro_batch_size=size,
            half=half,
            cpu=cpu,
            recompute=config.runtime.recompute,
            compiled=compiled,
            optim=config.optim,
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

    def fits(size: int) -> bool:
        step = need(size)
        fixed = step.weights + step.gradients + step.optimizer
        return step.total - fixed + fixed // shares <= memory

    return next((n for n in range(samples, 0, -1) if samples % n == 0 and fits(n)), 0)


def under_lora(step: Memory, config: TrainConfig, shape: TransformerConfig) -> Memory:
    """What a step needs where, by the config, a change of low rank learns alone; it is one of matrices in blocks."""
    change = 4 * lora_parameters(shape, config.lora.rank)
    averages = 1 if config.optim.name == "muon" else 2
    if not change:
        return step
    return replace(step, weights=step.weights + change, gradients=change, optimizer=averages * change)


def _optimizer(config: TransformerConfig, optim: OptimConfig | None) -> int:
    """Bytes: AdamW's two averages, of which Muon and tables of n-grams keep one; the average of the weights."""
    n = count_parameters(config)
    muon = matrix_parameters(config) if optim is not None and optim.name == "muon" else 0
    tables = parameter_table(config)["n-gram embedding"]
    average = n if optim is not None and optim.average else 0
    return 4 * (2 * n - muon - tables + average)


def _kept(config: TransformerConfig, tokens: int, *, half: bool, cpu: bool, kernels: bool) -> tuple[int, int]:
    """Bytes that the backward pass needs of each block, and of what stands before and after all blocks."""
    width = 2 if half else 4
    stream = tokens * config.n_embd
    modern = ModernConfig.of(config)
    keys = tokens * config.kv_heads * config.head_dim  # or values
    hidden = tokens * config.mlp_width
    ends = stream * (4 + width)  # the last norm's input and output
    if modern.smear:
        ends += 4 * stream
    output_alone = modern.activation == "relu" or (modern.activation == "relu2" and kernels)
    narrow = NORM_OUTPUTS * stream + 2 * (stream + keys) + (1 if output_alone else 2) * hidden
    by_kernel = kernels and config.head_dim % KERNEL_LANES == 0
    whole_scores = cpu and config.dropout > 0 and not by_kernel
    if modern.qk_norm or (modern.position == "rope" and not whole_scores):
        narrow += stream + keys
    if modern.value_residual:
        narrow += 2 * keys * (config.n_layer - 1) // config.n_layer
    block = 4 * RESIDUAL_TENSORS * stream + width * narrow
    if modern.stream_scales:
        block += 4 * stream
    # PyTorch has no fused RMSNorm for CPUs, and none there that stays in 16 bits.
    if cpu and modern.norm == "rms":
        block, ends = block + 2 * 4 * stream, ends + 4 * stream
    if cpu and modern.qk_norm:
        block += (5 if half else 2) * (stream + keys) - width * stream
    if cpu and not half and modern.activation == "gelu_tanh":
        block += 4 * hidden
    if config.dropout:
        mask, first = (0, 0) if kernels else (width, 4) if cpu else (1, 1)
        block += 2 * mask * stream
        ends += first * stream
        if whole_scores:  # scores, weights and masks, and copies of q, k and v
            block += 4 * (3 * tokens * config.n_head * config.block_size + 3 * stream) - 3 * width * stream
    return block, ends


def _passing(config: TransformerConfig, tokens: int, *, half: bool, kernels: bool) -> int:
    """Bytes that the way back through an MLP has beside what was kept: gradients of its hidden layer, their factors.

    Of a block that is computed again they are a part of the peak; where all blocks are kept, that is before them.
    """
    activation = ModernConfig.of(config).activation
    tensors = {"gelu": 1, "gelu_tanh": 1, "relu": 2, "relu2": 2 if kernels else 3}[activation]
    if activation == "gelu_tanh" and kernels and not half:  # the sigmoid is counted and not kept
        tensors = 0
    return tensors * (2 if half else 4) * tokens * config.mlp_width


def kv_cache_bytes(config: TransformerConfig, *, batch_size: int, tokens: int, width: int = 4) -> int:
    """Keys and values of every layer for `tokens` positions."""
    return 2 * config.n_layer * batch_size * tokens * config.kv_heads * config.head_dim * width
