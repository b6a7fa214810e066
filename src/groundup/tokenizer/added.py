"""Tokens that were added to a vocabulary, found in text before it is cut into words: as `tokenizers` finds them."""

from collections.abc import Collection, Iterator, Mapping

import regex

ALWAYS, SINGLE_WORD, LSTRIP, RSTRIP = "always", "single_word", "lstrip", "rstrip"
FLAGS = (ALWAYS, SINGLE_WORD, LSTRIP, RSTRIP)
"""How a token is found: in every text and not only where special tokens are allowed; where no letter stands beside it;
with the white space before it, or after it."""

_WORD = regex.compile(r"\w")
_SPACES = regex.compile(r"\p{White_Space}+")
_SPACES_AT_END = regex.compile(r"(?r)\p{White_Space}+")


class AddedTokens:
    """Cuts text at tokens; of two that begin alike, the longer is meant.

    Args:
        ids: The id of each token.
        flags: How it is found, out of FLAGS, where it is not found by its characters alone.
    """

    def __init__(self, ids: Mapping[str, int], flags: Mapping[str, Collection[str]]) -> None:
        self._ids, self._flags = ids, {token: flags.get(token, ()) for token in ids}
        self._any = regex.compile("|".join(map(regex.escape, sorted(ids, key=len, reverse=True))))

    def split(self, text: str) -> Iterator[str | int]:
        """The ids of the tokens in a text, and what lies between them."""
        end = 0
        for found in self._any.finditer(text):
            start, stop = found.span()
            flags = self._flags[found[0]]
            if SINGLE_WORD in flags and (_WORD.match(text, stop) or (start and _WORD.match(text, start - 1))):
                continue
            if LSTRIP in flags and (spaces := _SPACES_AT_END.match(text, endpos=start)):
                start = max(end, spaces.start())
            if RSTRIP in flags and (spaces := _SPACES.match(text, stop)):
                stop = spaces.end()
            if start > end:
                yield text[end:start]
            yield self._ids[found[0]]
            end = stop
        if end < len(text):
            yield text[end:]
