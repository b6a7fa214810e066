"""What the numbers of a run mean, and what they suggest."""

import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.records.explain import headline, smoothed, suggestions


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=60))
def test_smoothed_keeps_the_beginning_and_lags_nowhere(values):
    smooth = smoothed(values)
    assert len(smooth) == len(values)
    assert smooth[0] == values[0]
    for i in range(len(values)):
        reach = min(i // 4, 8)
        window = values[max(0, min(i, len(values) - 1 - reach) - reach) : i + reach + 1]
        expected = statistics.fmean(window)
        if beyond := max(0, i + reach - (len(values) - 1)):
            expected += beyond * statistics.linear_regression(range(len(window)), window).slope
        assert smooth[i] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("reach", [None, 4, 100])
def test_a_straight_line_stays_one(reach):
    line = [0.5 * i for i in range(40)]
    assert smoothed(line, reach=reach) == pytest.approx(line)


@pytest.mark.parametrize(("reach", "share"), [(None, 0.22), (2, 0.6)])
def test_the_last_value_alone_does_not_bend_the_end(reach, share):
    """One value that lies off draws the end by its part in the line of the last window."""
    smooth = smoothed([2.0] * 40 + [3.0], reach=reach)
    assert smooth[-1] - 2 == pytest.approx(share, abs=0.005)
    assert smooth[-4:] == sorted(smooth[-4:])


def run(vals, train):
    rows = [{"step": 0, "tokens": 0, "val/loss": 4.0}]
    for i, val in enumerate(vals, 1):
        rows.append({"step": i, "tokens": i, "train/loss": train})
        rows.append({"step": i, "tokens": i, "val/loss": val})
    return rows


CONFIG = {"max_steps": 100, "model": {"n_layer": 4}}


@pytest.mark.parametrize(
    ("vals", "train", "words", "command"),
    [
        ([2.0, 1.5, 1.9], 0.9, "rose to 1.900", "--model.dropout 0.2"),
        ([2.0, 1.8, 1.6], 1.5, "still falling", "--max-steps 200"),
        ([2.0, 1.6, 1.6], 1.59, "a larger model", "--model.n-layer 8"),
    ],
)
def test_what_to_try_is_judged_from_the_curves(vals, train, words, command):
    why, what = suggestions(run(vals, train), CONFIG, "runs/my run")[0]
    assert words in why
    assert what.startswith("groundup train --config 'runs/my run/config.json'")
    assert command in what


def test_no_larger_model_is_advised_to_a_run_that_goes_on_from_anothers_weights():
    tuned = {**CONFIG, "init_from": "runs/base"}
    assert suggestions(run([2.0, 1.6, 1.6], 1.59), tuned, "r") == suggestions([], tuned, "r")


def test_little_to_judge_from_suggests_looking_and_writing():
    assert [what for _, what in suggestions([], {}, "r")] == ["groundup serve r", "groundup generate r --stream"]


def test_a_short_curve_keeps_its_form():
    """Ten points of a fall: a long curve's reach would make the fifth the mean of nine, 2.31."""
    fall = [4.0, 3.0, 2.5, 2.2, 2.0, 1.9, 1.8, 1.75, 1.7, 1.68]
    short = smoothed(fall)
    assert short[4] == pytest.approx(sum(fall[3:6]) / 3)  # one on either side
    assert smoothed(fall[:3]) == fall[:3]
    assert smoothed(fall, reach=4)[4] == pytest.approx(sum(fall[:9]) / 9)
    assert smoothed([0.0] * 30 + [17.0] + [0.0] * 20)[34] == pytest.approx(1.0)


FALLS = {
    "a power of the steps": lambda i: 1.4 + 2.8 * (1 + i) ** -0.8,
    "fast, to a level": lambda i: 2 + 2.2 * math.exp(-i / 4),
    "a line": lambda i: 4.2 - i / 100,
}


@pytest.mark.parametrize("n", [5, 16, 40, 200])
@pytest.mark.parametrize("fall", FALLS.values(), ids=FALLS)
def test_a_curve_without_noise_is_shown_where_it_is(fall, n):
    curve = [fall(i) for i in range(n)]
    assert smoothed(curve) == pytest.approx(curve, rel=0.01)


def test_noise_becomes_less():
    noise = random.Random(0)
    curve = [FALLS["a power of the steps"](i) for i in range(2000)]
    shown = smoothed([value + noise.gauss(0, 0.1) for value in curve])
    left = [a - b for a, b in zip(shown, curve, strict=True)]
    assert statistics.stdev(left[4:16]) < 0.1
    assert statistics.stdev(left[32:-8]) == pytest.approx(0.1 / 17**0.5, rel=0.1)


@pytest.mark.parametrize(
    ("config", "rows", "number", "words"),
    [
        ({}, [{"step": 5, "val/loss": 1.0}], "1.000", "among 2.7 equally likely ones; before training it was 50,257"),
        (  # of a stopped run: the whole split was not measured
            {},
            [{"step": 0, "val/loss": 4.0}, {"step": 5, "val/loss": 1.0, "val/tokens": 4096}],
            "about 1.00",
            "measured on 4,096 tokens of it: as unsure of the next token as among 2.7 equally likely ones; before",
        ),
        (  # from weights: what it knew before, and not the number of tokens
            {"init_from": "models/gpt2"},
            [{"step": 0, "val/loss": 2.0}, {"step": 5, "val/loss": 1.0}],
            "1.000",
            "among 2.7 equally likely ones; before training it was 7.4",
        ),
    ],
)
def test_the_first_number_is_the_loss_and_what_it_was_before(config, rows, number, words):
    first = headline(rows, config, vocab_size=50257)[0]
    assert first[0] == number
    assert words in first[1]


def test_a_run_that_was_stopped_goes_on():
    rows = [*run([2.0, 1.8, 1.6], 1.5), {"step": 3, "event": "stopped"}]
    assert [what for _, what in suggestions(rows, CONFIG, "runs/a")] == [
        "groundup train --resume runs/a",
        "groundup serve runs/a",
        "groundup generate runs/a --stream",
    ]


@pytest.mark.parametrize(
    ("whole", "words"),
    [([2.2276, 2.2641, 2.2702], "best at 2.228 and rose to 2.270"), ([2.27, 2.26, 2.25], "still falling")],
)
def test_advice_comes_from_losses_of_the_whole_split(whole, words):
    """A part is easier in one step, and harder in the last but one."""
    rows = run(whole, 2.0)
    rows.insert(1, {"step": 1, "tokens": 1, "val/loss": 0.9967, "val/tokens": 65536})
    rows.insert(-1, {"step": 3, "tokens": 3, "val/loss": 2.1, "val/tokens": 65536})
    assert words in suggestions(rows, CONFIG, "runs/a")[0][0]
    few = [{**row, "val/tokens": 65536} if "val/loss" in row else row for row in run(whole, 2.0)]
    assert suggestions(few, CONFIG, "r") == suggestions([], CONFIG, "r")
