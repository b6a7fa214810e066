"""Contestants live in processes of their own, so those of these tests are written into a module of their own."""

import importlib
import multiprocessing
import sys

import pytest

from groundup.config.errors import UserError
from groundup.contestants.contest import Timing, median_ratio, race

CONTESTANTS = """
import os
from pathlib import Path
from time import sleep

from groundup.contestants import contest


def _noting(name, options):
    file = Path(options) / "notes"

    def work():
        with file.open("a") as notes:
            notes.write(f"{name} {os.getpid()}\\n")

    return work, lambda: 1000 + len(name)


def a(options): return _noting("a", options)
def bb(options): return _noting("bb", options)
def ccc(options): return _noting("ccc", options)


class Clock:
    now = 0.0

    def perf_counter(self):
        return self.now


def _taking(seconds):
    contest.time = clock = Clock()  # in this contestant's own process

    def work():
        clock.now += seconds

    return work, lambda: 1


def slow(options): return _taking(3.0)
def quick(options): return _taking(2.0)


def _meeting(mine, other, options):
    (Path(options) / mine).touch()
    while not (Path(options) / other).exists():
        sleep(0.01)
    return _noting(mine, options)


def left(options): return _meeting("left", "right", options)
def right(options): return _meeting("right", "left", options)


def broken(options):
    raise ImportError("no module named 'peer'\\n  install it first")


def broken_work(options):
    return (lambda: 1 / 0), lambda: 1


def dies(options):
    os._exit(3)


def dies_later(options):
    count = []

    def work():
        count.append(1)
        if len(count) > 7:
            os._exit(3)

    return work, lambda: 1
"""


@pytest.fixture
def contestants(tmp_path, monkeypatch):
    (tmp_path / "contestants_of_a_test.py").write_text(CONTESTANTS)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("contestants_of_a_test")
    del sys.modules["contestants_of_a_test"]


@pytest.fixture(autouse=True)
def nobody_is_left_behind():
    yield
    assert multiprocessing.active_children() == []


def test_turns_rotate_and_every_unit_of_work_is_done(contestants, tmp_path):
    names = {"a": contestants.a, "bb": contestants.bb, "ccc": contestants.ccc}
    timings = race(names, str(tmp_path), rounds=4, runs=2, warmup=3)
    lines = [line.split() for line in (tmp_path / "notes").read_text().splitlines()]
    done = [name for name, _ in lines]
    warm, rounds = done[:9], done[9:]
    assert warm == ["a"] * 3 + ["bb"] * 3 + ["ccc"] * 3
    order = [["a", "bb", "ccc"], ["bb", "ccc", "a"], ["ccc", "a", "bb"], ["a", "bb", "ccc"]]
    assert rounds == [name for turn in order for name in turn for _ in range(2)]
    assert len({pid for _, pid in lines}) == 3  # a process each
    assert list(timings) == list(names)
    for name, timing in timings.items():
        assert len(timing.seconds) == 4
        assert timing.peak_memory == 1000 + len(name)


def test_each_start_has_new_processes(contestants, tmp_path):
    timings = race({"a": contestants.a, "bb": contestants.bb}, str(tmp_path), starts=3, rounds=2, runs=2, warmup=1)
    lines = [line.split() for line in (tmp_path / "notes").read_text().splitlines()]
    assert [name for name, _ in lines] == 3 * ["a", "bb", *2 * ["a"], *4 * ["bb"], *2 * ["a"]]
    assert len({pid for _, pid in lines}) == 6
    assert [len(timing.seconds) for timing in timings.values()] == [6, 6]
    assert [timing.peak_memory for timing in timings.values()] == [1001, 1002]


def test_seconds_are_per_unit_of_work(contestants):
    timings = race({"slow": contestants.slow, "quick": contestants.quick}, None, rounds=3, runs=4, warmup=2)
    assert timings["slow"].seconds == [3.0] * 3
    assert timings["quick"].seconds == [2.0] * 3
    assert median_ratio(timings["quick"], timings["slow"]) == 1.5


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken", "the contestant x cannot run: ImportError: no module named 'peer' install it first"),
        ("broken_work", "the contestant x cannot run: ZeroDivisionError: division by zero"),
        ("dies", "the contestant x died"),
        ("dies_later", "the contestant x died"),
    ],
)
def test_a_contestant_that_fails_is_one_clear_line(contestants, name, message):
    with pytest.raises(UserError) as caught:
        race({"x": getattr(contestants, name)}, None, rounds=2, runs=4)
    assert str(caught.value) == message


def test_those_that_get_ready_together_do_not_wait_for_each_other(contestants, tmp_path):
    race({"left": contestants.left, "right": contestants.right}, str(tmp_path), rounds=1, runs=1, together=True)
    assert len((tmp_path / "notes").read_text().splitlines()) == 12


@pytest.mark.parametrize("together", [False, True])
def test_failures_are_told_and_the_others_go_on(contestants, together):
    failures = {}
    names = {"broken": contestants.broken, "slow": contestants.slow, "late": contestants.dies_later}
    timings = race(names, None, rounds=2, runs=4, together=together, failures=failures)
    assert list(timings) == ["slow"]
    assert timings["slow"].seconds == [3.0, 3.0]
    assert failures["late"] == "the contestant late died"
    assert "no module named 'peer'" in failures["broken"]


def test_medians_are_over_rounds():
    ours, theirs = Timing([1.0, 2.0, 10.0], 0), Timing([2.0, 3.0, 10.0], 0)
    assert ours.median == 2.0
    # Round by round: 2, 1.5 and 1. A slow round is slow for both and does not move the ratio.
    assert median_ratio(ours, theirs) == 1.5
    with pytest.raises(ValueError, match="zip"):
        median_ratio(ours, Timing([1.0], 0))
