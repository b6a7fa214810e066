"""Which validation losses of a run can be compared."""

import pytest

from groundup.records.history import last_row, lowest_loss, of_curve, whole_looks
from groundup.records.measured import known_text, of_last_text, of_whole_split, val_text

ROWS = [
    {"step": 10, "val/loss": 1.0, "val/bpb": 2.0},
    {"step": 10, "val/loss": 5.0, "val/text": 1},
    {"step": 11, "train/loss": 2.0},
    {"step": 20, "val/loss": 4.0, "val/text": 1},
    {"step": 30, "val/loss": 4.5, "val/text": 1},
]


def test_only_losses_on_the_last_text_are_compared():
    assert lowest_loss(ROWS) == ROWS[3]
    assert lowest_loss(ROWS[:1]) == ROWS[0]
    assert of_last_text(ROWS) == [{"step": 10}, *ROWS[1:]]
    # A run that went back to the checkpoint before the change, and to its text.
    back = [*ROWS[:2], {"step": 20, "val/loss": 3.0}]
    assert lowest_loss(back) == ROWS[0]
    assert of_last_text(back) == [ROWS[0], {"step": 10}, back[2]]


@pytest.mark.parametrize("odd", [None, 1.0])
def test_a_line_whose_text_is_odd_is_of_a_text_all_the_same(odd):
    assert lowest_loss([{"step": 1, "val/loss": 3.0, "val/text": odd}])["val/loss"] == 3.0


def test_a_text_is_its_data_and_how_much_of_it_is_measured():
    assert val_text("ab", 1000, 0) == val_text("ab", 1000, 1000) == val_text("ab", 1000, 5000)
    assert len({val_text("ab", 1000, 0), val_text("ab", 1000, 999), val_text("ac", 1000, 0)}) == 3


def test_what_a_run_json_is_of():
    text = val_text("ab", 1000, 50)
    assert known_text({"val_text": text, "data_fingerprint": "xy"}, 1000) == text
    old = {"data_fingerprint": "ab", "config": {"eval": {"max_tokens": 50}}}
    assert known_text(old, 1000) == text
    for odd in ({}, {**old, "config": {}}, {**old, "config": {"eval": None}}, {"data_fingerprint": "ab"}):
        assert known_text(odd, 1000) == ""


PARTS = [
    {"step": 0, "val/loss": 4.0, "val/tokens": 9},
    {"step": 25, "val/loss": 1.0, "val/bpb": 1.5, "val/tokens": 65},
    {"step": 40, "val/loss": 2.0},
    {"step": 50, "val/loss": 0.9, "val/tokens": 65},
]


def test_the_loss_of_a_part_of_the_split_is_none_of_the_whole():
    assert of_whole_split(PARTS) == [PARTS[0], {"step": 25}, PARTS[2], {"step": 50}]
    assert whole_looks(PARTS) == [PARTS[0], PARTS[2]]
    assert lowest_loss(PARTS) == last_row(PARTS, {}) == PARTS[2]
    assert last_row(PARTS[:2], {}) == {}  # of random weights nobody keeps the loss
    trained = [{"step": 0, "val/loss": 2.5}, PARTS[1]]
    assert last_row(trained, {"init_from": "models/gpt2"}) == trained[0]


def test_a_curve_has_parts_of_the_split_only_before_the_whole():
    assert of_curve(PARTS) == [*PARTS[:3], {"step": 50}]
    trained = [{"step": 0, "val/loss": 2.5}, *PARTS[1:]]
    assert of_curve(trained) == [trained[0], {"step": 25}, PARTS[2], {"step": 50}]
    for early in ([*PARTS[:2], {"step": 60, "val/loss": None}], trained[:2]):
        assert of_curve(early) == early  # better than none
