"""Typical wrong answers to the exercises of `inference`; the right ones are notebooks/solutions/inference.py."""

import pytest
import torch

from groundup.learn.exercises import exercises


def nucleus(probabilities, p, *, mistake=None):
    values, order = probabilities.sort(descending=True)
    sums = values.cumsum(0)
    if mistake == "without the last":
        kept = sums <= p
    elif mistake == "likely enough":
        return probabilities >= 1 - p
    else:
        kept = sums - values < p
    if mistake == "sorted":
        return kept
    mask = torch.zeros_like(kept)
    mask[order] = kept
    return mask


def hit(probabilities, u, *, mistake=None):
    sums = probabilities.cumsum(0)
    if mistake == "likeliest":
        return int(probabilities.argmax())
    if mistake == "right end":  # a dart on an edge hits the token on its left
        return int((sums < u).sum())
    if mistake == "one late":
        return min(int((sums <= u).sum()) + 1, len(sums) - 1)
    return int((sums <= u).sum())


def greedy_decode(model, prompt, n, *, mistake=None):
    ids = list(prompt)
    for _ in range(n):
        seen = ids[-1:] if mistake == "last token only" else ids
        logits = model(torch.tensor([seen]))
        if mistake == "first position":
            ids.append(int(logits[0, 0].argmax()))
        elif mistake == "least":
            ids.append(int(logits[0, -1].argmin()))
        else:
            ids.append(int(logits[0, -1].argmax()))
    return ids if mistake == "with the prompt" else ids[len(prompt) :]


def cached_decode(model, prompt, n, *, mistake=None):
    cache = model.new_cache(1, 32)
    idx, ids = torch.tensor([prompt]), []
    for _ in range(n):
        if mistake == "everything again":
            cache.truncate(0)
        ids.append(int(model(idx, cache=cache)[0, -1].argmax()))
        if mistake == "everything again":
            idx = torch.tensor([[*prompt, *ids]])
        elif mistake == "all behind all":
            idx = torch.tensor([[*prompt, *ids]])[:, -3:]
        else:
            idx = torch.tensor([ids[-1:]])
    return ids


def cache_bytes(n_layer, n_embd, n_tokens, batch_size, bytes_per_number, *, mistake=None):
    size = 2 * n_layer * n_embd * n_tokens * batch_size * bytes_per_number
    if mistake == "keys alone":
        return size // 2
    if mistake == "one layer":
        return size // n_layer
    if mistake == "numbers":
        return size // bytes_per_number
    if mistake == "one sequence":
        return size // batch_size
    return size


RIGHT = (nucleus, hit, greedy_decode, cache_bytes, cached_decode)
WRONG = [
    (answer, mistake)
    for answer, mistakes in (
        (nucleus, ("without the last", "likely enough", "sorted")),
        (hit, ("likeliest", "right end", "one late")),
        (greedy_decode, ("last token only", "first position", "least", "with the prompt")),
        (cache_bytes, ("keys alone", "one layer", "numbers", "one sequence")),
        (cached_decode, ("everything again", "all behind all")),
    )
    for mistake in mistakes
]


@pytest.mark.parametrize(("answer", "mistake"), WRONG)
def test_a_wrong_answer_gets_the_first_hint_and_then_the_second(answer, mistake, fails_with_both_hints):
    def wrong(*args):
        return answer(*args, mistake=mistake)

    fails_with_both_hints("inference", answer.__name__, wrong)


@pytest.mark.parametrize("answer", RIGHT)
def test_the_right_answer_passes(answer):
    verdict = exercises("inference")(answer.__name__, answer)
    assert verdict.passed, verdict.text


def test_a_decoder_without_a_cache_is_right_but_told_that_it_reads_too_much():
    verdict = exercises("inference")("cached_decode", greedy_decode)
    assert not verdict.passed
    assert "let the model read" in verdict.text
