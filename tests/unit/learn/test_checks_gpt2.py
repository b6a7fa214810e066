"""Typical wrong answers to the exercises of `gpt2`; the right ones are notebooks/solutions/gpt2.py."""

import pytest

from groundup.learn.exercises import exercises


def gpt2_parameters(n_layer, n_embd, vocab_size, block_size, *, mistake=None):
    C = n_embd
    biases = 0 if mistake == "no biases" else 9 * C
    last_norm = 0 if mistake == "no last norm" else 2 * C
    head = vocab_size * C if mistake == "untied head" else 0
    positions = 0 if mistake == "no positions" else block_size * C
    inner = 12 * C * C + biases + 4 * C
    return vocab_size * C + positions + n_layer * inner + last_norm + head


def to_hugging_face(name, tensor, *, mistake=None):
    if mistake == "no prefix":
        return name, tensor.T if name.startswith("h.") and tensor.dim() == 2 else tensor
    if mistake == "nothing turned":
        return f"transformer.{name}", tensor
    if mistake == "embeddings turned":
        return f"transformer.{name}", tensor.T if tensor.dim() == 2 else tensor
    if mistake == "square ones forgotten":
        oblong = tensor.dim() == 2 and tensor.shape[0] != tensor.shape[1]
        return f"transformer.{name}", tensor.T if name.startswith("h.") and oblong else tensor
    return f"transformer.{name}", tensor.T if name.startswith("h.") and tensor.dim() == 2 else tensor


def merged(w, a, b, alpha, *, mistake=None):
    if mistake == "no scale":
        return w + b @ a
    if mistake == "alpha alone":
        return w + alpha * b @ a
    if mistake == "change alone":
        return alpha / a.shape[0] * b @ a
    if mistake == "wrong order":
        return w + alpha / a.shape[0] * a @ b
    return w + alpha / a.shape[0] * b @ a


def answers(logprobs, *, mistake=None):
    sums = [sum(ending) for ending in logprobs]
    means = [sum(ending) / len(ending) for ending in logprobs]
    if mistake == "smallest":
        return sums.index(min(sums)), means.index(min(means))
    if mistake == "sum twice":
        return sums.index(max(sums)), sums.index(max(sums))
    if mistake == "mean twice":
        return means.index(max(means)), means.index(max(means))
    if mistake == "last of equal":
        last = len(sums) - 1
        return last - sums[::-1].index(max(sums)), last - means[::-1].index(max(means))
    if mistake == "likeliest token":
        best = [max(ending) for ending in logprobs]
        return sums.index(max(sums)), best.index(max(best))
    return sums.index(max(sums)), means.index(max(means))


RIGHT = (gpt2_parameters, to_hugging_face, merged, answers)
WRONG = [
    (answer, mistake)
    for answer, mistakes in (
        (gpt2_parameters, ("no biases", "no last norm", "untied head", "no positions")),
        (to_hugging_face, ("no prefix", "nothing turned", "embeddings turned", "square ones forgotten")),
        (merged, ("no scale", "alpha alone", "change alone", "wrong order")),
        (answers, ("smallest", "sum twice", "mean twice", "last of equal", "likeliest token")),
    )
    for mistake in mistakes
]


@pytest.mark.parametrize(("answer", "mistake"), WRONG)
def test_a_wrong_answer_gets_the_first_hint_and_then_the_second(answer, mistake, fails_with_both_hints):
    def wrong(*args):
        return answer(*args, mistake=mistake)

    fails_with_both_hints("gpt2", answer.__name__, wrong)


@pytest.mark.parametrize("answer", RIGHT)
def test_the_right_answer_passes(answer):
    verdict = exercises("gpt2")(answer.__name__, answer)
    assert verdict.passed, verdict.text
