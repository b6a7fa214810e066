"""Exercises of the notebook `bigram`."""

import numpy as np
import torch

from groundup.learn.exercises import Answer, Exercise, expect
from groundup.model.bigram import fit_bigram

RANDOM = np.random.default_rng(0).integers(0, 7, size=400)
"""A stream in which most pairs occur, some often."""


def _count_pairs(answer: Answer) -> None:
    expect(answer, [0, 1, 0, 1, 2], 3, want=torch.tensor([[0, 2, 0], [1, 0, 1], [0, 0, 0]]))
    expect(answer, [2, 2, 2], 3, want=torch.tensor([[0, 0, 0], [0, 0, 0], [0, 0, 2]]))
    expect(answer, [1], 2, want=torch.zeros(2, 2))
    # The library stores ln(count + smoothing).
    library = fit_bigram(RANDOM, 7).table.weight.detach().exp() - 1
    expect(answer, RANDOM.tolist(), 7, want=library.round(), shown="400 random ids, 7")


EXERCISES = (
    Exercise(
        name="count_pairs",
        test=_count_pairs,
        hints=(
            "Every id but the last has a successor: walk over both with zip(ids, ids[1:]).",
            "Begin with torch.zeros(vocab_size, vocab_size), then add 1 at [current, following] for each pair.",
        ),
        why="This table is all that a bigram model knows.",
    ),
)
