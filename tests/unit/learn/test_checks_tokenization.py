"""Solutions are proved by tests/docs/test_notebooks.py; here typical mistakes must fail, with the hints in order."""

import math
from collections import Counter
from itertools import pairwise

import pytest

from groundup.learn.exercises import exercises


def replaced(ids, pair, new):
    """Right, but for what it is called with."""
    merged = []
    for token in ids:
        if merged and (merged[-1], token) == tuple(pair):
            merged[-1] = new
        else:
            merged.append(token)
    return merged


def merged_only_once(ids, pair, new):
    for i, found in enumerate(pairwise(ids)):
        if found == pair:
            return [*ids[:i], new, *ids[i + 2 :]]
    return ids


def merged_from_the_right(ids, pair, new):
    return replaced(ids[::-1], pair[::-1], new)[::-1]


def merged_with_for(ids, pair, new):
    merged = []
    for i, token in enumerate(ids):
        if tuple(ids[i : i + 2]) == pair:
            merged.append(new)
        elif i == 0 or tuple(ids[i - 1 : i + 1]) != pair:
            merged.append(token)
    return merged


def greedy_longest(word, merges):
    tokens = [bytes([i]) for i in range(256)]
    for a, b in merges:
        tokens.append(tokens[a] + tokens[b])
    ids, data = [], word.encode()
    while data:
        ids.append(max((i for i, t in enumerate(tokens) if data.startswith(t)), key=lambda i: len(tokens[i])))
        data = data[len(tokens[ids[-1]]) :]
    return ids


def one_pass_in_reverse(word, merges):
    ids = list(word.encode())
    for i, pair in reversed(list(enumerate(merges))):
        ids = replaced(ids, pair, 256 + i)
    return ids


def characters(word, merges):
    ids = [ord(character) for character in word]
    for i, pair in enumerate(merges):
        ids = replaced(ids, pair, 256 + i)
    return ids


def one_byte_too_few(code):
    return list(chr(code).encode()) if code < 0x10000 else [0xE0 | code >> 12, 0x80 | code >> 6 & 63, 0x80 | code & 63]


WRONG = [
    ("utf8_bytes", lambda code: [code]),
    ("utf8_bytes", lambda code: list(code.to_bytes(3, "big"))),
    ("utf8_bytes", lambda code: list(chr(code).encode()) if code != 0x7FF else [0xE0, 0x9F, 0xBF]),
    ("utf8_bytes", lambda code: list(chr(code).encode()) if code != 0xFFFF else [0xF0, 0x8F, 0xBF, 0xBF]),
    ("utf8_bytes", lambda code: list(chr(code).encode("utf-16-le"))),
    ("utf8_bytes", lambda code: chr(code).encode()),
    ("utf8_bytes", one_byte_too_few),
    ("most_frequent_pair", lambda ids: Counter(pairwise(ids)).most_common(1)[0][0]),
    ("most_frequent_pair", lambda ids: min(pairwise(ids))),
    ("most_frequent_pair", lambda ids: max((n, pair) for pair, n in Counter(pairwise(ids)).items())[1]),
    ("merge", merged_only_once),
    ("merge", merged_from_the_right),
    ("merge", merged_with_for),
    ("merge", lambda ids, pair, new: replaced(replaced(ids, pair, new), pair[::-1], new)),
    ("encode_word", greedy_longest),
    ("encode_word", one_pass_in_reverse),
    ("encode_word", characters),
    ("encode_word", lambda word, merges: list(word.encode())),
    ("bits_per_byte", lambda loss, n_tokens, n_bytes: loss / math.log(2)),
    ("bits_per_byte", lambda loss, n_tokens, n_bytes: loss * n_bytes / n_tokens / math.log(2)),
    ("bits_per_byte", lambda loss, n_tokens, n_bytes: loss * n_tokens / n_bytes),
    ("bits_per_byte", lambda loss, n_tokens, n_bytes: loss * n_tokens / n_bytes * math.log(2)),
]


@pytest.mark.parametrize(("name", "answer"), WRONG)
def test_a_wrong_answer_gets_the_first_hint_and_then_the_second(name, answer, fails_with_both_hints):
    fails_with_both_hints("tokenization", name, answer)


def test_every_exercise_has_a_mistake_that_is_tried():
    assert {name for name, _ in WRONG} == set(exercises("tokenization").names)


def test_another_way_to_the_same_merge_passes():
    assert exercises("tokenization")("merge", replaced).passed
