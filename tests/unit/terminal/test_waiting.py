import os
import sys
from multiprocessing import get_context

import pytest

from groundup.terminal import waiting
from groundup.terminal.waiting import SPIN, SPIN_ROUNDS, before_torch, describe_waiting, look_at_cores, wait_less


@pytest.mark.parametrize("said", [{SPIN: "7"}, {"OMP_WAIT_POLICY": "ACTIVE"}])
def test_what_a_person_says_stays(said):
    environ = dict(said)
    wait_less(environ, lambda: 64.0)
    assert environ == said


def test_where_nobody_says_which_cores_are_ours_all_are(monkeypatch):
    monkeypatch.setattr(waiting.os, "cpu_count", lambda: 8)
    monkeypatch.delattr(waiting.os, "sched_getaffinity", raising=False)
    for in_use, chosen in ((0.2, {}), (0.8, {SPIN: str(SPIN_ROUNDS)})):
        environ = {}
        wait_less(environ, lambda in_use=in_use: in_use)
        assert environ == chosen


@pytest.mark.parametrize(
    ("machine", "ours", "in_use", "sleeps"),
    [(2, 2, 0.1, False), (2, 2, 1.0, True), (2, 2, 2.0, True), (64, 2, 40.0, False), (64, 2, 63.0, True)],
)
def test_threads_sleep_soon_where_others_want_the_cores(monkeypatch, machine, ours, in_use, sleeps):
    monkeypatch.setattr(waiting.os, "cpu_count", lambda: machine)
    monkeypatch.setattr(waiting.os, "sched_getaffinity", lambda process: set(range(ours)), raising=False)
    environ = {}
    wait_less(environ, lambda: in_use)
    assert environ == ({SPIN: str(SPIN_ROUNDS)} if sleeps else {})
    server = {}
    wait_less(server, lambda: in_use, quiet=12_000)
    assert server == {SPIN: str(SPIN_ROUNDS) if sleeps else "12000"}


@pytest.mark.parametrize(
    ("before", "after", "in_use"),
    [
        ("cpu 10 0 10 80 0 0 0 0 0 0", "cpu 13 0 11 92 4 0 0 0 0 0", 4 * 0.2),  # of 20 ticks 12 idle, 4 for a disk
        ("cpu 10 0 10 80 0 0 0 0 0 0", "cpu 10 0 10 80 0 0 0 0 0 0", 0.0),
        ("nonsense", "nonsense", 0.0),
        ("cpu a b", "cpu a b", 0.0),
    ],
)
def test_cores_in_use_are_read_from_the_kernel(monkeypatch, tmp_path, before, after, in_use):
    times = tmp_path / "stat"
    times.write_text(f"{before}\ncpu0 1 2 3\n")
    monkeypatch.setattr(waiting, "KERNEL_TIMES", times)
    monkeypatch.setattr(waiting.os, "cpu_count", lambda: 4)
    monkeypatch.setattr(waiting.time, "sleep", lambda seconds: times.write_text(f"{after}\ncpu0 1 2 3\n"))
    assert look_at_cores() == pytest.approx(in_use)


def test_a_system_without_these_times_is_taken_for_free(monkeypatch, tmp_path):
    monkeypatch.setattr(waiting, "KERNEL_TIMES", tmp_path / "none")
    assert look_at_cores() == 0.0


@pytest.mark.skipif(not waiting.KERNEL_TIMES.exists(), reason="the kernel does not say how busy it is")
def test_programs_that_compute_are_seen(monkeypatch):
    monkeypatch.setattr(waiting, "LOOK_SECONDS", 1.0)
    context = get_context("spawn")
    others = [context.Process(target=_compute, daemon=True) for _ in range(2)]
    for other in others:
        other.start()
    try:
        assert any(look_at_cores() > 0.5 for _ in range(10))
    finally:
        for other in others:
            other.kill()
            other.join()


def _compute():
    while True:
        pass


def test_it_is_chosen_before_pytorch_is_loaded_and_not_after(monkeypatch):
    for name in (SPIN, "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(waiting, "look_at_cores", lambda: 1024.0)
    before_torch()
    assert SPIN not in os.environ
    monkeypatch.delitem(sys.modules, "torch")
    before_torch()
    assert os.environ.pop(SPIN) == str(SPIN_ROUNDS)


def test_what_holds_is_told(monkeypatch):
    for name in (SPIN, "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    assert "default" in describe_waiting()
    monkeypatch.setenv(SPIN, str(SPIN_ROUNDS))
    assert "because other programs use the cores" in describe_waiting()
    monkeypatch.setenv(SPIN, "55")
    assert describe_waiting() == f"55 rounds, then asleep ({SPIN})"
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    assert "OMP_WAIT_POLICY=PASSIVE" in describe_waiting()
