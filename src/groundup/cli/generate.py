"""groundup generate DIR: let a trained model speak."""

import contextlib
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from groundup.config.errors import UsageError, UserError
from groundup.config.generate import SamplingConfig
from groundup.records.models_here import check_model, missing_model
from groundup.terminal.parse import parse
from groundup.terminal.say import show, warn

if TYPE_CHECKING:
    from groundup.generation.text import TextGenerator

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
    """Ask for prompts, one a line, until Ctrl-D. Ctrl-C ends a text."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute; auto takes a GPU where there is one."""
    weights: Literal["saved", "fp32", "fp16", "bf16", "int8", "auto"] = "saved"
    """Bits per weight: fewer decode faster and round more; saved is as the model has them, auto the fastest here."""
    sampling: Annotated[SamplingConfig, tyro.conf.arg(name="")] = field(default_factory=SamplingConfig)

    def __post_init__(self) -> None:
        """Refuse what has no meaning before a model is loaded."""
        for flag, value in (("max-new-tokens", self.max_new_tokens), ("num-samples", self.num_samples)):
            if value < 1:
                raise UsageError(f"{flag} must be at least 1, got {value}")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"seed must be in [0, 2^63), got {self.seed}")
        if "" in self.stop:
            raise UsageError("stop must have at least one character, got an empty string")
        if self.num_samples > 1 and (self.stream or self.interactive):
            raise UsageError(
                f"--stream and --interactive show one sample at a time, got num-samples {self.num_samples}"
            )


def main(argv: Sequence[str]) -> int:
    """Draw text from the model in a run, checkpoint or model folder."""
    try:
        options = parse(Options, argv, prog="groundup generate")
    except UsageError as error:
        if str(error).startswith("missing PATH"):
            raise missing_model("generate") from None
        raise _with_prompt_flag(error, argv) from None
    check_model(options.path)
    prompt, stop = _unescape(options.prompt), [_unescape(text) for text in options.stop]

    from groundup.checkpoint.model_folder import load_model
    from groundup.generation.text import TextGenerator
    from groundup.runtime.device import pick_device

    loaded = load_model(
        options.path,
        device=pick_device(options.device),
        rows=options.num_samples,
        weights=options.weights,
        say=warn,
    )
    generator = TextGenerator(loaded.model, loaded.tokenizer)

    def stream(prompt: str, seed: int) -> Iterator[str]:
        return generator.stream(
            _fitted(generator, prompt),
            max_new_tokens=options.max_new_tokens,
            sampling=options.sampling,
            seed=seed,
            stop=stop,
        )

    if options.interactive:
        return _converse(stream, options.seed, first=[options.prompt] if prompt else [])
    if options.stream:
        pieces = stream(prompt, options.seed)
        show([prompt])
        show(pieces)
        show("\n")
        return 0
    texts = generator.generate(
        _fitted(generator, prompt),
        max_new_tokens=options.max_new_tokens,
        sampling=options.sampling,
        num_samples=options.num_samples,
        seed=options.seed,
        stop=stop,
    )
    show([SEPARATOR.join(prompt + text for text in texts), "\n"])
    return 0


def _with_prompt_flag(error: UsageError, words: Sequence[str]) -> UsageError:
    """An error of `generate`; a second word without a flag was meant as the prompt."""
    rest = str(error).removeprefix("unrecognized options: ").partition(" (see ")[0]
    if str(error).startswith("unrecognized options: ") and rest in words and not rest.startswith("-"):
        return UsageError(f"the text to continue has a flag: --prompt {shlex.quote(rest)}")
    return error


def _converse(stream: Callable[[str, int], Iterator[str]], seed: int, *, first: Iterable[str]) -> int:
    """Continue prompt after prompt; each has a seed of its own, counted up from the given one.

    Returns:
        1 if prompts came from a pipe and one of them could not be continued, else 0.
    """
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    failed = False
    for turn, prompt in enumerate(_prompts(first, terminal=terminal)):
        try:
            show(stream(_unescape(prompt), (seed + turn) % 2**63))
            show("\n")
        except UserError as error:
            warn(str(error))
            failed = True
        except KeyboardInterrupt:
            show("\n")
    return int(failed and not terminal)


def _prompts(first: Iterable[str], *, terminal: bool) -> Iterator[str]:
    """The prompts given already, then one a line until the end of input, as they were typed."""
    yield from first
    if terminal:
        with contextlib.suppress(ImportError):  # Windows has none
            import readline  # noqa: F401  # loaded, it gives input() a history and the arrow keys
        show("Type the beginning of a text; \\n stands for a new line. Ctrl-C ends a text, Ctrl-D the session.\n")
    while True:
        try:
            yield input("> " if terminal else "")
        except EOFError:
            if terminal:
                show("\n")
            return
        except KeyboardInterrupt:
            if not terminal:
                raise
            show("\n")


def _fitted(generator: "TextGenerator", prompt: str) -> list[int]:
    """The ids of a prompt; of one that is longer than the model's context its end, which is said."""
    ids, context = generator.prompt_ids(prompt), generator.model.config.block_size
    if len(ids) > context > 1:  # a bigram reads one token of any prompt
        warn(f"the prompt has {len(ids):,} tokens, the model's context is {context:,}: its last {context:,} are read")
    return ids[-context:]


def _unescape(text: str) -> str:
    r"""Turn \n, \t and \\ into what they stand for: a shell makes it hard to type a new line.

    Raises:
        UsageError: The text is not valid UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"the text must be valid UTF-8, got {text!r}") from None
    return "\\".join(part.replace("\\n", "\n").replace("\\t", "\t") for part in text.split("\\\\"))
