import math

import torch

from groundup.inspection.surprise import surprise


def test_by_hand():
    probabilities = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7], [1 / 3, 1 / 3, 1 / 3]])
    found = surprise(probabilities.log(), torch.tensor([2, 1, 0]), k=2)
    torch.testing.assert_close(found.loss, -torch.tensor([0.25, 0.1]).log())
    assert found.rank.tolist() == [1, 2]  # an equal one is not likelier
    assert found.top[1].tolist() == [2, 1]
    torch.testing.assert_close(found.top_probabilities[1], torch.tensor([0.7, 0.2]))
    torch.testing.assert_close(found.entropy[0], torch.tensor(0.5 * math.log(2) + 0.5 * math.log(4)))
