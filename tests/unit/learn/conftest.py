"""What holds for the exercises of every lesson."""

import pytest

from groundup.learn.exercises import exercises


@pytest.fixture
def fails_with_both_hints():
    """Try a wrong answer twice: it is told what came, the first hint, and then the second."""

    def attempt(lesson, name, answer):
        check = exercises(lesson)
        first, second = check(name, answer), check(name, answer)
        assert not first.passed
        assert not second.passed
        hints = check._find(name).hints
        assert first.lines[-1] == f"Hint: {hints[0]}"
        assert second.lines[-1] == f"Hint: {hints[1]}"
        assert len(first.lines) > 1  # what was expected, and what came
        assert first.lines[:-1] == second.lines[:-1]

    return attempt
