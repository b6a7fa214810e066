"""Which validation losses of a run can be compared."""

import pytest

from groundup.records.history import lowest_loss
from groundup.records.measured import known_text, of_last_text, val_text

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
