import math
import os
import subprocess
import sys

import pytest

from groundup.terminal import waiting
from groundup.terminal.waiting import (
    LOOKS,
    SERVER_ROUNDS,
    SPIN,
    SPIN_ROUNDS,
    THREADS,
    USUAL_THREADS,
    Look,
    before_torch,
    choose_threads,
    describe_waiting,
    look_at_cores,
    whole_cores,
    without_our_rounds,
)


@pytest.fixture
def machine(monkeypatch):
    """Gives a machine so many cores, of which so many are ours, each with so many threads."""

    def build(cores, ours, threads_per_core=1, allowed=math.inf):
        monkeypatch.setattr(waiting, "cores_allowed", lambda: allowed)
        monkeypatch.setattr(waiting.os, "cpu_count", lambda: cores)
        monkeypatch.setattr(waiting.os, "sched_getaffinity", lambda process: set(range(ours)), raising=False)
        monkeypatch.setattr(waiting, "whole_cores", lambda: cores // threads_per_core)

    return build


@pytest.mark.parametrize("said", [{SPIN: "7"}, {"OMP_WAIT_POLICY": "ACTIVE"}])
def test_what_a_person_says_stays(machine, said):
    machine(8, 8)
    environ = dict(said)
    assert choose_threads(environ, lambda: 7.0) == ""
    assert environ == said


def test_a_number_of_threads_that_a_person_says_stays(machine):
    machine(8, 8)
    environ = {THREADS: "5"}
    assert choose_threads(environ, lambda: 7.0) == ""
    assert environ == {THREADS: "5", SPIN: str(SPIN_ROUNDS)}


def test_where_nobody_says_which_cores_are_ours_all_are(machine, monkeypatch):
    machine(8, 8)
    monkeypatch.delattr(waiting.os, "sched_getaffinity", raising=False)
    for in_use, chosen in ((0.2, {}), (0.8, {SPIN: str(SPIN_ROUNDS), THREADS: "7"})):
        environ = {}
        choose_threads(environ, lambda in_use=in_use: in_use)
        assert environ == chosen


@pytest.mark.parametrize(
    ("cores", "ours", "in_use", "threads"),
    [(2, 2, 0.1, None), (2, 2, 1.0, 1), (2, 2, 2.0, 1), (64, 2, 40.0, None), (64, 2, 63.0, 1), (16, 16, 6.2, 10)],
)
def test_threads_are_as_many_as_others_leave_cores_and_sleep_soon(machine, cores, ours, in_use, threads):
    machine(cores, ours)
    environ = {}
    note = choose_threads(environ, lambda: in_use)
    fewer = {SPIN: str(SPIN_ROUNDS), THREADS: str(threads)} | ({USUAL_THREADS: str(ours)} if in_use >= cores else {})
    assert environ == ({} if threads is None else fewer)
    if threads is None:
        assert note == ""
    else:
        plural = "" if threads == 1 else "s"
        assert f"others use {in_use} of {cores}" in note.replace("other programs", "others")
        assert f"with {threads} thread{plural} in place of {ours}" in note
    server = {}
    assert choose_threads(server, lambda: in_use, quiet=12_000, fewer=False) == ""
    assert server == {SPIN: "12000" if threads is None else str(SPIN_ROUNDS)}


def test_a_core_with_two_threads_counts_once_as_pytorch_counts(machine):
    machine(16, 16, threads_per_core=2)
    for in_use, chosen in ((1.0, {}), (7.0, {}), (10.0, {THREADS: "6"})):
        environ = {}
        choose_threads(environ, lambda in_use=in_use: in_use)
        environ.pop(SPIN, None)
        assert environ == chosen


@pytest.mark.parametrize(("allowed", "threads"), [(1.0, 1), (2.4, 2), (0.3, 1), (8.0, None), (99.0, None)])
def test_a_container_has_as_many_threads_as_it_has_cores_and_says_nothing(machine, allowed, threads):
    machine(8, 8, allowed=allowed)
    for how in ({}, {"fewer": False}, {"quiet": 12_000}):
        environ = {SPIN: "5"} if not how else {}
        assert choose_threads(environ, lambda: 0.1, **how) == ""
        assert environ.get(THREADS) == (None if threads is None else str(threads))


def test_others_take_cores_of_a_container_where_none_are_free(machine):
    machine(8, 8, allowed=4.0)
    for in_use, threads, told in ((3.0, "4", False), (6.0, "2", True)):
        environ = {}
        note = choose_threads(environ, lambda in_use=in_use: in_use)
        assert environ[THREADS] == threads
        assert ("in place of 4" in note) == told


def test_what_is_over_with_the_next_look_changes_nothing(machine):
    machine(2, 2)
    looks = iter([2.0] * (LOOKS - 1) + [0.0])
    environ = {}
    assert choose_threads(environ, lambda: next(looks)) == ""
    assert environ == {}


def test_a_process_that_a_server_starts_chooses_for_itself(machine):
    machine(2, 2)
    environ = {"HOME": "/h"}
    choose_threads(environ, lambda: 0.0, quiet=SERVER_ROUNDS)
    assert environ == {"HOME": "/h", SPIN: str(SERVER_ROUNDS)}
    assert without_our_rounds(environ) == {"HOME": "/h"}
    assert without_our_rounds({SPIN: "77"}) == {SPIN: "77"}  # a person's


def test_whole_cores_are_counted_by_their_siblings(monkeypatch, tmp_path):
    for number, siblings in enumerate(["0,2", "1,3", "0,2", "1,3"]):
        folder = tmp_path / f"cpu{number}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(siblings)
    monkeypatch.setattr(waiting, "CORES", tmp_path)
    assert whole_cores() == 2
    monkeypatch.setattr(waiting, "CORES", tmp_path / "none")
    assert whole_cores() == (os.cpu_count() or 1)


def test_what_this_process_computes_is_not_others_work(monkeypatch):
    monkeypatch.setattr(waiting.os, "cpu_count", lambda: 4)
    before = Look(idle=100, total=1000, ours=5.0, when=10.0)
    after = Look(idle=300, total=1400, ours=6.5, when=11.0)  # of four cores two were used, by us one and a half
    assert after.own_cores_since(before) == 1.5
    assert after.others_since(before) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("before", "after", "in_use"),
    [
        ("cpu 10 0 10 80 0 0 0 0 0 0", "cpu 13 0 11 92 4 0 0 0 0 0", 4 * 0.2),  # of 20 ticks 12 idle, 4 for a disk
        ("cpu 10 0 10 80 0 0 0 5 0 0", "cpu 13 0 11 92 0 0 0 9 0 0", 4 * 0.2),  # 4 of another virtual machine
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
    monkeypatch.setattr(waiting.time, "process_time", lambda: 7.0)  # we did nothing
    monkeypatch.setattr(waiting.time, "sleep", lambda seconds: times.write_text(f"{after}\ncpu0 1 2 3\n"))
    assert look_at_cores() == pytest.approx(in_use)


def test_a_system_without_these_times_is_taken_for_free(monkeypatch, tmp_path):
    monkeypatch.setattr(waiting, "KERNEL_TIMES", tmp_path / "none")
    assert look_at_cores() == 0.0


@pytest.mark.skipif(not waiting.KERNEL_TIMES.exists(), reason="the kernel does not say how busy it is")
def test_programs_that_compute_are_seen(monkeypatch):
    monkeypatch.setattr(waiting, "LOOK_SECONDS", 1.0)
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        assert any(look_at_cores() > 0.5 for _ in range(10))
    finally:
        for other in others:
            other.kill()
            other.wait()


def test_it_is_chosen_before_pytorch_is_loaded_and_not_after(machine, monkeypatch, capsys):
    machine(2, 2)
    for name in (THREADS, SPIN, "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(waiting, "look_at_cores", lambda: 1.0)
    before_torch()
    assert SPIN not in os.environ
    monkeypatch.delitem(sys.modules, "torch")
    for device, gone, how, threads in (
        ("auto", ("cuda", "mps"), {}, "1"),
        ("auto", ("mps",), {}, None),  # there may be a GPU
        ("cpu", (), {}, "1"),
        ("cpu", (), {"fewer": False}, None),
        ("cpu", (), {"serving": True}, None),
    ):
        monkeypatch.setattr(waiting, "is_absent", lambda device, gone=gone: device in gone)
        before_torch(device, **how)
        assert os.environ.pop(SPIN) == str(SPIN_ROUNDS)
        assert os.environ.pop(THREADS, None) == threads
        assert ("groundup: other programs use 1.0 of 2 cores" in capsys.readouterr().err) == (threads == "1")


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
