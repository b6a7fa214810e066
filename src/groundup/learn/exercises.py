"""Exercises that check themselves.

    check = exercises("bigram")
    check("counts", count_pairs)

A check never raises in a learner's notebook: it says what was expected on which input and what came, and gives a hint;
the second failing try gives the second hint. Solutions are run with `strict=True`, where a failed check raises, so that
CI proves them.

The exercises of a notebook are the `EXERCISES` of `groundup/learn/checks_NAME.py`.
"""

import copy
import html
import importlib
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from groundup.config.errors import UsageError

Answer = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Exercise:
    """One thing to write."""

    name: str
    """What the notebook calls it by."""
    test: Callable[[Answer], None]
    """Raises AssertionError, with a message for the learner, where the answer is wrong. `expect` and `ask` help."""
    hints: tuple[str, str]
    """The first points the way, the second nearly walks it."""
    why: str
    """What the learner has in hands now: shown when the check passes."""


class UnwrittenError(AssertionError):
    """The answer returns nothing: its body is still `...`."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check found. Jupyter shows it as a box, a terminal as text."""

    name: str
    passed: bool
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        """The verdict as plain text."""
        return "\n".join((f"{self.name}: {'right' if self.passed else 'not yet'}", *(f"  {x}" for x in self.lines)))

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        color, sign = ("#009e73", "&#10003; right") if self.passed else ("#d55e00", "&hellip; not yet")
        body = "<br>".join(html.escape(line) for line in self.lines)
        head = f"<b>{html.escape(self.name)}</b> <span style='color:{color}'>{sign}</span>"
        return f"<div style='border-left:4px solid {color};padding:2px 10px'>{head}<br>{body}</div>"


class Exercises:
    """The checks of one notebook.

    Args:
        members: Its exercises.
        strict: Raise where a check fails, for solutions.
    """

    def __init__(self, members: Sequence[Exercise], *, strict: bool = False) -> None:
        self._members = {exercise.name: exercise for exercise in members}
        self._strict = strict
        self._failures: Counter[str] = Counter()

    @property
    def names(self) -> list[str]:
        """In the order of the notebook."""
        return list(self._members)

    def __call__(self, name: str, answer: Answer) -> Verdict:
        """Check an answer.

        Args:
            name: Of the exercise.
            answer: The learner's function.

        Raises:
            UsageError: There is no such exercise.
            AssertionError: The answer is wrong, and the checks are strict.
        """
        exercise = self._find(name)
        try:
            # Numbers drawn during a check are the same every time, and the notebook's own sequence is left alone.
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                exercise.test(answer)
        except UnwrittenError as error:
            verdict = Verdict(
                name, passed=False, lines=(str(error), f'Write it and run the cell again; check.hint("{name}") helps.')
            )
        except Exception as error:
            reason = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
            self._failures[name] += 1
            verdict = Verdict(name, passed=False, lines=(*reason.splitlines(), f"Hint: {self.hint(name)}"))
        else:
            verdict = Verdict(name, passed=True, lines=(exercise.why,))
        if self._strict and not verdict.passed:
            raise AssertionError(verdict.text)
        return verdict

    def hint(self, name: str) -> str:
        """The hint that fits the number of failed tries: the first at first, then the second.

        Raises:
            UsageError: There is no such exercise.
        """
        return self._find(name).hints[self._failures[name] > 1]

    def _find(self, name: str) -> Exercise:
        if name not in self._members:
            raise UsageError(f"there is no exercise {name!r} in this notebook; there are {', '.join(self._members)}")
        return self._members[name]


def exercises(notebook: str, *, strict: bool = False) -> Exercises:
    """The checks of a notebook.

    Args:
        notebook: Its name, such as "bigram".
        strict: Raise where a check fails, for solutions.

    Raises:
        UsageError: There is no such notebook.
    """
    known = sorted(path.stem.removeprefix("checks_") for path in Path(__file__).parent.glob("checks_*.py"))
    if notebook not in known:
        raise UsageError(f"there are no exercises for {notebook!r}; there are some for {', '.join(known)}")
    return Exercises(importlib.import_module(f"groundup.learn.checks_{notebook}").EXERCISES, strict=strict)


def ask(answer: Answer, *args: Any, shown: str | None = None) -> Any:
    """What an answer returns for copies of some arguments.

    Args:
        answer: The learner's function.
        args: What it is given.
        shown: How the message writes the call, where the arguments are too long to be read.

    Raises:
        UnwrittenError: It returns nothing.
        AssertionError: It raises; the message says what, and for which call.
    """
    try:
        got = answer(*copy.deepcopy(args))
    except Exception as error:
        raise AssertionError(f"{_call(answer, args, shown)} raised {type(error).__name__}: {error}") from error
    if got is None or got is ...:
        raise UnwrittenError(f"{_call(answer, args, shown)} returns nothing so far.")
    return got


def expect(answer: Answer, *args: Any, want: Any, tolerance: float = 1e-6, shown: str | None = None) -> None:
    """Require that an answer returns a value: numbers, strings, tensors, arrays, or lists, tuples and dicts of them.

    Args:
        answer: The learner's function.
        args: What it is given.
        want: What it should return.
        tolerance: How far numbers may be off, relative to their size or, below 1, absolutely.
        shown: How the message writes the call, where the arguments are too long to be read.

    Raises:
        AssertionError: It returns something else, raises, or returns nothing.
    """
    got = ask(answer, *args, shown=shown)
    if not same(got, want, tolerance):
        raise AssertionError(f"{_call(answer, args, shown)} should give {show(want)}\nand gives {show(got)}.")


def same(got: Any, want: Any, tolerance: float = 1e-6) -> bool:
    """Whether two values agree: shapes, lengths and keys exactly, numbers within the tolerance."""
    if isinstance(want, torch.Tensor | np.ndarray):
        if not isinstance(got, torch.Tensor | np.ndarray):
            return False
        a, b = (torch.as_tensor(x).detach().to(torch.float64) for x in (got, want))
        return a.shape == b.shape and torch.allclose(a, b, rtol=tolerance, atol=tolerance)
    if isinstance(want, dict):
        return (
            isinstance(got, dict)
            and got.keys() == want.keys()
            and all(same(got[key], want[key], tolerance) for key in want)
        )
    if isinstance(want, list | tuple):
        return (
            isinstance(got, list | tuple)
            and len(got) == len(want)
            and all(same(x, y, tolerance) for x, y in zip(got, want, strict=True))
        )
    if isinstance(want, float):
        number = isinstance(got, int | float | np.number) or (isinstance(got, torch.Tensor) and got.numel() == 1)
        return number and math.isclose(float(got), want, rel_tol=tolerance, abs_tol=tolerance)
    if isinstance(got, torch.Tensor | np.ndarray):
        return torch.as_tensor(got).numel() == 1 and got.item() == want
    return bool(got == want)


def show(value: Any) -> str:
    """A value, short enough for a message."""
    if isinstance(value, torch.Tensor | np.ndarray):
        tensor = torch.as_tensor(value).detach()
        numbers = f" {_rounded(tensor.tolist())}" if tensor.numel() <= 16 else ""
        return f"{'x'.join(map(str, tensor.shape)) or 'scalar'} tensor{numbers}"
    text = repr(_rounded(value))
    return text if len(text) <= 160 else f"{text[:100]} ... {text[-50:]}"


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}")
    return [_rounded(x) for x in value] if isinstance(value, list) else value


def _call(answer: Answer, args: Sequence[Any], shown: str | None) -> str:
    name = getattr(answer, "__name__", "your function")
    return f"{name}({shown or ', '.join(map(show, args))})"
