"""Examples from JSON Lines files: multiple choice as HellaSwag writes it, and completion as LAMBADA does."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from groundup.config.errors import UserError
from groundup.config.printable import counted
from groundup.evaluation.scoring import Question
from groundup.tokenizer.base import Tokenizer
from groundup.tokenizer.char import NAMED, only_known

ExampleKind = Literal["choice", "completion"]
T = TypeVar("T")


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
    """What a file holds, by its first line: "endings" make it multiple choice, "text" completion.

    Raises:
        UserError: Neither, or there is no first line.
    """
    for number, record in _records(path):
        if "endings" in record:
            return "choice"
        if "text" in record:
            return "completion"
        raise _fault(path, number, 'it has neither "endings" (multiple choice) nor "text" (completion)')
    raise UserError(f"{path} holds no examples")


class _Skipped:
    """Counts the examples that a model cannot read because its alphabet lacks some of their characters."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer, self._unknown, self.count = tokenizer, Counter[str](), 0

    def take(self, *texts: str) -> bool:
        """Whether an example is one of those."""
        before = self._unknown.total()
        for text in texts:
            only_known(self._tokenizer, text, self._unknown)
        self.count += (skips := self._unknown.total() > before)
        return skips

    def tell(self, path: Path, kept: int, say: Callable[[str], None]) -> None:
        """Say how many they are.

        Raises:
            UserError: They are all.
        """
        named = ", ".join(repr(character) for character, _ in self._unknown.most_common(NAMED))
        why = f"have characters that the tokenizer does not know: {named}"
        if self.count and not kept:
            raise UserError(f"nothing is left of {path}: all its examples {why}")
        if self.count:
            say(f"left out {self.count:,} of {counted(self.count + kept, 'example')} of {path}, which {why}")


def read_choices(
    path: Path, tokenizer: Tokenizer, *, limit: int = 0, say: Callable[[str], None] = lambda _: None
) -> list[ChoiceExample]:
    """Lines of `{"ctx": ..., "endings": [...], "label": n}`; other keys are ignored.

    As in build-nanogpt, an ending is " " + its text, and encoded apart from the context.

    Args:
        path: The file.
        tokenizer: The model's.
        limit: The most examples to read; 0 reads all.
        say: Called with a line on how many are left out because the alphabet of the model lacks their characters.

    Raises:
        UserError: A line is not such an example, and is named; or nothing is left.
    """
    examples: list[ChoiceExample] = []
    skipped = _Skipped(tokenizer)
    for number, record in _records(path, limit):
        ctx, endings, label = (record.get(key) for key in ("ctx", "endings", "label"))
        if not isinstance(ctx, str):
            raise _fault(path, number, f'"ctx" must be a string, got {json.dumps(ctx)}')
        if not isinstance(endings, list) or len(endings) < 2:
            raise _fault(path, number, '"endings" must be a list of at least two strings')
        for place, ending in enumerate(endings):
            if not isinstance(ending, str) or not ending:
                raise _fault(path, number, f"ending {place} must be a string of at least one character")
        if isinstance(label, str) and label.strip().isascii() and label.strip().isdigit():
            label = int(label)  # as many published files write it
        elif isinstance(label, float) and label.is_integer():
            label = int(label)  # as tables write a column of which some rows have no number
        if type(label) is not int or not 0 <= label < len(endings):
            raise _fault(path, number, f'"label" must be from 0 to {len(endings) - 1}, got {json.dumps(label)}')
        continuations = [f" {ending}" for ending in endings]
        if skipped.take(ctx, *continuations):
            continue
        examples.append(ChoiceExample(_question(path, number, tokenizer, ctx, continuations), label))
    skipped.tell(path, len(examples), say)
    return _some(path, examples)


def read_completions(
    path: Path, tokenizer: Tokenizer, *, limit: int = 0, say: Callable[[str], None] = lambda _: None
) -> list[CompletionExample]:
    """Lines of `{"text": ...}`: all before the last space is the context, " " + the last word is to be predicted.

    Args and errors are `read_choices`'s.
    """
    examples: list[CompletionExample] = []
    skipped = _Skipped(tokenizer)
    for number, record in _records(path, limit):
        text = record.get("text")
        if not isinstance(text, str):
            raise _fault(path, number, f'"text" must be a string, got {json.dumps(text)}')
        context, space, word = text.rstrip("\r\n").rpartition(" ")
        if not space or not word.strip():
            raise _fault(path, number, '"text" must end in a space and a word')
        if skipped.take(text):
            continue
        examples.append(CompletionExample(_question(path, number, tokenizer, context, [f" {word}"])))
    skipped.tell(path, len(examples), say)
    return _some(path, examples)


def _question(path: Path, number: int, tokenizer: Tokenizer, context: str, continuations: list[str]) -> Question:
    """Encode; an empty context starts a new document."""
    try:
        ids = tokenizer.encode(context) if context else [tokenizer.eot_id]
        encoded = [tokenizer.encode(text) for text in continuations]
    except UserError as error:
        raise _fault(path, number, str(error)) from None
    if ids[0] is None:
        raise _fault(path, number, "the context is empty, and this tokenizer has no separator to start after")
    return Question([i for i in ids if i is not None], encoded)


def _records(path: Path, limit: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) for every line that is not empty."""
    count = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                if limit and count == limit:
                    return
                count += 1
                try:
                    record = json.loads(line.decode("utf-8-sig"))
                except UnicodeDecodeError:
                    raise _fault(path, number, "it is not UTF-8") from None
                except (ValueError, RecursionError) as error:
                    raise _fault(path, number, f"it is not JSON ({error})") from None
                if not isinstance(record, dict):
                    raise _fault(path, number, "it is not a JSON object")
                yield number, record
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def _some(path: Path, examples: list[T]) -> list[T]:
    if not examples:
        raise UserError(f"{path} holds no examples")
    return examples


def _fault(path: Path, number: int, what: str) -> UserError:
    return UserError(f"{path}, line {number}: {what}")
