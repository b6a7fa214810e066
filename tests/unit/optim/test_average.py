import torch
from torch import nn

from groundup.optim.average import WeightAverage


def test_it_is_the_exponential_moving_average():
    model, generator = nn.Linear(3, 2).double(), torch.Generator().manual_seed(0)
    average = WeightAverage(model, 0.8)
    expected = model.weight.detach().clone()
    for step in range(1, 60):
        with torch.no_grad():
            model.weight.normal_(generator=generator)
        average.update(step)
        decay = min(0.8, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * model.weight.detach()
        torch.testing.assert_close(average.weights["weight"], expected)


def test_applied_it_stands_for_the_weights_and_they_come_back_bit_for_bit():
    model = nn.Linear(3, 2)
    average = WeightAverage(model, 0.9)
    with torch.no_grad():
        model.weight.mul_(1.7)
    average.update(1)
    raw, mean = model.weight.detach().clone(), average.weights["weight"].clone()
    assert not torch.equal(raw, mean)
    with average.applied():
        assert torch.equal(model.weight, mean)
    assert torch.equal(model.weight, raw)
    assert torch.equal(average.weights["weight"], mean)


def test_an_average_that_was_saved_goes_on():
    model = nn.Linear(3, 2)
    average, other = WeightAverage(model, 0.9), WeightAverage(nn.Linear(3, 2), 0.9)
    other.load({name: t.clone() for name, t in average.weights.items()})
    assert all(torch.equal(t, other.weights[name]) for name, t in average.weights.items())
