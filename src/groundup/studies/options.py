"""What each study can be told, and what is refused before PyTorch is loaded."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from groundup.config.errors import UsageError
from groundup.config.model import GPTConfig
from groundup.config.presets import GPT2, RECIPES
from groundup.config.train import DeviceChoice, PrecisionChoice
from groundup.studies.variants import SETS

LEAST_SIZES = 3
"""A line through two points fits them whatever they are."""
HEAD_DIM = 32
"""Width of a head in models of another size than their preset's."""


def shape_of(size: str) -> tuple[int, int]:
    """Layers and width of a size such as 4x128.

    Raises:
        UsageError: It says no size.
    """
    try:
        n_layer, n_embd = map(int, size.split("x"))
    except ValueError:
        raise UsageError(f"sizes must be layers x width, such as 4x128, got {size!r}") from None
    if n_layer < 1 or n_embd < HEAD_DIM or n_embd % HEAD_DIM:
        raise UsageError(f"sizes must be layers x width, a multiple of {HEAD_DIM}, got {size!r}")
    return n_layer, n_embd


def _known_preset(name: str) -> None:
    if name not in RECIPES:
        raise UsageError(f"preset must be one of {', '.join(RECIPES)}, got {name!r}")


@dataclass(frozen=True, kw_only=True)
class AblationOptions:
    """Train variants of a preset and compare their validation losses."""

    set: Literal["parts", "char-10m", "cpu-minutes"] = "parts"
    """parts: each part of the modern page alone; char-10m: 10.7 million parameters on a small text; cpu-minutes."""
    only: str = ""
    """Names of variants, separated by semicolons; empty is all."""
    seeds: int = 2
    """Runs of each variant, with seeds 1, 2, ..."""
    device: DeviceChoice = "auto"
    """Where to compute; auto takes a GPU where there is one."""
    precision: PrecisionChoice = "auto"
    """Of products."""
    at_once: int = 1
    """Runs that share the machine; their losses are the same, their seconds are not."""
    steps: int = 0
    """Steps of every run; 0 is as the preset has it."""
    size: str = ""
    """Layers x width of the models, such as 2x64; empty is as the preset has it."""
    evaluations: int = 10
    """Points of each curve."""
    seconds: float = 0.0
    """Stop everything after so long; 0 is no limit. What was not trained to its end is left out."""
    eval_tokens: int = 0
    """Validation tokens of each evaluation; 0 is the whole split."""
    tiny_shakespeare: Path | None = None
    """The text, where it is on this machine already."""
    out: Path | None = None
    """Folder of the runs and of ablation.json; none keeps only what is printed."""

    def __post_init__(self) -> None:
        """Refuse what has no meaning before anything is trained."""
        known = SETS[self.set][1]
        if unknown := [name for name in self.names if name not in known]:
            raise UsageError(f"{self.set} has no variant {unknown[0]!r}; it has {'; '.join(known)}")
        if self.size:
            shape_of(self.size)

    @property
    def names(self) -> list[str]:
        """The variants to train."""
        return [name.strip() for name in self.only.split(";")] if self.only else list(SETS[self.set][1])


@dataclass(frozen=True, kw_only=True)
class ContextsOptions:
    """Read a short and a long prompt, and decode behind both. The default is GPT-2 124M, random weights, CPU."""

    model: GPTConfig = GPT2
    short: int = 50
    """Tokens of the short prompt."""
    long: int = 1000
    """Tokens of the long one."""
    new_tokens: int = 24
    """Tokens drawn behind each."""
    rounds: int = 3
    """Turns of each; medians are taken over them."""

    def __post_init__(self) -> None:
        """Check ranges."""
        room = self.model.block_size - self.new_tokens
        if not self.short < self.long <= room or self.new_tokens < 2:
            raise UsageError(
                f"short must be below long, long at most {room} (the context without the new tokens), new-tokens at"
                f" least 2, got {self.short}, {self.long} and {self.new_tokens}"
            )


@dataclass(frozen=True, kw_only=True)
class LossOptions:
    """Train nanoGPT's CPU setting, then a preset in the same seconds, and compare their validation losses."""

    nanogpt: Path
    """A checkout of nanoGPT. Its train.py is run: only name a folder you trust."""
    tiny_shakespeare: Path
    """The text that both learn from."""
    preset: str = "shakespeare-modern"
    """Ours."""
    seed: int = 1
    """Of our run."""
    budget: float = 0.0
    """Seconds to take for nanoGPT's, in place of running it."""
    nanogpt_steps: int = 2000
    """Steps of nanoGPT; other numbers are for trying this command."""
    out: Path | None = None
    """Folder for loss.json and our run; none keeps only what is printed."""

    def __post_init__(self) -> None:
        """Refuse what has no meaning before nanoGPT is run."""
        _known_preset(self.preset)


@dataclass(frozen=True, kw_only=True)
class WeightsOptions:
    """Compare fp32, fp16, bf16 and int8 of one trained model, on a CPU."""

    model: Path
    """A run, a checkpoint or a model folder, with weights of 32 bits."""
    text: Path
    """What to measure the loss on: text that the model has not learned."""
    new_tokens: int = 64
    """Tokens drawn in a turn, after an empty prompt."""
    rounds: int = 5
    """Turns of each."""


@dataclass(frozen=True, kw_only=True)
class ScalingLawOptions:
    """Train one recipe at several sizes and fit the loss against the parameters."""

    preset: str = "shakespeare"
    """The recipe; only the sizes of its model change."""
    sizes: str = "2x64,3x96,4x128,5x192,6x256"
    """Layers x width of each model; widths are multiples of 32."""
    steps: int = 0
    """Steps of every run; 0 is as the preset has it."""
    device: DeviceChoice = "auto"
    """Where to compute; auto takes a GPU where there is one."""
    at_once: int = 1
    """Runs that share the machine."""
    seconds: float = 0.0
    """Stop everything after so long; 0 is no limit. What was not trained to its end is left out."""
    eval_tokens: int = 0
    """Validation tokens of each evaluation; 0 is the whole split."""
    text: Path | None = None
    """A file, folder or glob of text, or a folder of shards, in place of the preset's text."""
    out: Path = Path("runs/scaling")
    """Folder of the runs, of scaling-law.json and of scaling-law.png."""

    def __post_init__(self) -> None:
        """Refuse what has no meaning before anything is trained."""
        _known_preset(self.preset)
        for size in self.sizes.split(","):
            shape_of(size)
        if len(set(self.sizes.split(","))) < LEAST_SIZES:
            raise UsageError(f"sizes must be {LEAST_SIZES} different ones at least, for a line; got {self.sizes!r}")
        least = {"steps": 0, "at_once": 1, "seconds": 0, "eval_tokens": 0}
        for flag, lowest in least.items():
            if not getattr(self, flag) >= lowest:
                raise UsageError(f"{flag.replace('_', '-')} must be {lowest} or more, got {getattr(self, flag)}")
