"""Against torch.optim.SparseAdam without momentum, in float64."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from groundup.optim.lazy import LazyRMSProp, gradient_values

ROWS, WIDTH = 7, 3


def table():
    return nn.Parameter(torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64))


def learn(p, optimizer, steps, *, sparse, first=0):
    """Each step uses some rows, some of them often, and pulls them to different places."""
    for number, rows in enumerate(steps, first):
        target = torch.full((WIDTH,), float(number % 3), dtype=torch.float64)
        for part in (rows[::2], rows[1::2]):  # two micro-steps
            if part:
                (F.embedding(torch.tensor(part), p, sparse=sparse) - target).pow(2).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return p.detach()


@given(st.lists(st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=6), min_size=1, max_size=8))
def test_is_lazy_adam_without_momentum_for_both_kinds_of_gradients(steps):
    p, q, r = table(), table(), table()
    wanted = learn(p, torch.optim.SparseAdam([p], lr=0.1, betas=(0.0, 0.9)), steps, sparse=True)
    ours = learn(q, LazyRMSProp([q], lr=0.1, beta2=0.9), steps, sparse=True)
    dense = learn(r, LazyRMSProp([r], lr=0.1, beta2=0.9), steps, sparse=False)
    torch.testing.assert_close(ours, wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(dense, wanted, rtol=1e-12, atol=1e-12)
    unused = sorted(set(range(ROWS)) - {row for rows in steps for row in rows})
    assert torch.equal(ours[unused], table()[unused])


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("beta2", [0.0, 1e-3, 0.5, 0.99])
@pytest.mark.parametrize("sizes", [(30.0, 1e-3), (1e-3, 30.0, 1e-3), (1e4, 1e-6, 1.0, 1e-5)])
def test_a_small_gradient_after_a_large_one(sizes, beta2, sparse):
    """By hand: PyTorch's SparseAdam adds the difference of both squares, in which the small one is lost."""
    p = nn.Parameter(torch.zeros(ROWS, WIDTH))
    optimizer = LazyRMSProp([p], lr=1e-3, beta2=beta2)
    square = wanted = 0.0
    for t, size in enumerate(sizes, 1):
        grad = torch.zeros(ROWS, WIDTH)
        grad[[1, 4]] = size
        p.grad = grad.to_sparse(1) if sparse else grad
        optimizer.step()
        square = beta2 * square + (1 - beta2) * size**2
        wanted -= 1e-3 * size / ((square / (1 - beta2**t)) ** 0.5 + 1e-8 / (1 - beta2**t) ** 0.5)
    assert p[[1, 4]].flatten().tolist() == pytest.approx([wanted] * 2 * WIDTH, rel=1e-5)
    assert not p[[0, 2, 3, 5, 6]].any()


@pytest.mark.parametrize("sparse", [True, False])
def test_goes_on_from_its_saved_state(sparse):
    steps = [[0, 1, 1], [2, 1], [0, 5], [1, 2, 6]]
    p, q = table(), table()
    whole = learn(p, LazyRMSProp([p], lr=0.1), steps, sparse=sparse)
    first = LazyRMSProp([q], lr=0.1)
    learn(q, first, steps[:2], sparse=sparse)
    second = LazyRMSProp([q], lr=0.5)
    second.load_state_dict(first.state_dict())
    assert torch.equal(learn(q, second, steps[2:], sparse=sparse, first=2), whole)


def test_the_values_of_a_gradient_are_those_of_the_dense_one_and_may_be_scaled():
    p, q = table(), table()
    rows = torch.tensor([1, 4, 1])
    for each, sparse in ((p, True), (q, False)):
        F.embedding(rows, each, sparse=sparse).sin().sum().backward()
        values = gradient_values(each)
        torch.testing.assert_close(values.norm(), gradient_values(q if q.grad is not None else p).norm())
        values *= 0.5
    torch.testing.assert_close(p.grad.to_dense(), q.grad)
    assert gradient_values(table()) is None
