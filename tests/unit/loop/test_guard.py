import json
import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from groundup.loop.guard import ENOUGH, LEAST_DEVIATION, MAX_OVERFLOWS, THRESHOLD, WINDOW, Guard, Window

GENERATOR = torch.Generator().manual_seed(7)
CALM = (3 + 0.1 * torch.randn(400, generator=GENERATOR)).tolist()
"""Losses of a run in which nothing happens."""


def feed(guard, losses, *, norm=1.0, scaled=False):
    return [guard.judge(loss, norm, scaled=scaled) for loss in losses]


def acts(verdicts):
    return [verdict.act for verdict in verdicts]


@pytest.mark.fault("E4", "a NaN, then a loss spike", "the NaN does not blind the detector: the spike is flagged")
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_blinds_nothing(value):
    """llm.c's running sum is blind for ever after one NaN, OLMo's window for 128 steps (it skips them all)."""
    guard = Guard(nonfinite="skip", spikes="skip")
    feed(guard, CALM[:200])
    assert acts(feed(guard, [value])) == ["skip"]
    assert acts(feed(guard, CALM[200:236])) == ["go"] * 36
    assert acts(feed(guard, [50.0])) == ["skip"]
    assert acts(feed(guard, CALM[236:])) == ["go"] * 164


def test_a_spike_does_not_hide_the_next():
    """Mean and standard deviation would: one 500 among 128 values around 3 makes a deviation of 44."""
    guard = Guard(spikes="skip")
    feed(guard, CALM[:200])
    assert acts(feed(guard, [500.0, CALM[200], 50.0, CALM[201], 5.0])) == ["skip", "go", "skip", "go", "skip"]


def test_calm_is_never_flagged_and_neither_is_falling():
    guard = Guard(spikes="stop")
    falling = [11 * 0.99**i + 0.1 * noise for i, noise in enumerate(CALM)]
    assert {v.act for v in feed(guard, CALM)} == {"go"}
    assert {v.act for v in feed(Guard(spikes="stop"), falling)} == {"go"}
    assert not any(v.reason for v in feed(guard, [1.0, 0.0, -5.0]))


def test_a_level_that_stays_becomes_the_new_normal():
    guard = Guard(spikes="skip", max_skips=WINDOW)
    feed(guard, CALM[:WINDOW])
    verdicts = acts(feed(guard, [10 + 0.1 * noise for noise in CALM[:WINDOW]]))
    assert verdicts[: WINDOW // 2] == ["skip"] * (WINDOW // 2)
    assert verdicts[-10:] == ["go"] * 10


def test_the_long_tail_of_gradient_norms_is_no_spike():
    """Ten deviations, but only three medians."""
    guard = Guard(spikes="stop")
    for loss in CALM[:100]:
        guard.judge(loss, loss, scaled=False)
    assert guard.judge(3.0, 9.0, scaled=False).act == "go"
    assert guard.judge(3.0, 16.0, scaled=False).act == "stop"
    assert guard.judge(9.0, 3.0, scaled=False).act == "stop"


@given(st.lists(st.floats(-1e6, 1e6), min_size=ENOUGH, max_size=2 * WINDOW), st.floats(-1e9, 1e9))
def test_deviations_are_counted_in_mads_above_the_median(values, value):
    """Against numbers of the last WINDOW values, sorted and counted by hand."""
    last = sorted(values[-WINDOW:])
    middle = statistics.mean(last[(len(last) - 1) // 2 : len(last) // 2 + 1])
    off = sorted(abs(v - middle) for v in last)
    mad = 1.4826 * statistics.mean(off[(len(off) - 1) // 2 : len(off) // 2 + 1])
    expected = (value - middle) / max(mad, LEAST_DEVIATION * abs(middle), 2**-52)
    window = Window()
    for v in values:
        window.add(v)
    assert window.deviations(value) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_nothing_is_a_spike_before_there_is_enough_to_compare_with():
    guard = Guard(spikes="stop")
    assert {v.act for v in feed(guard, [*CALM[: ENOUGH - 1], 1e9])} == {"go"}
    assert acts(feed(guard, [1e10])) == ["stop"]


@pytest.mark.parametrize(("spikes", "act", "says"), [("off", "go", False), ("warn", "go", True),
                                                     ("skip", "skip", True), ("stop", "stop", True)])  # fmt: skip
@pytest.mark.parametrize("what", ["loss", "gradient norm"])
def test_the_policy_decides_what_becomes_of_a_spike(spikes, act, says, what):
    guard = Guard(spikes=spikes)
    for value in CALM[:100]:
        guard.judge(value, value, scaled=False)
    verdict = guard.judge(50.0 if what == "loss" else CALM[100], 50.0 if what != "loss" else CALM[100], scaled=False)
    assert verdict.act == act
    assert (f"the {what} 50 is a spike" in verdict.reason) == says
    far = float(verdict.reason.split("spike, ")[1].split()[0]) if says else THRESHOLD + 1
    assert far > THRESHOLD


@pytest.mark.parametrize("norm", [1.0, math.nan, math.inf])
@pytest.mark.parametrize("loss", [1.0, math.nan, math.inf])
@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_what_is_not_finite_never_goes(policy, loss, norm):
    verdict = Guard(nonfinite=policy, spikes="off").judge(loss, norm, scaled=False)
    finite = math.isfinite(loss) and math.isfinite(norm)
    assert verdict.act == ("go" if finite else policy)


@pytest.mark.fault("E4", "a spike or NaN in every step", "after guard.max_skips skipped steps in a row the run stops")
def test_skips_in_a_row_stop_and_others_do_not():
    guard = Guard(nonfinite="skip", max_skips=3)
    assert acts(feed(guard, [math.nan, math.nan, 3.0, math.nan, math.nan])) == ["skip", "skip", "go", "skip", "skip"]
    verdict = guard.judge(math.nan, 1.0, scaled=False)
    assert verdict.act == "stop"
    assert "the loss is nan and the gradient norm 1; 3 steps in a row changed nothing" in verdict.reason


@pytest.mark.fault("E5", "fp16 gradients overflow at any loss scale", "50 skipped steps in a row stop the run, aloud")
def test_fp16_overflows_are_skipped_in_silence_but_not_for_ever():
    guard = Guard(nonfinite="stop", spikes="off")
    verdicts = feed(guard, [3.0] * (MAX_OVERFLOWS - 1), norm=math.inf, scaled=True)
    assert set(acts(verdicts)) == {"skip"}
    assert not any(v.reason for v in verdicts)
    last = guard.judge(3.0, math.nan, scaled=True)
    assert last.act == "stop"
    assert last.reason == "fp16 gradients overflow, however small the loss is scaled; 50 steps in a row changed nothing"
    # A loss that is itself not finite has nothing to do with the scale.
    assert Guard(nonfinite="stop").judge(math.nan, math.nan, scaled=True).act == "stop"


@given(st.lists(st.tuples(st.floats(0, 100) | st.just(math.nan), st.floats(0, 100) | st.just(math.inf)), max_size=200),
       st.integers(0, 200))  # fmt: skip
def test_saved_and_restored_it_decides_the_same(steps, at):
    def guards():
        return Guard(nonfinite="skip", spikes="skip")

    whole = guards()
    expected = [whole.judge(*step, scaled=False) for step in steps]
    first = guards()
    before = [first.judge(*step, scaled=False) for step in steps[:at]]
    second = guards()
    second.load_state_dict(json.loads(json.dumps(first.state_dict(), allow_nan=False)))
    assert before + [second.judge(*step, scaled=False) for step in steps[at:]] == expected
    assert second.state_dict() == whole.state_dict()
