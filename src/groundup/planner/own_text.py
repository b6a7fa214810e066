"""A run for a text of some size: model, steps and rates by arithmetic, without torch.

The rules are few. A model has at most about as many weights as the text has characters (Kaplan et al. 2020 found that
data has to grow with the model, if more slowly); a text is passed at most `MOST_PASSES` times, after which more passes
teach little (Muennighoff et al. 2023); and a CPU gets minutes, a GPU hours.
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from groundup.config.data import DataConfig
from groundup.config.model import GPTConfig, ModernConfig, TransformerConfig
from groundup.config.presets import GPT2, GPT2_VOCAB, MODELS
from groundup.config.train import CheckpointConfig, EvalConfig, LoRAConfig, OptimConfig, RuntimeConfig, TrainConfig
from groundup.planner.params import count_parameters

MOST_PASSES = 20
"""Times that a text is gone through at most."""
FINETUNE_PASSES = 3
"""The same for a model that has learned already, on a text of over `SHORT` tokens; a short one is passed more often."""
SHORT = 300_000
TRAINING_SHARE = 0.9
"""What is left of a text when a part is held out for validation."""
BYTES_PER_WORD_PIECE = 4.0
"""UTF-8 bytes that a token of GPT-2's vocabulary spells in English."""
CHARACTERS = 8192
"""Vocabularies up to this size are taken for characters, of about a byte each."""
EVAL_TOKENS = 1 << 18
LORA_SHARE = 20
"""Weights per token of text above which a low-rank change is learned, and not the weights themselves."""


@dataclass(frozen=True, slots=True)
class Text:
    """What a recipe depends on."""

    path: Path
    n_bytes: int
    gpu: bool
    """Whether the machine has one."""
    shards: bool = False
    """Whether the path is a folder that `groundup prepare` made; `n_bytes` is then of the tokens it holds."""
    n_tokens: int = 0
    """Of shards; 0 is unknown."""
    vocab_size: int = 0
    """Of shards; 0 is unknown."""


@dataclass(frozen=True, slots=True)
class _Rung:
    """A model, and how it learns, for texts up to some size."""

    up_to: float
    """Bytes."""
    model: GPTConfig | ModernConfig
    tokenizer: str
    samples: int
    """Sequences per step."""
    most_steps: int


_SMALL = ModernConfig(n_layer=2, n_head=2, n_embd=64, block_size=64, dropout=0.1)
_MIDDLE = ModernConfig(n_layer=8, n_head=8, n_embd=512, block_size=512, dropout=0.1)
_LARGE = replace(GPT2, vocab_size=0)

_CPU = (
    _Rung(100e3, _SMALL, "char", 16, 1000),
    _Rung(float("inf"), MODELS["nano"], "char", 16, 1400),
)
_GPU = (
    _Rung(100e3, _SMALL, "char", 16, 1000),
    _Rung(800e3, MODELS["nano"], "char", 32, 3000),
    _Rung(20e6, MODELS["nano-wide"], "char", 64, 5000),
    _Rung(500e6, _MIDDLE, "gpt2", 64, 10_000),
    _Rung(float("inf"), _LARGE, "gpt2", 512, 19_073),
)


def text_recipe(text: Text) -> TrainConfig:
    """A run that learns a text from random weights.

    Args:
        text: Its size, and the machine.
    """
    rung = next(rung for rung in (_GPU if text.gpu else _CPU) if text.n_bytes <= rung.up_to)
    vocab_size = text.vocab_size or (GPT2_VOCAB if rung.tokenizer == "gpt2" else 0)
    n_tokens = text.n_tokens or _tokens(text.n_bytes, vocab_size)
    tokens_per_step = rung.samples * rung.model.block_size
    steps = _steps(n_tokens, tokens_per_step, passes=MOST_PASSES, most=rung.most_steps)
    # The demo's rates for narrow models; GPT-3's of this size (Brown et al. 2020, table 2.1) for wide ones.
    narrow = rung.model.n_embd <= 384
    rates = OptimConfig(name="muon", lr=3e-3 if narrow else 1e-3) if rung.model.n_embd < GPT2.n_embd else OptimConfig()
    config = TrainConfig(
        name=name_of(text.path),
        model=rung.model,
        data=_data(text, rung.tokenizer),
        max_steps=steps,
        tokens_per_step=tokens_per_step,
        optim=replace(rates, warmup_steps=max(10, steps // 28)),
        runtime=_runtime(text, rung.samples),
    )
    return _with_rhythm(config)


def finetune_recipe(
    text: Text, model: TransformerConfig, *, init_from: Path, tokenizer: str, vocab: int
) -> TrainConfig:
    """A run that goes on from a model's weights.

    Args:
        text: Its size, and the machine.
        model: The model's shape.
        init_from: Where its weights are.
        tokenizer: Its tokenizer, as `data.tokenizer` names it.
        vocab: Ids of that.
    """
    assert isinstance(model, GPTConfig | ModernConfig)
    n_tokens = text.n_tokens or _tokens(text.n_bytes, vocab)
    weights = count_parameters(replace(model, vocab_size=vocab))
    block_size = model.block_size
    while block_size > 32 and 4 * block_size > n_tokens:  # the first positions can be learned without the rest
        block_size //= 2
    samples = 16 if text.gpu else 4
    while samples > 1 and 20 * samples * block_size > n_tokens:
        samples //= 2
    passes = FINETUNE_PASSES if n_tokens > SHORT else 3 * FINETUNE_PASSES
    steps = _steps(n_tokens, samples * block_size, passes=passes, most=5000 if text.gpu else 500)
    low_rank = weights > LORA_SHARE * n_tokens
    # GPT-2 is fine-tuned with 1e-4; narrower models bear more, and so does a low-rank change.
    rate = min(1e-3, 1e-4 * (GPT2.n_embd / model.n_embd)) * (5 if low_rank else 1)
    config = TrainConfig(
        name=f"{name_of(init_from)}-{name_of(text.path)}",
        init_from=init_from,
        model=replace(model, block_size=block_size),
        data=_data(text, tokenizer),
        max_steps=steps,
        tokens_per_step=samples * block_size,
        optim=OptimConfig(lr=float(f"{rate:.1g}"), warmup_steps=max(1, min(100, steps // 10))),
        lora=LoRAConfig(rank=min(model.n_embd, 4 if n_tokens < SHORT / 3 else 8)) if low_rank else LoRAConfig(),
        runtime=_runtime(text, samples),
    )
    return _with_rhythm(config)


def steps_of_a_pass(text: Text, config: TrainConfig) -> int:
    """About how many steps go once through a text.

    Args:
        text: The text.
        config: A recipe for it.
    """
    characters = config.data.tokenizer == "char" and not text.shards
    n_tokens = text.n_tokens or _tokens(text.n_bytes, 0 if characters else CHARACTERS + 1)
    return max(1, round(TRAINING_SHARE * n_tokens / config.tokens_per_step))


def name_of(path: Path) -> str:
    """What a run of a text, or of a model, is called: the file's or folder's name, of a glob the last plain part.

    What no name of a run can hold (new lines, backslashes, bytes that are no text) becomes "_".
    """
    is_there = os.path.exists(path)  # noqa: PTH110  # and so no glob; of a name that is too long pathlib raises
    plain = [part for part in path.parts if is_there or not set("*?[") & set(part)]
    last = Path(plain[-1]) if plain else Path()
    name = last.stem if last.suffix and len(plain) == len(path.parts) else last.name
    name = name.lstrip(".") or Path.cwd().name or "text"
    return "".join(letter if letter.isprintable() and letter != "\\" else "_" for letter in name)


def _tokens(n_bytes: int, vocab_size: int) -> int:
    return round(n_bytes / (1.0 if vocab_size <= CHARACTERS else BYTES_PER_WORD_PIECE))


def _steps(n_tokens: int, tokens_per_step: int, *, passes: int, most: int) -> int:
    """So many that the training part is passed `passes` times, in round numbers."""
    steps = int(TRAINING_SHARE * n_tokens * passes / tokens_per_step)
    unit = 10 ** max(0, len(str(steps)) - 2)
    return max(20, min(most, steps // unit * unit))


def _data(text: Text, tokenizer: str) -> DataConfig:
    return DataConfig(source="shards" if text.shards else "text", path=text.path, tokenizer=tokenizer)


def _runtime(text: Text, samples: int) -> RuntimeConfig:
    """On a CPU the first line comes at once: runs of minutes do not earn back what compiling costs."""
    if text.gpu:
        return RuntimeConfig(micro_batch_size="auto")
    return RuntimeConfig(micro_batch_size=samples, compile="off")


def _with_rhythm(config: TrainConfig) -> TrainConfig:
    """Four evaluations with a checkpoint each, and seven samples."""
    quarter, seventh = max(1, config.max_steps // 4), max(1, config.max_steps // 7)
    looks = EvalConfig(every=quarter, max_tokens=EVAL_TOKENS, sample_every=seventh)
    return replace(config, eval=looks, checkpoint=CheckpointConfig(every=quarter))
