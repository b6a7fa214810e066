import signal

import pytest

from groundup.distributed.ranks import World
from groundup.distributed.signals import AGAIN, StopRequest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_the_first_signal_is_a_request(number):
    with StopRequest() as stop:
        assert not stop.requested
        signal.raise_signal(number)
        assert not stop.requested  # before the other ranks know
        stop.agree(World())
        assert stop.requested
        assert stop.signum == number
    assert stop.exit_code == 128 + number


def test_the_second_ctrl_c_acts_at_once():
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        stop.agree(World())
    assert stop.exit_code == 130


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_what_is_passed_on_twice_is_one_request(monkeypatch, first, number):
    seen, now = [], 100.0
    monkeypatch.setattr("groundup.distributed.signals.time.monotonic", lambda: now)
    before = signal.signal(number, lambda signum, frame: seen.append(signum))
    try:
        with StopRequest() as stop:
            signal.raise_signal(first)
            now += AGAIN / 2
            signal.raise_signal(number)
            assert (stop.heard, seen) == (first, [])
            now += AGAIN
            signal.raise_signal(number)
            assert seen == [number]
    finally:
        signal.signal(number, before)


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            signal.raise_signal(signal.SIGHUP)
            stop.agree(World())
            assert not stop.requested
    finally:
        signal.signal(signal.SIGHUP, before)


def test_after_a_request_the_other_signal_acts_at_once_too():
    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        with StopRequest():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
        assert seen == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("error", [None, RuntimeError])
def test_handlers_are_put_back(error):
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
    before = [signal.getsignal(number) for number in numbers]
    try:
        with StopRequest():
            assert [signal.getsignal(number) for number in numbers] != before
            if error:
                raise error
    except RuntimeError:
        pass
    assert [signal.getsignal(number) for number in numbers] == before


def test_ctrl_c_is_answered_at_once(capfd):
    with StopRequest("stopping; again ends at once"):
        assert capfd.readouterr().err == ""
        signal.raise_signal(signal.SIGINT)
        assert capfd.readouterr().err == "\nstopping; again ends at once\n"


def test_time_that_is_up_is_no_failure():
    with StopRequest() as stop:
        stop.time_is_up()
        stop.agree(World())
        assert stop.requested
        assert stop.exit_code == 0


def test_a_signal_that_came_first_decides_the_exit_code():
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGTERM)
        stop.time_is_up()
        stop.agree(World())
        assert stop.exit_code == 143
