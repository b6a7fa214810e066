"""groundup import SOURCE [OUT]: make a model folder of another program's model."""

import shlex
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from groundup.config.errors import UsageError
from groundup.files.hub_listing import HUB
from groundup.files.layout import resolved
from groundup.files.new import refuse_existing
from groundup.terminal.parse import EMPTY, parse
from groundup.terminal.say import say


@dataclass(frozen=True, kw_only=True)
class Options:
    """Turn a GPT-2 of another program into a model folder, which generate, train --init-from and export take."""

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """hf:gpt2[-medium|-large|-xl], hf:OWNER/NAME, a folder of transformers, a file of tensors, or llm.c's .bin."""
    out: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[OUT]")] = None
    """The folder to make; models/NAME if not given."""
    tokenizer: str | None = None
    """Where the model has none: gpt2, or a path of a tokenizer.json, transformers' folder or nanoGPT's meta.pkl."""
    n_head: int | None = None
    """Attention heads, where a file of tensors does not say."""


def main(argv: Sequence[str]) -> int:
    """Import, and say what came."""
    options = parse(Options, argv, prog="groundup import")
    if not options.source:
        raise UsageError(EMPTY)
    place = resolved(Path(options.source.removeprefix("hf:")))
    out = options.out or Path("models", place.stem if place.is_file() else place.name)

    from groundup.interop.source import check_source
    from groundup.planner.params import count_parameters, shape_in_words
    from groundup.terminal.working import Working

    if not options.source.startswith(HUB):
        check_source(Path(options.source))
    refuse_existing(out)
    with Working("loading PyTorch"):
        from groundup.interop.import_model import import_model
    # The hub's client draws bars of its own.
    with nullcontext() if options.source.startswith(HUB) else Working(f"reading {options.source}"):
        foreign = import_model(options.source, out, tokenizer=options.tokenizer, n_head=options.n_head)
    config = foreign.config
    say(f"{out}: {shape_in_words(config)}, {config.vocab_size} ids: {count_parameters(config):,} parameters")
    if foreign.note:
        say(foreign.note)
    say(f'try: groundup generate {shlex.quote(str(out))} --prompt "..."')
    return 0
