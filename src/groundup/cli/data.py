"""groundup data info|verify|sample DIR: look at a prepared dataset."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from groundup.config.data import ReadConfig
from groundup.config.errors import UsageError
from groundup.files.layout import INDEX
from groundup.terminal.actions import pick_action
from groundup.terminal.parse import parse
from groundup.terminal.say import say, warn, write

ACTIONS = {
    "info": "counts, bytes per token, settings and fingerprint",
    "verify": "read every shard, and name each damaged file",
    "sample": "show random documents, prepared ones or those of text: sample DIR|TEXT",
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Look at a prepared dataset."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """What `groundup prepare` made."""


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """Show random documents, each as likely as any other: prepared ones, or those that the reader finds in text."""

    folder: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DIR|TEXT")]
    """What `groundup prepare` made, or what it takes: a corpus, a file, a folder or a quoted glob."""
    reading: Annotated[ReadConfig, tyro.conf.arg(name="")] = field(default_factory=ReadConfig)
    num: int = 3
    """How many."""
    split: Literal["train", "val"] = "train"
    """Out of which split of a prepared folder."""
    max_tokens: int = 200
    """How much of each; of text, four characters for a token."""
    seed: int = 1337
    """The same seed shows the same documents."""

    def __post_init__(self) -> None:
        """Check ranges."""
        for flag, value in (("num", self.num), ("max-tokens", self.max_tokens)):
            if value < 1:
                raise UsageError(f"{flag} must be at least 1, got {value}")


def main(argv: Sequence[str]) -> int:
    """Run one of the actions."""
    action = pick_action(argv, command="data", actions=ACTIONS, rest="DIR [options]")
    if action is None:
        return 0
    prog = f"groundup data {action}"
    if action == "sample":
        return _sample(parse(SampleOptions, argv[1:], prog=prog))
    options = parse(Options, argv[1:], prog=prog)
    return _info(options.folder) if action == "info" else _verify(options.folder)


def _info(folder: Path) -> int:
    from groundup.data.dataset import TokenDataset
    from groundup.prepare.report import dataset_summary

    index = TokenDataset(folder).index
    say(dataset_summary(index, folder))
    print("  settings")
    for name, value in index.settings.items():
        say(f"    {name} = {value}")
    print(f"  fingerprint {index.fingerprint}")
    return 0


def _verify(folder: Path) -> int:
    from groundup.data.verify import verify

    sound = bad = 0
    for _, fault in verify(folder):
        if fault:
            bad += 1
            warn(str(fault))
        else:
            sound += 1
    advice = f"; remove {folder} and prepare it again" if bad else ""
    say(f"{folder}: {sound} of {sound + bad} files are sound{advice}")
    return 1 if bad else 0


def _sample(options: SampleOptions) -> int:
    if not (options.folder and (Path(options.folder) / INDEX).is_file()):
        return _sample_text(options)
    from groundup.data.dataset import TokenDataset
    from groundup.data.sample import sample_documents

    dataset = TokenDataset(Path(options.folder))
    passages = sample_documents(
        dataset, options.split, count=options.num, max_tokens=options.max_tokens, seed=options.seed
    )
    for passage in passages:
        more = " ..." if passage.n_tokens > options.max_tokens else ""
        say(f"--- {passage.file}, token {passage.start:,}: {passage.n_tokens:,} tokens")
        write(f"{passage.text}{more}\n")
    return 0


def _sample_text(options: SampleOptions) -> int:
    """Documents as the reader finds them, before anything is prepared."""
    from groundup.data.sample import sample_source
    from groundup.prepare.corpus import find_source
    from groundup.prepare.report import Spoken, reading

    spoken = Spoken(warn, options.folder)
    source = find_source(options.folder, cache_dir=Path("data"), config=options.reading, progress=spoken)
    skipped: dict[str, int] = {}
    drawn = sample_source(source, skipped, count=options.num, seed=options.seed, progress=reading(spoken))
    for number, document in drawn:
        text, shown = document.text, 4 * options.max_tokens
        more = " ..." if len(text) > shown or not document.ends else ""
        say(f"--- document {number:,}: {len(text):,} characters{'' if document.ends else ' and more'}")
        write(f"{text[:shown]}{more}\n")
    for reason, count in sorted(skipped.items())[:20]:
        warn(f"skipped {count:,}: {reason}")
    return 0
