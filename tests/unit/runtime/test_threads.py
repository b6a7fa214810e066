import pytest
import torch

from groundup.runtime import threads as module
from groundup.runtime.threads import SECONDS, FollowCores, take_usual_threads
from groundup.terminal.waiting import THREADS, USUAL_THREADS, Look


@pytest.fixture
def clocks(monkeypatch):
    """The kernel's clocks on four cores: `work` lets time pass, in which we and others use some of them."""

    class Clocks:
        look = Look(idle=0, total=0, ours=0.0, when=0.0)

        def work(self, seconds, *, ours, others):
            then, passed = self.look, round(400 * seconds)
            idle = round(passed * (1 - min(4, ours + others) / 4))
            when = then.when + seconds
            self.look = Look(then.idle + idle, then.total + passed, then.ours + ours * seconds, when)

    clocks = Clocks()
    monkeypatch.delenv(THREADS)
    monkeypatch.setattr(module.os, "cpu_count", lambda: 4)
    monkeypatch.setattr(module.time, "monotonic", lambda: clocks.look.when)
    monkeypatch.setattr(module.Look, "now", classmethod(lambda cls: clocks.look))
    torch.set_num_threads(4)
    return clocks


@pytest.mark.parametrize(("others", "threads"), [(0.2, 4), (1.0, 3), (2.4, 2), (4.0, 1), (9.0, 1)])
def test_threads_follow_what_others_leave(clocks, others, threads):
    follow = FollowCores()
    clocks.work(SECONDS, ours=max(0.5, 4 - others), others=others)
    follow()
    assert torch.get_num_threads() == threads
    clocks.work(SECONDS, ours=0.9 * threads, others=0.0)  # they have gone
    follow()
    assert torch.get_num_threads() == 4


def test_it_looks_now_and_then(clocks):
    follow = FollowCores()
    clocks.work(SECONDS / 2, ours=2, others=2)
    follow()
    assert torch.get_num_threads() == 4
    clocks.work(SECONDS / 2, ours=2, others=2)
    follow()
    assert torch.get_num_threads() == 2


def test_what_others_did_while_we_had_nothing_to_do_is_over(clocks):
    follow = FollowCores()
    clocks.work(60, ours=0.05, others=4)
    follow()
    assert torch.get_num_threads() == 4


def test_there_are_never_more_than_were_asked_for(clocks):
    torch.set_num_threads(2)
    follow = FollowCores()
    clocks.work(SECONDS, ours=2, others=0)
    follow()
    assert torch.get_num_threads() == 2


def test_what_a_person_says_stays(clocks, monkeypatch):
    monkeypatch.setenv(THREADS, "4")
    follow = FollowCores()
    clocks.work(SECONDS, ours=1, others=3)
    follow()
    assert torch.get_num_threads() == 4


def test_a_function_looks_first(clocks):
    seen = []
    report = FollowCores().before(lambda share, *, of: seen.append((share, of, torch.get_num_threads())))
    clocks.work(SECONDS, ours=1, others=3)
    report(0.5, of=2)
    assert seen == [(0.5, 2, 1)]


@pytest.mark.parametrize(("usual", "threads"), [(None, 1), ("1", 1), ("3", 3)])
def test_work_that_waits_seldom_takes_as_many_threads_as_ever_and_says_so(usual, threads, monkeypatch):
    monkeypatch.delenv(USUAL_THREADS, raising=False)
    if usual:
        monkeypatch.setenv(USUAL_THREADS, usual)
    before, said = torch.get_num_threads(), []
    try:
        torch.set_num_threads(1)
        take_usual_threads(said.append)
        assert torch.get_num_threads() == threads
        take_usual_threads(said.append)
    finally:
        torch.set_num_threads(before)
    assert [line.split(": ")[1] for line in said] == ["computing with 3 after all"] * (threads == 3)
