"""Ending a text at a stop string, without ever showing the beginning of one."""

from collections.abc import Sequence

from groundup.config.errors import UsageError
from groundup.formats.decode import line_ends


class StopStrings:
    """Lets text through until a stop string is complete, and cuts the text where that stop string begins.

    The rule, independent of the pieces the text arrives in: the first character that completes a stop string ends
    the text; if it completes several, the longest counts. Text that could still become one is held back.

    Args:
        stops: Strings that end the text and do not belong to it, also with the line ends that prompts are read with.

    Raises:
        UsageError: A stop string is empty.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        if "" in stops:
            raise UsageError("a stop string must have at least one character, got an empty one")
        self.stops = tuple(dict.fromkeys([*stops, *map(line_ends, stops)]))
        self.stopped = False
        self._held = ""

    def push(self, text: str) -> str:
        """Take the next piece; returns what is now certain to belong to the text."""
        if self.stopped:
            return ""
        if not self.stops:
            return text
        text = self._held + text
        ends = [at + len(stop) for stop in self.stops if (at := text.find(stop)) >= 0]
        if ends:
            self.stopped = True
            end = min(ends)
            longest = max(len(stop) for stop in self.stops if text.endswith(stop, 0, end))
            self._held = ""
            return text[: end - longest]
        keep = max((_overlap(text, stop) for stop in self.stops), default=0)
        safe = len(text) - keep
        self._held = text[safe:]
        return text[:safe]

    def finish(self) -> str:
        """The end of the text: what was held back and did not become a stop string."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a beginning of `stop`, but not all of it."""
    for size in range(len(stop) - 1, 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
