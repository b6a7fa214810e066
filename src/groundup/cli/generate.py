"""groundup generate DIR: let a trained model speak."""

import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from groundup.config.errors import UsageError
from groundup.config.generate import SamplingConfig
from groundup.config.train import DeviceChoice
from groundup.files.layout import WEIGHTS
from groundup.files.manifest import sha256_file
from groundup.generation.converse import Session, Settings, converse
from groundup.records.models_here import check_model, missing_model
from groundup.terminal.escapes import unescape
from groundup.terminal.parse import parse
from groundup.terminal.say import warn, write
from groundup.terminal.waiting import before_torch

if TYPE_CHECKING:
    from groundup.generation.text import TextDelta, TextGenerator, TextRequest
    from groundup.tokenizer.base import Tokenizer

SEPARATOR = "\n---------------\n"


@dataclass(frozen=True, kw_only=True)
class Options:
    r"""Draw text from a trained model.

    In prompts and stop strings, \n stands for a new line, \t for a tab and \\ for one backslash.
    """

    path: Annotated[Path, tyro.conf.Positional]
    """A run, checkpoint or model folder."""
    prompt: str = ""
    """What to continue: the end of it, where it is longer than the context. Empty starts a document, or a line."""
    max_new_tokens: int = 500
    """The most tokens to draw for a sample; it also ends where the model ends a document."""
    num_samples: int = 1
    """How many continuations to draw, side by side."""
    seed: int = 1337
    """The same seed draws the same text. A sample depends on the seed and its place, not on num-samples."""
    stop: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """End a sample before this string; give the flag again for more strings."""
    stream: bool = False
    """Show the text while it is drawn."""
    interactive: bool = False
    """Ask for prompts, one per line, until Ctrl-D. Ctrl-C ends a text; /help lists commands."""
    explain: bool = False
    """Show each drawn token with its probability, the entropy, and the likeliest candidates."""
    prompts_file: Path | None = None
    """Continue all prompts of a file: a prompt a line, or objects with `prompt` in .jsonl. Needs --out."""
    out: Path | None = None
    """Where the texts of --prompts-file go, as JSON lines. The same command goes on after a kill."""
    device: DeviceChoice = "auto"
    """Where to compute; auto takes a GPU where there is one."""
    weights: Literal["saved", "fp32", "fp16", "bf16", "int8", "auto"] = "saved"
    """Bits per weight: fewer decode faster and round more; saved is as the model has them, auto the fastest here."""
    sampling: Annotated[SamplingConfig, tyro.conf.arg(name="")] = field(default_factory=SamplingConfig)

    def __post_init__(self) -> None:
        """Refuse what has no meaning before a model is loaded."""
        for flag, value in (("max-new-tokens", self.max_new_tokens), ("num-samples", self.num_samples)):
            if value < 1:
                raise UsageError(f"{flag} must be at least 1, got {value}")
        if self.num_samples > 100_000:
            raise UsageError(f"num-samples must be at most 100,000, got {self.num_samples:,}: take several seeds")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"seed must be in [0, 2^63), got {self.seed}")
        if "" in self.stop:
            raise UsageError("stop must have at least one character, got an empty string")
        shown = [name for name in ("stream", "interactive", "explain") if getattr(self, name)]
        if self.num_samples > 1 and shown:
            raise UsageError(f"--{shown[0]} shows one sample at a time, got num-samples {self.num_samples}")
        if len(shown) > 1:
            raise UsageError(f"choose one of --{' and --'.join(shown)}")
        if (self.prompts_file is None) != (self.out is None):
            raise UsageError("--prompts-file and --out go together: what to continue, and where the texts go")
        if self.prompts_file is not None and (shown or self.prompt):
            raise UsageError(f"--prompts-file goes without --{shown[0] if shown else 'prompt'}")


def main(argv: Sequence[str]) -> int:
    """Draw text from the model in a run, checkpoint or model folder."""
    try:
        options = parse(Options, argv, prog="groundup generate", missing={"PATH": lambda: missing_model("generate")})
    except UsageError as error:
        raise _with_prompt_flag(error, argv) from None
    check_model(options.path)
    prompt = unescape(options.prompt)

    from groundup.generation.prompts_file import complete_file, read_prompts
    from groundup.terminal.working import Working

    prompts = None if options.prompts_file is None else read_prompts(options.prompts_file)
    before_torch(options.device)
    with Working("loading PyTorch") as working:
        from groundup.checkpoint.model_folder import load_model
        from groundup.generation.text import MAX_SLOTS, TextGenerator
        from groundup.runtime.device import pick_device
        from groundup.runtime.threads import FollowCores

        working.doing(f"loading {options.path}")
        loaded = load_model(
            options.path,
            device=pick_device(options.device),
            rows=options.num_samples if prompts is None else min(len(prompts) * options.num_samples, MAX_SLOTS),
            weights=options.weights,
            say=warn,
        )
    generator = TextGenerator(loaded.model, loaded.tokenizer, before_ticks=FollowCores())
    request = _Requests(generator, options)
    if prompts is not None and options.out is not None:
        settings = repr((options.sampling, options.stop, options.seed, options.max_new_tokens, options.num_samples))
        complete_file(
            generator,
            prompts,
            options.out,
            request=request.of_place,
            settings=f"{settings} {options.weights} {sha256_file(loaded.path / WEIGHTS)}",
        )
        return 0
    if options.interactive:
        session = Session(
            lambda prompt, settings: (
                piece.text for piece in _timed(generator.run([request.with_settings(prompt, settings)]))
            ),
            Settings(options.sampling, options.max_new_tokens, options.seed),
        )
        return converse(session, first=[options.prompt] if prompt else [])
    _show(prompt, _timed(generator.run([request.of_place(0, prompt)])), options, loaded.tokenizer)
    return 0


def _with_prompt_flag(error: UsageError, words: Sequence[str]) -> UsageError:
    """An error of `generate`; a second word without a flag was meant as the prompt."""
    rest = str(error).removeprefix("unrecognized options: ").partition(" (see ")[0]
    if str(error).startswith("unrecognized options: ") and rest in words and not rest.startswith("-"):
        return UsageError(f"the text to continue has a flag: --prompt {shlex.quote(rest)}")
    return error


def _show(prompt: str, pieces: Iterator["TextDelta"], options: Options, tokenizer: "Tokenizer") -> None:
    """Print one prompt's texts in the form of the flags."""
    if options.explain:
        from rich.console import Console

        from groundup.generation.explain import explain

        for _ in explain(pieces, tokenizer, Console()):
            pass
    elif options.stream:
        write(prompt)
        for piece in pieces:
            write(piece.text)
        write("\n")
    else:
        texts = [prompt] * options.num_samples
        for piece in pieces:
            texts[piece.choice] += piece.text
        write(SEPARATOR.join(texts) + "\n")


class _Requests:
    """The settings of the generator."""

    def __init__(self, generator: "TextGenerator", options: Options) -> None:
        self._generator, self._options = generator, options
        self._stop = tuple(unescape(text) for text in options.stop)

    def of_place(self, place: int, prompt: str) -> "TextRequest":
        """Each place has a seed of its own, counted up from the given one."""
        options = self._options
        settings = Settings(options.sampling, options.max_new_tokens, (options.seed + place) % 2**63)
        return self.with_settings(prompt, settings)

    def with_settings(self, prompt: str, settings: Settings) -> "TextRequest":
        """As the flags say, except for what a session may change."""
        from groundup.generation.explain import N_TOP
        from groundup.generation.text import TextRequest, prompt_ids

        generator = self._generator
        return TextRequest(
            prompt=tuple(_fitted(prompt_ids(generator.tokenizer, prompt), generator.model.config.block_size)),
            max_new_tokens=settings.max_new_tokens,
            sampling=settings.sampling,
            n=self._options.num_samples,
            seed=settings.seed,
            stop=self._stop,
            n_top=N_TOP if self._options.explain else None,
        )


def _timed(pieces: Iterator["TextDelta"]) -> Iterator["TextDelta"]:
    """Pass pieces on, and print their speed at a terminal."""
    start = time.perf_counter()
    first, n_tokens = None, 0
    try:
        for piece in pieces:
            first = first or time.perf_counter()
            n_tokens += piece.event.token is not None
            yield piece
    finally:
        if first is not None and sys.stderr.isatty():
            rate = (n_tokens - 1) / max(time.perf_counter() - first, 1e-9)
            spent = f"{n_tokens} tokens, the first after {first - start:.2f} s"
            print(f"\n{spent}" + (f", then {rate:,.1f} tokens/s" if n_tokens > 1 else ""), file=sys.stderr, flush=True)


def _fitted(ids: list[int], context: int) -> list[int]:
    """A prompt; of one longer than the model's context its end, with a note."""
    if len(ids) > context > 1:  # a bigram reads one token of any prompt
        warn(f"the prompt has {len(ids):,} tokens, the model's context is {context:,}: its last {context:,} are read")
    return ids[-context:]
