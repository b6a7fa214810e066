"""Examples from JSON Lines files: multiple choice as HellaSwag writes it, and completion as LAMBADA does."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from groundup.config.errors import UserError, reading
from groundup.config.printable import counted
from groundup.evaluation.scoring import Question
from groundup.tokenizer.base import Tokenizer
from groundup.tokenizer.char import NAMED, only_known

ExampleKind = Literal["choice", "completion"]
T = TypeVar("T")
MOST_NAMED = 3
"""Lines that are no examples, named with their faults; the others are counted."""


class _FaultError(Exception):
    """What keeps a line from being an example."""


@dataclass(frozen=True, slots=True)
class ChoiceExample:
    """A context, ways in which it could go on, and the one in which it does."""

    question: Question
    label: int


@dataclass(frozen=True, slots=True)
class CompletionExample:
    """A text without its last word, and that word."""

    question: Question


def kind_of(path: Path) -> ExampleKind:
    """What a file holds, by its first line that says it: "endings" make it multiple choice, "text" completion.

    Raises:
        UserError: No line does, and the first is named; or there is none.
    """
    left_out = _LeftOut(path)
    for number, line in _lines(path):
        try:
            record = _record(line)
        except _FaultError as fault:
            left_out.line(number, fault)
            continue
        if "endings" in record:
            return "choice"
        if "text" in record:
            return "completion"
        left_out.line(number, _FaultError('it has neither "endings" (multiple choice) nor "text" (completion)'))
    raise left_out.nothing()


class _LeftOut:
    """Counts what of a file cannot be measured.

    That are lines that are no examples, and examples that a model cannot read because its alphabet lacks some of their
    characters.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._faults, self._unknown, self._unread = path, list[tuple[int, str]](), Counter[str](), 0

    def line(self, number: int, fault: _FaultError) -> None:
        """Leave out a line."""
        self._faults.append((number, str(fault)))

    def unreadable(self, tokenizer: Tokenizer, *texts: str) -> bool:
        """Whether an example has characters that a tokenizer does not know; then it is left out."""
        before = self._unknown.total()
        for text in texts:
            only_known(tokenizer, text, self._unknown)
        self._unread += (unknown := self._unknown.total() > before)
        return unknown

    def nothing(self) -> UserError:
        """What to say where nothing is left."""
        if self._unread:
            faults = f"; {counted(len(self._faults), 'other line')} {self._no_examples()}" if self._faults else ""
            return UserError(f"nothing is left of {self._path}: all its examples {self._why()}{faults}")
        if not self._faults:
            return UserError(f"{self._path} holds no examples")
        (number, fault), *others = self._faults
        all_others = f"; nor is any of the {counted(len(others), 'line')} after it an example" if others else ""
        return UserError(f"{self._path}, line {number}: {fault}{all_others}")

    def tell(self, kept: int, say: Callable[[str], None]) -> None:
        """Say how many they are.

        Raises:
            UserError: They are all.
        """
        if not kept:
            raise self.nothing()
        if self._faults:
            n, total = len(self._faults), len(self._faults) + self._unread + kept
            say(f"left out {n:,} of {counted(total, 'line')} of {self._path}, which {self._no_examples()}")
        if self._unread:
            total = self._unread + kept
            say(f"left out {self._unread:,} of {counted(total, 'example')} of {self._path}, which {self._why()}")

    def _no_examples(self) -> str:
        n = len(self._faults)
        named = "; ".join(f"line {number}: {fault}" for number, fault in self._faults[:MOST_NAMED])
        more = f"; and {n - MOST_NAMED:,} more" if n > MOST_NAMED else ""
        return f"{'is no example' if n == 1 else 'are no examples'}: {named}{more}"

    def _why(self) -> str:
        named = ", ".join(repr(character) for character, _ in self._unknown.most_common(NAMED))
        return f"have characters that the tokenizer does not know: {named}"


def read_choices(
    path: Path, tokenizer: Tokenizer, *, limit: int = 0, say: Callable[[str], None] = lambda _: None
) -> list[ChoiceExample]:
    """Lines of `{"ctx": ..., "endings": [...], "label": n}`; other keys are ignored.

    As in build-nanogpt, an ending is " " + its text, and encoded apart from the context.

    Args:
        path: The file.
        tokenizer: The model's.
        limit: The most lines to read; 0 reads all.
        say: Called with a line on how many are left out because they are no examples, and with one on how many because
            the alphabet of the model lacks their characters.

    Raises:
        UserError: Nothing is left; the first line at fault is named.
    """

    def example(record: dict[str, Any], left_out: _LeftOut) -> ChoiceExample | None:
        ctx, label = _choice_of(record)
        continuations = [f" {ending}" for ending in record["endings"]]
        if left_out.unreadable(tokenizer, ctx, *continuations):
            return None
        return ChoiceExample(_question(tokenizer, ctx, continuations), label)

    return _read(path, example, limit, say)


def read_completions(
    path: Path, tokenizer: Tokenizer, *, limit: int = 0, say: Callable[[str], None] = lambda _: None
) -> list[CompletionExample]:
    """Lines of `{"text": ...}`: all before the last space is the context, " " + the last word is to be predicted.

    Args and errors are `read_choices`'s.
    """

    def example(record: dict[str, Any], left_out: _LeftOut) -> CompletionExample | None:
        text = record.get("text")
        if not isinstance(text, str):
            raise _FaultError(f'"text" must be a string, got {json.dumps(text)}')
        context, space, word = text.rstrip("\r\n").rpartition(" ")
        if not space or not word.strip():
            raise _FaultError('"text" must end in a space and a word')
        if left_out.unreadable(tokenizer, text):
            return None
        return CompletionExample(_question(tokenizer, context, [f" {word}"]))

    return _read(path, example, limit, say)


def _read(
    path: Path, example: Callable[[dict[str, Any], _LeftOut], T | None], limit: int, say: Callable[[str], None]
) -> list[T]:
    examples: list[T] = []
    left_out = _LeftOut(path)
    for number, line in _lines(path, limit):
        try:
            read = example(_record(line), left_out)
        except _FaultError as fault:
            left_out.line(number, fault)
            continue
        if read is not None:
            examples.append(read)
    left_out.tell(len(examples), say)
    return examples


def _choice_of(record: dict[str, Any]) -> tuple[str, int]:
    """The context and the label of a line of multiple choice, whose endings are sound."""
    ctx, endings, label = (record.get(key) for key in ("ctx", "endings", "label"))
    if not isinstance(ctx, str):
        raise _FaultError(f'"ctx" must be a string, got {json.dumps(ctx)}')
    if not isinstance(endings, list) or len(endings) < 2:
        raise _FaultError('"endings" must be a list of at least two strings')
    for place, ending in enumerate(endings):
        if not isinstance(ending, str) or not ending:
            raise _FaultError(f"ending {place} must be a string of at least one character")
    if isinstance(label, str) and label.strip().isascii() and label.strip().isdigit():
        label = int(label)  # as many published files write it
    elif isinstance(label, float) and label.is_integer():
        label = int(label)  # as tables write a column of which some rows have no number
    if type(label) is not int or not 0 <= label < len(endings):
        raise _FaultError(f'"label" must be from 0 to {len(endings) - 1}, got {json.dumps(label)}')
    return ctx, label


def _question(tokenizer: Tokenizer, context: str, continuations: list[str]) -> Question:
    """Encode; an empty context starts a new document."""
    try:
        ids = tokenizer.encode(context) if context else [tokenizer.eot_id]
        encoded = [tokenizer.encode(text) for text in continuations]
    except UserError as error:
        raise _FaultError(str(error)) from None
    if ids[0] is None:
        raise _FaultError("the context is empty, and this tokenizer has no separator to start after")
    return Question([i for i in ids if i is not None], encoded)


def _lines(path: Path, limit: int = 0) -> Iterator[tuple[int, bytes]]:
    """(line number, line) for every line that is not empty."""
    count = 0
    with reading(path), path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            if limit and count == limit:
                return
            count += 1
            yield number, line


def _record(line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line.decode("utf-8-sig").rstrip())
    except UnicodeDecodeError:
        raise _FaultError("it is not UTF-8") from None
    except (ValueError, RecursionError) as error:
        place = f"{error.msg}, character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else error
        raise _FaultError(f"it is not JSON ({place})") from None
    if not isinstance(record, dict):
        raise _FaultError("it is not a JSON object")
    return record
