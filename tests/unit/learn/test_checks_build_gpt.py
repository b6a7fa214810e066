"""Solutions are proved by tests/docs/test_notebooks.py; here typical mistakes must fail, with the hints in order."""

import math

import pytest
import torch
import torch.nn.functional as F

from groundup.learn.exercises import exercises


def weights(q, k, *, scale=None, mask=1, masked_after=False, dim=-1):
    T, D = q.shape
    scores = q @ k.T / (scale or math.sqrt(D))
    future = torch.ones(T, T, dtype=torch.bool).triu(mask)
    if masked_after:
        return scores.softmax(dim=dim).masked_fill(future, 0)
    return scores.masked_fill(future, -math.inf).softmax(dim=dim)


def norm(x, weight, bias, *, dim=-1, correction=0, eps=1e-5):
    mean = x.mean(dim=dim, keepdim=True)
    return (x - mean) / (x.var(dim=dim, keepdim=True, correction=correction) + eps).sqrt() * weight + bias


def count(n_layer, n_embd, block_size, vocab_size, *, block=(12, 13), heads=1, last=2):
    per_block = block[0] * n_embd**2 + block[1] * n_embd
    return heads * vocab_size * n_embd + block_size * n_embd + n_layer * per_block + last * n_embd


WRONG = [
    ("average_matrix", lambda T: torch.ones(T, T).tril()),
    ("average_matrix", lambda T: torch.ones(T, T) / T),
    ("average_matrix", lambda T: torch.ones(T, T).tril() / T),
    ("average_matrix", lambda T: torch.ones(T, T).tril() / torch.ones(T, T).tril().sum(dim=1)),
    ("average_matrix", lambda T: torch.ones(T, T).triu() / torch.ones(T, T).triu().sum(dim=1, keepdim=True)),
    ("attention_weights", lambda q, k: weights(q, k, scale=1)),
    ("attention_weights", lambda q, k: weights(q, k, scale=q.shape[1])),
    ("attention_weights", lambda q, k: weights(q, k, scale=math.sqrt(len(q)))),
    ("attention_weights", lambda q, k: weights(q, k, mask=0)),
    ("attention_weights", lambda q, k: weights(q, k, mask=2)),
    ("attention_weights", lambda q, k: weights(q, k, masked_after=True)),
    ("attention_weights", lambda q, k: weights(q, k, dim=0)),
    ("attention_weights", lambda q, k: weights(k, q)),
    ("split_heads", lambda x, n_head: x.view(n_head, len(x), -1)),
    ("split_heads", lambda x, n_head: x.view(len(x), n_head, -1)),
    ("split_heads", lambda x, n_head: x.view(len(x), -1, n_head).permute(2, 0, 1)),
    ("layer_norm", lambda x, weight, bias: norm(x, weight, bias, dim=0)),
    ("layer_norm", lambda x, weight, bias: norm(x, weight, bias, correction=1)),
    ("layer_norm", lambda x, weight, bias: norm(x, weight, bias, eps=0)),
    ("layer_norm", lambda x, weight, bias: norm(x, bias, weight)),
    ("layer_norm", lambda x, weight, bias: norm(x, weight, 0 * bias)),
    ("layer_norm", lambda x, weight, bias: x / x.std(dim=-1, keepdim=True) * weight + bias),
    ("layer_norm", lambda x, weight, bias: F.rms_norm(x, (x.shape[-1],), weight, 1e-5) + bias),
    ("count_parameters", lambda *shape: count(*shape, block=(12, 0))),
    ("count_parameters", lambda *shape: count(*shape, block=(12, 9))),
    ("count_parameters", lambda *shape: count(*shape, heads=2)),
    ("count_parameters", lambda *shape: count(*shape, last=0)),
    ("count_parameters", lambda *shape: 124_439_808),
]


@pytest.mark.parametrize(("name", "answer"), WRONG)
def test_a_wrong_answer_gets_the_first_hint_and_then_the_second(name, answer, fails_with_both_hints):
    fails_with_both_hints("build_gpt", name, answer)


def test_every_exercise_has_a_mistake_that_is_tried():
    assert {name for name, _ in WRONG} == set(exercises("build_gpt").names)


def test_right_answers_in_either_precision_pass():
    check = exercises("build_gpt")
    assert check("attention_weights", lambda q, k: weights(q.float(), k.float())).passed
    assert check("layer_norm", norm).passed
    assert check("count_parameters", count).passed
