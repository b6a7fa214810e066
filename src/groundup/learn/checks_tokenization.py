"""Exercises of the notebook `tokenization`."""

import math
from functools import cache

import numpy as np

from groundup.corpora.shakespeare import Shakespeare
from groundup.evaluation.loss import LossResult
from groundup.learn.exercises import Answer, Exercise, expect
from groundup.tokenizer.bpe import ByteBPE
from groundup.tokenizer.bpe_train import train_bpe


def _utf8_bytes(answer: Answer) -> None:
    # The first and the last of each length, and some in between.
    for code in (0x41, 0x7F, 0x80, 0xE9, 0x7FF, 0x800, 0x8A9E, 0xFFFF, 0x10000, 0x1F642, 0x10FFFF):
        expect(answer, code, want=list(chr(code).encode()), shown=f"0x{code:X}")


def _most_frequent_pair(answer: Answer) -> None:
    expect(answer, [5, 1, 2, 9, 1, 2], want=(1, 2))
    expect(answer, [7, 7, 7, 1, 2, 3], want=(7, 7))
    expect(answer, [9, 8, 3, 4, 0], want=(3, 4))
    expect(answer, [2, 9, 2, 1, 2, 9, 2, 1], want=(2, 1))
    # One merge of the library's trainer, on words without a space between them.
    for seed in range(20):
        data = np.random.default_rng(seed).integers(97, 101, size=60)
        (first,) = train_bpe([bytes(data.tolist()).decode()], 257, specials=()).merges
        expect(answer, data.tolist(), want=first)


def _merge(answer: Answer) -> None:
    expect(answer, [5, 1, 2, 9, 1, 2], (1, 2), 256, want=[5, 256, 9, 256])
    expect(answer, [7, 7, 7], (7, 7), 256, want=[256, 7])
    expect(answer, [7, 7, 7, 7], (7, 7), 256, want=[256, 256])
    expect(answer, [1, 2, 2, 1], (1, 2), 300, want=[300, 2, 1])
    expect(answer, [2, 1], (1, 2), 256, want=[2, 1])
    expect(answer, [], (1, 2), 256, want=[])
    expect(answer, [1, 256, 2], (256, 2), 257, want=[1, 257])


@cache
def _learned() -> ByteBPE:
    """A vocabulary of one play, large enough that the order of merges matters."""
    plays = Shakespeare()
    return train_bpe((document.text for document in plays.read(plays.parts()[0], {})), 1500, specials=())


def _encode_word(answer: Answer) -> None:
    expect(answer, "aaaa", [(97, 97), (256, 256)], want=[257])
    expect(answer, "abc", [(98, 99), (97, 98)], want=[97, 256])
    expect(answer, "abab", [(97, 98)], want=[256, 256])
    expect(answer, "é", [], want=[0xC3, 0xA9])
    expect(answer, "", [(97, 97)], want=[])
    learned = _learned()
    for word in (" tomorrow", " multitudinous", "honorificabilitudinitatibus", " naïve", "aaaaaaaaa"):
        want = learned.merge_word(word.encode())
        expect(answer, word, learned.merges, want=want, shown=f"{word!r}, {len(learned.merges)} merges of a play")


def _bits_per_byte(answer: Answer) -> None:
    expect(answer, math.log(2), 100, 100, want=1.0)
    expect(answer, math.log(256), 500, 500, want=8.0)
    expect(answer, 3.0, 1000, 4000, want=LossResult(nats=3000.0, n_tokens=1000, n_bytes=4000).bits_per_byte)
    expect(answer, 1.5, 4785, 4810, want=LossResult(nats=1.5 * 4785, n_tokens=4785, n_bytes=4810).bits_per_byte)


EXERCISES = (
    Exercise(
        name="utf8_bytes",
        test=_utf8_bytes,
        hints=(
            "Two bytes hold 5 + 6 bits, three 4 + 6 + 6, four 3 + 6 + 6 + 6. The last byte is 0x80 | code & 0x3F.",
            "Three bytes: [0xE0 | code >> 12, 0x80 | code >> 6 & 0x3F, 0x80 | code & 0x3F]; 0xC0 opens two, 0xF0 four.",
        ),
        why="Any text in the world is now a list of numbers below 256.",
    ),
    Exercise(
        name="most_frequent_pair",
        test=_most_frequent_pair,
        hints=(
            "collections.Counter(zip(ids, ids[1:])) counts. Counter.most_common does not know our rule for ties.",
            "The smallest of what sorts first: min(counts, key=lambda pair: (-counts[pair], pair)).",
        ),
        why="The whole of training a tokenizer is this function and the next, in a loop.",
    ),
    Exercise(
        name="merge",
        test=_merge,
        hints=(
            "Walk with an index, not with for: after a merge you go on two places further, otherwise one.",
            "while i < len(ids): if tuple(ids[i : i + 2]) == pair, append new, i += 2; else append ids[i], i += 1.",
        ),
        why="Each merge makes the text shorter and the vocabulary longer by one.",
    ),
    Exercise(
        name="encode_word",
        test=_encode_word,
        hints=(
            "Give each pair a rank: {pair: i for i, pair in enumerate(merges)}. Which pair of the word has the lowest?",
            "Loop: pair = min(zip(ids, ids[1:]), key=lambda p: rank.get(p, inf)); stop if it has none, else merge.",
        ),
        why="That is GPT-2's encoder, but for the regular expression in front of it.",
    ),
    Exercise(
        name="bits_per_byte",
        test=_bits_per_byte,
        hints=(
            "loss * n_tokens is what the whole text costs, in nats. Share it among the bytes, and change the unit.",
            "loss * n_tokens / n_bytes / math.log(2).",
        ),
        why="The library logs it as val/bpb; it is the number to compare models by.",
    ),
)
