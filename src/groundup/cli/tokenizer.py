"""groundup tokenizer train|encode|show: learn a tokenizer, use it, look at it."""

import contextlib
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from groundup.config.data import ReadConfig
from groundup.config.errors import UsageError, UserError
from groundup.config.printable import typed
from groundup.files.layout import TOKENIZER
from groundup.terminal.actions import pick_action
from groundup.terminal.parse import parse
from groundup.terminal.say import say, warn

ACTIONS = {
    "train": "learn a byte pair encoding from FILE...",
    "encode": "print the ids of TEXT, or of standard input",
    "show": "show the tokens of TEXT or of standard input; compare tokenizers",
}


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Learn a byte pair encoding from text files or from a corpus."""

    files: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FILE...")] = ()
    """Text: files, folders and quoted globs of .txt, .md, .jsonl, .json, .csv, .tsv and .parquet, also .gz and .zst."""
    reading: Annotated[ReadConfig, tyro.conf.arg(name="")] = field(default_factory=ReadConfig)
    source: Literal["shakespeare", "tiny-shakespeare"] | None = None
    """A corpus in place of files. Its validation part is left out."""
    vocab_size: int = 4096
    """Ids wanted: 256 bytes, the special tokens, and the rest merges."""
    out: Path = Path(TOKENIZER)
    """Where the tokenizer goes: a new file."""
    trainer: Literal["own", "library"] = "own"
    """own, or library for the package tokenizers; the result is the same."""
    special: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """A special token; give the flag again for more. Without it, <|endoftext|> is the only one."""
    pattern: str | None = None
    """Regular expression of a word, in the syntax of the package regex; GPT-2's unless given."""

    def __post_init__(self) -> None:
        """One of files and source."""
        if bool(self.files) == bool(self.source):
            raise UsageError("files must be named, or a --source, and not both")
        if self.pattern == "":
            raise UsageError("an empty --pattern finds no words; leave it out for GPT-2's")


@dataclass(frozen=True, kw_only=True)
class EncodeOptions:
    """Print the ids of a text."""

    text: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[TEXT]")] = None
    """What to encode; standard input unless given."""
    tokenizer: str = "gpt2"
    """gpt2, or the path of a tokenizer.json or of a folder with one, such as a model's."""


@dataclass(frozen=True, kw_only=True)
class ShowOptions:
    """Show where a text is cut into tokens; with several tokenizers, compare them."""

    text: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[TEXT]")] = None
    """What to show; standard input unless given."""
    tokenizer: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """gpt2, or the path of a tokenizer.json or of a folder with one; give the flag again to compare."""


def main(argv: Sequence[str]) -> int:
    """Run one of the actions."""
    action = pick_action(argv, command="tokenizer", actions=ACTIONS, rest="[flags]")
    return 0 if action is None else {"train": _train, "encode": _encode, "show": _show}[action](argv[1:])


def _train(argv: Sequence[str]) -> int:
    options = parse(TrainOptions, argv, prog="groundup tokenizer train")

    from groundup.files.atomic import write_file
    from groundup.files.new import refuse_existing, refuse_unwritable
    from groundup.tokenizer.base import END_OF_TEXT
    from groundup.tokenizer.bpe import GPT2_PATTERN, ByteBPE
    from groundup.tokenizer.bpe_train import doubts, train_bpe
    from groundup.tokenizer.io import tokenizer_json

    refuse_unwritable(options.out)
    refuse_existing(options.out)
    specials = tuple(map(typed, options.special)) or (END_OF_TEXT,)
    pattern = GPT2_PATTERN if options.pattern is None else typed(options.pattern)
    try:
        ByteBPE([], specials=specials, pattern=pattern)
    except UserError as error:  # typed, and not of a file
        raise UsageError(str(error)) from None
    began = time.perf_counter()
    tokenizer = train_bpe(
        _texts(options), options.vocab_size, specials=specials, pattern=pattern, trainer=options.trainer
    )
    write_file(options.out, tokenizer_json(tokenizer).encode())
    say(f"{options.out}: {tokenizer.vocab_size:,} ids, learned in {time.perf_counter() - began:.1f} s")
    for line in doubts(tokenizer):
        warn(line)
    if tokenizer.vocab_size < options.vocab_size:
        print(f"The text holds no more pairs to merge, so there are fewer than the {options.vocab_size:,} asked for.")
    return 0


def _texts(options: TrainOptions) -> Iterator[str]:
    """What to learn from; what is left out is printed at the end.

    Raises:
        UserError: A file cannot be read, is not UTF-8 or is empty.
    """
    from groundup.corpora.local_files import LocalFiles
    from groundup.corpora.source import Source, read_all
    from groundup.prepare.corpus import find_source
    from groundup.prepare.report import Spoken, listing, reading
    from groundup.prepare.surprises import spelled_as_text
    from groundup.tokenizer.base import END_OF_TEXT

    spoken = Spoken(warn, "text")
    sources: list[Source] = [LocalFiles(str(file), options.reading, listing(spoken)) for file in options.files]
    if options.source is not None:
        sources.append(find_source(options.source, cache_dir=Path("data")))
    skipped: dict[str, int] = {}
    ends = 0
    for source in sources:
        spoken.about = str(getattr(source, "pattern", source.name))
        for _, document in read_all(source, source.parts(), skipped, reading(spoken)):
            if document.split != "val":
                ends += document.text.count(END_OF_TEXT)
                yield document.text
    for line in spelled_as_text(ends):
        warn(line)
    for reason, count in sorted(skipped.items())[:20]:
        warn(f"skipped {count:,}: {reason}")


def _encode(argv: Sequence[str]) -> int:
    options = parse(EncodeOptions, argv, prog="groundup tokenizer encode")
    from groundup.tokenizer.io import resolve_tokenizer

    tokenizer = resolve_tokenizer(options.tokenizer)
    print(*tokenizer.encode(_given(options.text)))
    return 0


def _show(argv: Sequence[str]) -> int:
    options = parse(ShowOptions, argv, prog="groundup tokenizer show")
    from rich.console import Console

    from groundup.tokenizer.io import resolve_tokenizer
    from groundup.tokenizer.show import rendered

    tokenizers = {name: resolve_tokenizer(name) for name in options.tokenizer or ("gpt2",)}
    console = Console(highlight=False, markup=False, emoji=False)
    sys.stdout.write(rendered(_given(options.text), tokenizers, console))
    return 0


def _given(text: str | None) -> str:
    """The text of the command line, or of standard input.

    Raises:
        UserError: Standard input is not UTF-8.
    """
    if text is not None:
        with contextlib.suppress(OSError, ValueError):  # too long for a name, or no name at all
            if Path(text).is_file():
                warn(f"these are the tokens of the name; of what is in the file: < {shlex.quote(text)}")
        return typed(text)
    data = sys.stdin.buffer.read()
    if not data:
        warn("no text was given, and standard input is empty")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"standard input is not UTF-8: byte {error.start} is 0x{data[error.start]:02x}") from None
