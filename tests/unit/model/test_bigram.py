import numpy as np
import torch

from groundup.model.bigram import fit_bigram
from groundup.model.loss import LossModule


def test_counting_is_the_minimum_of_the_loss():
    """Without smoothing, the counted table is where gradient descent would end: its gradient is zero."""
    rng = np.random.default_rng(0)
    ids = rng.integers(4, size=2000)
    model = fit_bigram(ids, 4, smoothing=0.0)
    stream = torch.from_numpy(ids)
    loss = LossModule(model)(stream[None, :-1], stream[None, 1:]) / (len(ids) - 1)
    loss.backward()
    assert model.table.weight.grad.abs().max() < 1e-6


def test_probabilities_are_relative_counts():
    ids = np.array([0, 1, 0, 1, 0, 0])
    probabilities = fit_bigram(ids, 2, smoothing=1.0)(torch.tensor([[0, 1]])).softmax(-1)
    expected = torch.tensor([[(1 + 1) / 5, (2 + 1) / 5], [(2 + 1) / 4, (0 + 1) / 4]])
    torch.testing.assert_close(probabilities[0], expected)


def test_small_id_types_do_not_overflow():
    ids = np.array([250, 255, 250], dtype=np.uint8)
    model = fit_bigram(ids, 256, smoothing=0.5)
    assert model(torch.tensor([[250]])).argmax() == 255
