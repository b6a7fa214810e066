import pytest

from groundup.evaluation.own_text import sliding


@pytest.mark.parametrize(("size", "window", "stride"), [(50, 16, 4), (50, 16, 15), (7, 16, 8), (33, 8, 1), (17, 16, 8)])
def test_windows_are_those_of_the_documented_loop(size, window, stride):
    """The strided loop of the perplexity page of transformers, written out."""
    tokens = list(range(size))
    expected, before = [], 0
    for begin in range(0, size, stride):
        end = min(begin + window, size)
        counted = min(end - before, end - begin - 1)  # the first token of a window is foreseen from nothing
        expected.append((tokens[begin : end - counted], tokens[end - counted : end]))
        before = end
        if end == size:
            break
    got = [(question.context, question.continuations[0]) for question in sliding(tokens, window, stride)]
    assert got == expected
    assert [token for _, targets in got for token in targets] == tokens[1:]
