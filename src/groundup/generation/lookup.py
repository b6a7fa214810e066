"""Guess what comes next from the text itself: where its last tokens stood before, and how it went on there.

A greedy text repeats itself, and quotes its prompt. Tokens that are guessed are read together in one pass, which costs
little more than reading one, and those that the model would have drawn count (prompt lookup decoding, Saxena 2023).
"""

from collections.abc import Iterable

N_GRAM = 3
"""Tokens that must have stood before."""
FIRST_GUESS, LONGEST_GUESS = 3, 15
"""A guess is twice as long after one that was right to its end, and as long as what was right of it otherwise."""


class PromptLookup:
    """The tokens of one text, and where each N_GRAM of them stood last.

    Args:
        ids: The text so far.
    """

    def __init__(self, ids: Iterable[int]) -> None:
        self._ids: list[int] = []
        self._next: dict[tuple[int, ...], int] = {}
        """The place behind the last occurrence of an n-gram that something follows."""
        self._length = FIRST_GUESS
        for token in ids:
            self.push(token)

    def push(self, token: int) -> None:
        """The text goes on with a token."""
        if len(self._ids) >= N_GRAM:
            self._next[tuple(self._ids[-N_GRAM:])] = len(self._ids)
        self._ids.append(token)

    def guess(self, most: int) -> list[int]:
        """What may come next, at most so many tokens; a guess that reaches the end of the text reads on in itself."""
        place = self._next.get(tuple(self._ids[-N_GRAM:]))
        if place is None:
            return []
        behind, guess = self._ids[place:], list[int]()
        for k in range(min(most, self._length)):
            guess.append(behind[k] if k < len(behind) else guess[k - len(behind)])
        return guess

    def learn(self, n_guessed: int, n_right: int) -> None:
        """How a guess turned out."""
        self._length = min(LONGEST_GUESS, 2 * self._length) if n_right == n_guessed else max(1, n_right)
