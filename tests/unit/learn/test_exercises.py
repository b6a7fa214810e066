import numpy as np
import pytest
import torch

from groundup.config.errors import UsageError
from groundup.learn.exercises import Exercise, Exercises, ask, exercises, expect, same


def double(answer):
    expect(answer, 3, want=6)
    expect(answer, torch.tensor([1.0, 2.0]), want=torch.tensor([2.0, 4.0]))


MEMBERS = [Exercise(name="double", test=double, hints=("first hint", "second hint"), why="twice is useful")]


def test_a_right_answer_says_why_it_matters():
    verdict = Exercises(MEMBERS)("double", lambda x: 2 * x)
    assert verdict.passed
    assert verdict.text == "double: right\n  twice is useful"
    assert "right" in verdict._repr_html_()


def test_a_wrong_answer_tells_input_expectation_result_and_one_hint_after_the_other():
    check = Exercises(MEMBERS)

    def triple(x):
        return 3 * x

    first = check("double", triple)
    assert not first.passed
    assert "triple(3) should give 6" in first.text
    assert "gives 9" in first.text
    assert "first hint" in first.text
    assert "second hint" not in first.text
    for _ in range(2):
        assert "second hint" in check("double", triple).text
    assert check("double", lambda x: 2 * x).passed


def test_what_is_not_written_is_no_try():
    check = Exercises(MEMBERS)

    def blank(x): ...

    for _ in range(3):
        verdict = check("double", blank)
        assert "blank(3) returns nothing so far" in verdict.text
        assert "hint" not in verdict.text.replace('check.hint("double")', "")
    assert check.hint("double") == "first hint"


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda x: x / 0, "ZeroDivisionError"),
        (lambda: 1, "TypeError"),
        (lambda x: "<b>", "'<b>'"),
        (lambda x: torch.zeros(2, 2), "2x2 tensor"),
    ],
)
def test_nothing_a_learner_writes_raises(answer, told):
    verdict = Exercises(MEMBERS)("double", answer)
    assert not verdict.passed
    assert told in verdict.text
    assert "<b>'" not in verdict._repr_html_()


def test_an_error_of_a_check_reaches_the_learner_as_a_verdict():
    def fragile(answer):
        ask(answer, 1).missing  # noqa: B018

    check = Exercises([Exercise(name="fragile", test=fragile, hints=("a", "b"), why="")])
    assert "AttributeError" in check("fragile", lambda x: x).text


def test_strict_checks_raise():
    check = Exercises(MEMBERS, strict=True)
    assert check("double", lambda x: 2 * x).passed
    with pytest.raises(AssertionError, match="double: not yet"):
        check("double", lambda x: x)
    with pytest.raises(AssertionError, match="returns nothing"):
        check("double", lambda x: None)


def test_an_answer_cannot_spoil_the_inputs_of_the_next_try():
    inputs = [1, 2]

    def clears(x):
        x.clear()
        return 1

    ask(clears, inputs)
    assert inputs == [1, 2]


def test_a_check_leaves_the_random_numbers_of_the_notebook_alone():
    state = torch.get_rng_state()
    drawn = []
    check = Exercises([Exercise(name="draw", test=lambda f: drawn.append(f().item()), hints=("", ""), why="")])
    check("draw", lambda: torch.rand(()))
    check("draw", lambda: torch.rand(()))
    assert drawn[0] == drawn[1]
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("got", "want", "agree"),
    [
        (2, 2.0, True),
        (torch.tensor(2.0), 2.0, True),
        (np.float32(2), 2.0, True),
        ("2", 2.0, False),
        (2.001, 2.0, False),
        ([1.0, 2.0], [1.0, 2.0], True),
        ([1.0, 2.0], [1.0], False),
        (None, [1.0], False),
        ({"a": 1.0}, {"a": 1.0}, True),
        ({"b": 1.0}, {"a": 1.0}, False),
        (torch.ones(2), np.ones(2), True),
        (torch.ones(2, 1), torch.ones(2), False),
        ([1.0, 1.0], torch.ones(2), False),
        (torch.full((2,), torch.nan), torch.ones(2), False),
    ],
)
def test_same(got, want, agree):
    assert same(got, want) == agree


def test_wrong_names_are_told():
    with pytest.raises(UsageError, match="bigram"):
        exercises("trigram")
    with pytest.raises(UsageError, match="count_pairs"):
        exercises("bigram")("counts", lambda: 0)
    with pytest.raises(UsageError, match="count_pairs"):
        exercises("bigram").hint("counts")


@pytest.mark.parametrize("lesson", ["bigram", "build_gpt", "tokenization", "training", "inference", "gpt2"])
def test_in_every_lesson_an_answer_that_is_not_written_costs_no_hint(lesson):
    check = exercises(lesson)
    for name in check.names:
        assert "so far" in check(name, lambda *args: None).lines[0]
        assert check.hint(name) == check._find(name).hints[0]
