"""Tokens that were added to a vocabulary, found in text before it is cut into words: as `tokenizers` finds them."""

from collections.abc import Collection, Iterable, Iterator, Mapping

import regex

ALWAYS, SINGLE_WORD, LSTRIP, RSTRIP, NORMALIZED = "always", "single_word", "lstrip", "rstrip", "normalized"
FLAGS = (ALWAYS, SINGLE_WORD, LSTRIP, RSTRIP, NORMALIZED)
"""How a token is found: in every text and not only where special tokens are allowed; where no letter stands beside it;
with the white space before it, or after it; and only in what lies between the tokens without this last flag. It has
the name that others gave it: they may change text between the two searches."""

_WORD = regex.compile(r"\w")
_SPACES = regex.compile(r"\p{White_Space}+")
_SPACES_AT_END = regex.compile(r"(?r)\p{White_Space}+")


class AddedTokens:
    """Cuts text at tokens: of two that begin alike, the longer is meant; those that are NORMALIZED come second.

    Args:
        ids: The id of each token.
        flags: How it is found, out of FLAGS, where it is not found by its characters alone.
    """

    def __init__(self, ids: Mapping[str, int], flags: Mapping[str, Collection[str]]) -> None:
        self._ids, self._flags = ids, {token: flags.get(token, ()) for token in ids}
        longest = sorted(ids, key=len, reverse=True)
        second = [token for token in longest if NORMALIZED in self._flags[token]]
        first = [token for token in longest if NORMALIZED not in self._flags[token]]
        self._searches = [regex.compile("|".join(map(regex.escape, tokens))) for tokens in (first, second) if tokens]

    def split(self, text: str) -> Iterator[str | int]:
        """The ids of the tokens in a text, and what lies between them."""
        pieces: Iterator[str | int] = iter((text,) if text else ())
        for tokens in self._searches:
            pieces = self._search(pieces, tokens)
        return pieces

    def _search(self, pieces: Iterable[str | int], tokens: regex.Pattern[str]) -> Iterator[str | int]:
        """The same pieces, with those of text cut at some tokens; each as if it were a text of its own."""
        for piece in pieces:
            if isinstance(piece, int):
                yield piece
            else:
                yield from self._cut(piece, tokens)

    def _cut(self, text: str, tokens: regex.Pattern[str]) -> Iterator[str | int]:
        end = 0
        # White space that a token takes is searched as well, so another one may be found in it.
        for found in tokens.finditer(text):
            start, stop = found.span()
            flags = self._flags[found[0]]
            if SINGLE_WORD in flags and (_WORD.match(text, stop) or (start and _WORD.match(text, start - 1))):
                continue
            if LSTRIP in flags:
                spaces = _SPACES_AT_END.match(text, endpos=start)
                start = max(end, spaces.start() if spaces else start)
            if RSTRIP in flags and (spaces := _SPACES.match(text, stop)):
                stop = spaces.end()
            if start >= stop:  # it would take only what the one before has taken
                continue
            if start > end:
                yield text[end:start]
            yield self._ids[found[0]]
            end = stop
        if end < len(text):
            yield text[end:]
