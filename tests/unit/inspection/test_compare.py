import math

import pytest
import torch

from groundup.inspection.compare import compare


def test_by_hand():
    first = torch.tensor([[0.5, 0.5], [0.25, 0.75]]).log()
    second = torch.tensor([[0.25, 0.75], [0.25, 0.75]]).log()
    found = compare(first, second, torch.tensor([0, 1]))
    assert found.loss.tolist() == pytest.approx([math.log(2)])
    assert found.other_loss.tolist() == pytest.approx([-math.log(0.75)])
    assert found.divergence.tolist() == pytest.approx([0.5 * math.log(2) + 0.5 * math.log(2 / 3), 0.0], abs=1e-6)
