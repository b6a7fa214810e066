"""Which text is validation, where the source does not say.

Whole documents, chosen by the hash of their text: the same ones on every machine, in whatever order files are listed,
and equal documents on one side. Where few documents make that miss the share by far, the end of the largest one is held
out instead, cut where a paragraph or a line ends. What is left of it is written behind all other documents: where it
is cut no document ends, and no other one may go on from there.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from groundup.config.data import ShardConfig
from groundup.corpora.source import Source, read_all
from groundup.formats.document import Document, usable

MANY = 1_000
"""Documents from which a share of hashes is a share of the text, near enough; up to here, sizes are looked at."""
FEW = 8
"""Up to so many equal documents are cut alike. More are no copies, but short texts that are often there."""


@dataclass(frozen=True, slots=True)
class HoldOut:
    """Which documents, and pieces of them, are validation."""

    hash_fraction: float = 0.0
    """Share of hashes that are."""
    places: dict[tuple[int, int], int] = field(default_factory=dict)
    """(part, number of the document in it) to the first character that is."""
    last: frozenset[tuple[int, int]] = frozenset()
    """(part, number) of each piece of the document that is cut, where there are others: what of it is training comes
    last."""
    closed: frozenset[tuple[int, int]] = frozenset()
    """(part, number) of pieces behind whose training text a document begins that is cut as theirs was: an equal one."""

    def split(self, part: int, number: int, document: Document) -> Iterator[Document]:
        """A document with its split, in two where it is cut."""
        is_closed = (part, number) in self.closed
        if document.split is not None:
            yield document
        elif (at := self.places.get((part, number))) is not None:
            if at:
                yield Document(document.text[:at], "train", ends=is_closed)
            yield Document(document.text[at:], "val", ends=document.ends)
        else:
            held = self.hash_fraction and _hash(document) < self.hash_fraction
            yield replace(document, split="val" if held else "train", ends=document.ends or is_closed)


_Pieces = list[tuple[tuple[int, int], int]]
"""((part, number), characters) of each piece in which a document is read."""


@dataclass(slots=True)
class _Whole:
    """A document, or equal ones."""

    size: int = 0
    """Characters, of all together."""
    copies: list[_Pieces] = field(default_factory=list)
    is_open: bool = False
    """Whether the last copy goes on."""

    @property
    def places(self) -> list[tuple[int, int]]:
        """Those of all their pieces."""
        return [place for pieces in self.copies for place, _ in pieces]


def hold_out(
    source: Source, layout: ShardConfig, progress: Callable[[int, int], None] = lambda documents, characters: None
) -> HoldOut:
    """Choose.

    Args:
        source: Read until it has shown more than MANY documents, or to its end.
        layout: The rule and the share.
        progress: Called with how many documents were read, and the characters in them.

    Raises:
        UnreadableError: Some of it cannot be read.
    """
    if layout.val_rule != "documents":
        return HoldOut(layout.val_fraction if layout.val_rule == "hash" else 0.0)
    wholes: dict[float, _Whole] = {}
    seen: Counter[int] = Counter()
    for part, document in read_all(source, source.parts(), {}, progress):
        if document.split is not None:
            return HoldOut()
        whole = wholes.setdefault(_hash(document), _Whole())
        whole.size += len(document.text)
        if not whole.is_open:
            whole.copies.append([])
        whole.copies[-1].append(((part, seen[part]), len(document.text)))
        whole.is_open = not document.ends
        seen[part] += 1
        if len(wholes) > MANY:
            return HoldOut(layout.val_fraction)
    return _choose(source, [wholes[key] for key in sorted(wholes)], layout.val_fraction)


def _choose(source: Source, wholes: Sequence[_Whole], fraction: float) -> HoldOut:
    """Whole documents that come near the share; where they miss it by half or double, the end of the largest."""
    total = sum(whole.size for whole in wholes)
    wanted = fraction * total
    held = 0
    places: dict[tuple[int, int], int] = {}
    for whole in wholes:
        if abs(held + whole.size - wanted) <= abs(held - wanted) and held + whole.size < total:
            held += whole.size
            places.update((place, 0) for place in whole.places)
    if wanted / 2 <= held <= 2 * wanted or not wholes:
        return HoldOut(places=places)
    largest = max(wholes, key=lambda whole: whole.size)
    last = frozenset(largest.places) if len(wholes) > 1 or len(largest.copies) > 1 else frozenset()
    end = max(1, round(min(wanted, largest.size / 2)))
    copies = largest.copies
    if len(copies) > FEW or end < 2 * len(copies):
        copies = [[piece for pieces in copies for piece in pieces]]
    cuts = [_cut(source, pieces, end // len(copies)) for pieces in copies]
    closed = frozenset(_head(*pair) for pair in zip(copies[:-1], cuts[:-1], strict=True))
    return HoldOut(places={place: at for cut in cuts for place, at in cut.items()}, last=last, closed=closed)


def _head(pieces: _Pieces, cut: dict[tuple[int, int], int]) -> tuple[int, int]:
    """The last piece of a document that has some text for training."""
    return [place for place, _ in pieces if cut.get(place, 1)][-1]


def _cut(source: Source, pieces: _Pieces, wanted: int) -> dict[tuple[int, int], int]:
    """The last `wanted` characters of a document, or about as many."""
    places: dict[tuple[int, int], int] = {}
    for place, size in reversed(pieces):
        if wanted >= size and place != pieces[0][0]:
            places[place] = 0
            wanted -= size
            continue
        if wanted:
            part, number = place
            texts = usable(source.read(source.parts()[part], {}), {})
            text = next(document.text for k, document in enumerate(texts) if k == number)
            places[place] = _good_place(text, len(text) - wanted)
        break
    return places


def _good_place(text: str, at: int) -> int:
    """The end of a paragraph near `at`, else that of a line, else that of a word; `at` itself where nothing is near."""
    reach = min(at, len(text) - at)
    for mark, near in (("\n\n", reach // 10), ("\n", reach // 2), (" ", reach // 2)):
        low, high = at - near, at + near
        before, after = text.rfind(mark, max(0, low - len(mark)), at), text.find(mark, max(0, at - len(mark)), high)
        ends = [end for found in (before, after) if found >= 0 and low <= (end := found + len(mark)) <= high]
        ends = [end for end in ends if 0 < end < len(text)]
        if ends:
            return min(ends, key=lambda end: abs(end - at))
    return min(max(at, 1), len(text) - 1) if len(text) > 1 else 0


def _hash(document: Document) -> float:
    """A number in [0, 1) that follows from the text alone, and is the same for all pieces of a document."""
    known_by = document.beginning or document.text
    return int.from_bytes(hashlib.sha256(known_by.encode()).digest()[:8], "big") / 2**64
