import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import CosineAnnealingLR

from groundup.optim.schedule import cosine_scale, linear_scale, momentum_at


def scale(step, warmup=10, total=100, final=0.1):
    return cosine_scale(step, warmup_steps=warmup, max_steps=total, final=final)


def test_warmup_is_linear_and_moves_from_the_first_step():
    assert [scale(step) for step in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])


def test_peak_half_way_and_end():
    assert scale(10) == 1.0
    assert scale(55) == pytest.approx(0.55)
    assert scale(100) == scale(101) == 0.1


def test_last_step_made_is_close_to_the_minimum_but_not_below():
    assert 0.1 < scale(99) < 0.101


def test_no_warmup_starts_at_the_peak():
    assert scale(0, warmup=0) == 1.0


def test_warmup_longer_than_the_run_never_divides_by_zero():
    assert scale(99, warmup=100, total=100) == 1.0
    assert scale(100, warmup=100, total=100) == 0.1


def test_decay_equals_torch():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = CosineAnnealingLR(optimizer, T_max=90, eta_min=0.1)
    for step in range(10, 100):
        assert scale(step) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        theirs.step()


@given(st.integers(0, 300), st.integers(0, 50), st.integers(1, 200), st.floats(0, 1))
def test_stays_between_zero_and_the_peak(step, warmup, total, final):
    value = cosine_scale(step, warmup_steps=warmup, max_steps=total, final=final)
    assert 0 <= value <= 1
    assert math.isfinite(value)
    if step >= warmup:
        assert value >= final - 1e-12


def test_constant_then_linearly_down():
    def at(step, cooldown=0.5):
        return linear_scale(step, warmup_steps=10, max_steps=100, final=0.1, cooldown=cooldown)

    assert [at(step) for step in (0, 4, 9, 10, 50)] == pytest.approx([0.1, 0.5, 1, 1, 1])
    assert [at(step) for step in (60, 75, 100, 120)] == pytest.approx([0.82, 0.55, 0.1, 0.1])
    assert at(50, cooldown=1.0) == pytest.approx(0.55)


def test_momentum_grows_and_stays():
    assert [momentum_at(s, start=0.85, end=0.95, warmup_steps=100) for s in (0, 50, 100, 500)] == pytest.approx(
        [0.85, 0.9, 0.95, 0.95]
    )
    assert momentum_at(0, start=0.85, end=0.95, warmup_steps=0) == 0.95
