"""groundup data info|verify|sample DIR: look at a prepared dataset."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from groundup.config.errors import UsageError
from groundup.terminal.actions import pick_action
from groundup.terminal.parse import parse
from groundup.terminal.say import say, warn

ACTIONS = {
    "info": "counts, bytes per token, settings and fingerprint",
    "verify": "read every shard, and name each damaged file",
    "sample": "show random documents",
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Look at a prepared dataset."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """What `groundup prepare` made."""


@dataclass(frozen=True, kw_only=True)
class SampleOptions(Options):
    """Show random documents, each as likely as any other."""

    num: int = 3
    """How many."""
    split: Literal["train", "val"] = "train"
    """Out of which split."""
    max_tokens: int = 200
    """How much of each."""
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
    from groundup.cli.prepare import summary
    from groundup.data.dataset import TokenDataset

    index = TokenDataset(folder).index
    say(summary(index, folder))
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
    from groundup.data.dataset import TokenDataset
    from groundup.data.sample import sample_documents

    dataset = TokenDataset(options.folder)
    passages = sample_documents(
        dataset, options.split, count=options.num, max_tokens=options.max_tokens, seed=options.seed
    )
    for passage in passages:
        more = " ..." if passage.n_tokens > options.max_tokens else ""
        say(f"--- {passage.file}, token {passage.start:,}: {passage.n_tokens:,} tokens")
        # A document may hold what a terminal takes for commands.
        print("".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in passage.text) + more)
    return 0
