"""What `groundup bench gpu` measures."""

from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Literal

from groundup.config.errors import UsageError
from groundup.config.model import GPTConfig, ModernConfig
from groundup.config.presets import GPT2, GPT2_VOCAB, MODELS
from groundup.config.train import OptimConfig

TOKENS = 524_288
"""Per step, as GPT-2's runs have them."""
MODERN = ModernConfig(
    n_layer=12,
    n_head=6,
    n_embd=768,
    vocab_size=GPT2_VOCAB,
    bias=False,
    position="rope",
    rope_share=0.5,
    norm="rms",
    activation="relu2",
    qk_norm=True,
    tied_head=False,
    logit_softcap=15.0,
    proj_init="zero",
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One contestant of training."""

    name: str
    model: GPTConfig | ModernConfig = GPT2
    who: Literal["groundup", "nanoGPT", "transformers"] = "groundup"
    micro_batch_size: int = 64
    tokens_per_step: int = TOKENS
    compile: Literal["off", "whole", "parts"] = "whole"
    narrow_stream: bool = True
    attention: Literal["auto", "flash"] = "auto"
    optim: OptimConfig = field(default_factory=OptimConfig)
    runs: int = 2
    """Steps per turn."""
    seconds: int = 75
    """About how long it takes, with starting and compiling, and all that get ready with it."""

    @property
    def grad_accum_steps(self) -> int:
        """Forward passes per step."""
        return self.tokens_per_step // (self.micro_batch_size * self.model.block_size)


def chosen(only: str, device: str = "cuda", *, nanogpt: bool) -> list[Case]:
    """The cases to measure. No PyTorch is needed to choose them.

    Args:
        only: Texts, separated by semicolons: a case is chosen whose name holds one of them; empty is all.
        device: Where they run.
        nanogpt: Whether there is a checkout of nanoGPT.

    Raises:
        UsageError: A text chooses nothing.
    """
    there = {"groundup": True, "nanoGPT": nanogpt, "transformers": find_spec("transformers") is not None}
    listed = cases(device)
    wanted = [text.strip() for text in only.split(";") if text.strip()] or [""]
    for text in wanted:
        named = [case for case in listed if text in case.name]
        if not named:
            raise UsageError(f"no case has {text!r} in its name; there are {'; '.join(case.name for case in listed)}")
        if not any(there[case.who] for case in named):
            how = (
                "--nanogpt, a checkout of it"
                if named[0].who == "nanoGPT"
                else "transformers: pip install 'groundup[bench]'"
            )
            raise UsageError(f"{named[0].name} is a program that is not here; it needs {how}")
    return [case for case in listed if there[case.who] and any(text in case.name for text in wanted)]


def cases(device: str = "cuda") -> list[Case]:
    """All cases; neighbors fill 80 GB. Anywhere but on cuda the same in miniature, compiled by nobody."""
    muon = OptimConfig(name="muon")
    large = Case(name="", tokens_per_step=65_536)
    listed = [
        Case(name="124M"),
        Case(name="124M modern", model=MODERN, optim=muon),
        replace(large, name="350M", model=MODELS["gpt2-medium"], micro_batch_size=16),
        replace(large, name="774M", model=MODELS["gpt2-large"], micro_batch_size=16, seconds=90),
        replace(large, name="1.5B", model=MODELS["gpt2-xl"], micro_batch_size=8, seconds=130),
        # As its own script: a vocabulary of 50,304. The peers' whole logits leave room for half the micro-batch.
        Case(name="124M nanoGPT", who="nanoGPT", model=replace(GPT2, vocab_size=50_304), micro_batch_size=16),
        Case(name="124M transformers", who="transformers", micro_batch_size=16),
        Case(name="124M, flash attention", attention="flash", micro_batch_size=32),
        Case(name="124M, residual stream in float32", narrow_stream=False, micro_batch_size=32),
        Case(name="124M, compiled in parts", compile="parts", micro_batch_size=32),
    ]
    if device == "cuda":
        return listed
    return [_miniature(case) for case in listed]


def _miniature(case: Case) -> Case:
    model = replace(case.model, n_layer=2, n_head=2, n_embd=16, block_size=16, vocab_size=64)
    return replace(case, model=model, micro_batch_size=2, tokens_per_step=64, seconds=1)
