"""Exercises of the notebook `bigram`."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from groundup.learn.exercises import Answer, Exercise, ask, expect
from groundup.model.bigram import fit_bigram
from groundup.model.loss import lm_loss_sum

STREAM = np.random.default_rng(0).integers(0, 7, size=400)
"""Ids in which most pairs occur, some of them often."""


def _count_pairs(answer: Answer) -> None:
    expect(answer, [0, 1, 0, 1, 2], 3, want=torch.tensor([[0, 2, 0], [1, 0, 1], [0, 0, 0]]))
    expect(answer, [2, 2, 2], 3, want=torch.tensor([[0, 0, 0], [0, 0, 0], [0, 0, 2]]))
    expect(answer, [1], 2, want=torch.zeros(2, 2))
    # The library keeps ln(count + smoothing).
    library = fit_bigram(STREAM, 7).table.weight.detach().exp() - 1
    expect(answer, STREAM.tolist(), 7, want=library.round(), shown="400 random ids, 7")


def _probabilities(answer: Answer) -> None:
    expect(answer, torch.tensor([[1.0, 3.0], [2.0, 0.0]]), 0, want=torch.tensor([[0.25, 0.75], [1.0, 0.0]]))
    expect(answer, torch.tensor([[1.0, 3.0], [2.0, 0.0]]), 1, want=torch.tensor([[1 / 3, 2 / 3], [0.75, 0.25]]))
    expect(answer, torch.tensor([[0.0, 0.0], [9.0, 0.0]]), 0.5, want=torch.tensor([[0.5, 0.5], [0.95, 0.05]]))
    counts = torch.randint(9, (5, 5)).double()
    library = (counts + 2).log().softmax(dim=-1)
    expect(answer, counts, 2, want=library, shown="5x5 random counts, 2")


def _draw(answer: Answer) -> None:
    p = torch.tensor([0.25, 0.5, 0.25])
    for r, want in ((0.0, 0), (0.2, 0), (0.25, 1), (0.5, 1), (0.7, 1), (0.75, 2), (0.99, 2)):
        got = ask(answer, p, r)
        assert float(got) == want, f"draw({p.tolist()}, {r}) should give {want}\nand gives {got}."
    expect(answer, torch.tensor([0.0, 1.0]), 0.0, want=1)
    p = torch.rand(50, dtype=torch.float64)
    p /= p.sum()
    for r in torch.rand(20, dtype=torch.float64).tolist():
        want = int(torch.searchsorted(p.cumsum(0), r, right=True))
        expect(answer, p, r, want=want, shown=f"50 random probabilities, {r:.3f}")


def _loss(answer: Answer) -> None:
    table = torch.tensor([[0.5, 0.5], [0.9, 0.1]])
    expect(answer, table, torch.tensor([0, 1]), want=math.log(2))
    expect(answer, table, torch.tensor([0, 1, 1]), want=(math.log(2) - math.log(0.1)) / 2)
    expect(answer, torch.full((4, 4), 0.25), torch.tensor([3, 1, 2, 0, 0]), want=math.log(4))
    # Against the library, which starts from logits and sums.
    logits = torch.randn(7, 7)
    ids = torch.from_numpy(STREAM)
    library = lm_loss_sum(logits[ids[None, :-1]], ids[None, 1:]).item() / (len(ids) - 1)
    expect(answer, logits.softmax(dim=-1), ids, want=library, tolerance=1e-5, shown="a random 7x7 table, 400 ids")


def _gradient(answer: Answer) -> None:
    expect(answer, torch.zeros(4), 1, want=torch.tensor([0.25, -0.75, 0.25, 0.25]))
    expect(answer, torch.tensor([math.log(3), 0.0]), 0, want=torch.tensor([-0.25, 0.25]))
    for target in (0, 3, 8):
        logits = torch.randn(9, dtype=torch.float64).mul(3).requires_grad_()
        loss = F.cross_entropy(logits[None], torch.tensor([target]))
        (gradient,) = torch.autograd.grad(loss, logits)
        expect(answer, logits.detach(), target, want=gradient, shown=f"9 random logits, {target}")


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
    Exercise(
        name="probabilities",
        test=_probabilities,
        hints=(
            "Add the smoothing first. Then divide each row by its own sum, which takes a sum over one dimension.",
            "counts.sum(dim=1) has shape (V,) and would divide columns; with keepdim=True it has (V, 1) and fits.",
        ),
        why="A row is now a distribution to draw from, and nothing in it is impossible.",
    ),
    Exercise(
        name="draw",
        test=_draw,
        hints=(
            "Walk along the pieces and keep the sum of those passed; stop at the first whose sum is above r.",
            "p.cumsum(0) holds the sums; count how many of them are <= r: (p.cumsum(0) <= r).sum().",
        ),
        why="Every text that any model ever wrote was drawn like this, symbol by symbol.",
    ),
    Exercise(
        name="loss",
        test=_loss,
        hints=(
            "The current ids are ids[:-1], the next ones ids[1:]; a table can be indexed with both at once.",
            "p[ids[:-1], ids[1:]] is the probability of each step. Take .log(), then the mean, then turn the sign.",
        ),
        why="GPT-2 was trained on this very number, from the first step to the last.",
    ),
    Exercise(
        name="gradient",
        test=_gradient,
        hints=(
            "The softmax is the prediction; the truth is a vector of zeros with a one at target.",
            "Take p = logits.softmax(dim=-1), and then 1 away from p[target].",
        ),
        why="Prediction minus truth: every gradient in every language model begins with it.",
    ),
)
