"""Solutions are proved by tests/docs/test_notebooks.py; here typical mistakes must fail, with the hints in order."""

from itertools import pairwise

import pytest
import torch

from groundup.learn.exercises import exercises


def counts_wrapped(ids, vocab_size):
    counts = torch.zeros(vocab_size, vocab_size)
    for current, following in zip(ids, ids[1:] + ids[:1], strict=True):
        counts[current, following] += 1
    return counts


def counts_as_a_set(ids, vocab_size):
    counts = torch.zeros(vocab_size, vocab_size)
    for pair in set(pairwise(ids)):
        counts[pair] = 1
    return counts


def counts_turned(ids, vocab_size):
    counts = torch.zeros(vocab_size, vocab_size)
    for current, following in pairwise(ids):
        counts[following, current] += 1
    return counts


def gradient_turned(logits, target):
    g = -logits.softmax(dim=-1)
    g[target] += 1
    return g


WRONG = [
    ("count_pairs", counts_wrapped),
    ("count_pairs", counts_as_a_set),
    ("count_pairs", counts_turned),
    ("probabilities", lambda counts, smoothing: (counts + smoothing) / (counts + smoothing).sum(dim=1)),
    ("probabilities", lambda counts, smoothing: (counts + smoothing) / (counts + smoothing).sum()),
    ("probabilities", lambda counts, smoothing: counts / counts.sum(dim=1, keepdim=True)),
    ("probabilities", lambda counts, smoothing: counts / counts.sum(dim=1, keepdim=True) + smoothing),
    ("probabilities", lambda counts, smoothing: (counts + smoothing).softmax(dim=1)),
    ("draw", lambda p, r: int(p.argmax())),
    ("draw", lambda p, r: int((p.cumsum(0) < r).sum())),
    ("draw", lambda p, r: int((p < r).sum())),
    ("draw", lambda p, r: int(r * len(p))),
    ("draw", lambda p, r: int(torch.multinomial(p, 1))),
    ("loss", lambda p, ids: -p[ids[:-1], ids[1:]].log().sum()),
    ("loss", lambda p, ids: p[ids[:-1], ids[1:]].log().mean()),
    ("loss", lambda p, ids: -p[ids[:-1], ids[1:]].mean().log()),
    ("loss", lambda p, ids: -p[ids[1:], ids[:-1]].log().mean()),
    ("loss", lambda p, ids: -p[ids[:-1], ids[1:]].log2().mean()),
    ("gradient", gradient_turned),
    ("gradient", lambda logits, target: logits.softmax(dim=-1)),
    ("gradient", lambda logits, target: logits.log_softmax(dim=-1) - torch.eye(len(logits))[target]),
    ("gradient", lambda logits, target: torch.eye(len(logits))[target] - 1),
]


@pytest.mark.parametrize(("name", "answer"), WRONG)
def test_a_wrong_answer_gets_the_first_hint_and_then_the_second(name, answer, fails_with_both_hints):
    fails_with_both_hints("bigram", name, answer)


def test_every_exercise_has_a_mistake_that_is_tried():
    assert {name for name, _ in WRONG} == set(exercises("bigram").names)
