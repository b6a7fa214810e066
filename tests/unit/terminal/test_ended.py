"""Ctrl-C, SIGTERM and SIGHUP end a command with one line, wherever it stands."""

import signal
import subprocess
import sys
import threading
import time

import pytest

from groundup.terminal.ended import Ended, ended_by_signals

NUMBERS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1]


@pytest.mark.parametrize("number", NUMBERS)
def test_blocks_close_what_they_opened(number):
    closed = []

    def work():
        with ended_by_signals():
            try:
                signal.raise_signal(number)
            finally:
                closed.append(True)

    with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else Ended) as caught:
        work()
    assert closed
    if number != signal.SIGINT:
        assert (str(caught.value), caught.value.code) == (f"ended by {number.name}", 128 + number)


@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda signum, frame: None])
def test_a_signal_that_is_ignored_or_claimed_stays_so(handler):
    before = signal.signal(signal.SIGHUP, handler)
    try:
        with ended_by_signals():
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is handler
    finally:
        signal.signal(signal.SIGHUP, before)


def test_handlers_are_put_back_and_another_thread_leaves_them_alone():
    before = [signal.getsignal(number) for number in NUMBERS]
    with ended_by_signals():
        assert [signal.getsignal(number) for number in NUMBERS] != before
    assert [signal.getsignal(number) for number in NUMBERS] == before

    def elsewhere():
        with ended_by_signals():
            seen.extend(signal.getsignal(number) for number in NUMBERS)

    seen = []
    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == before


@pytest.mark.parametrize("windows", [False, True])
@pytest.mark.parametrize("number", NUMBERS)
def test_what_python_drops_comes_again(number, windows, capsys, monkeypatch):
    if windows:
        monkeypatch.delattr(signal, "pthread_kill")

    class Rings:
        def __del__(self):
            signal.raise_signal(number)

    def work():
        with ended_by_signals():
            Rings()
            went_on.append(True)
            end = time.monotonic() + 20
            while time.monotonic() < end:
                pass
            went_on.append(True)

    went_on = []
    with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else Ended):
        work()
    assert went_on == [True]
    assert capsys.readouterr().err == ""


def test_another_exception_that_is_dropped_is_told_as_before(monkeypatch):
    class Fails:
        def __del__(self):
            raise ValueError("lost")

    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: told.append(str(what.exc_value)))
    with ended_by_signals():
        Fails()
    assert told == ["lost"]


LOADS = """
import sys
from groundup.terminal.ended import ended_by_signals
sys.path.insert(0, sys.argv[1])
with ended_by_signals():
    import drops
print("went on")
"""


@pytest.mark.fault(
    "E2", "Ctrl-C, SIGTERM or SIGHUP while libraries are loaded, which may drop an exception", "one line, at once"
)
@pytest.mark.parametrize("number", NUMBERS)
def test_a_library_cannot_drop_it_while_it_is_imported(tmp_path, number):
    (tmp_path / "drops.py").write_text(
        f"import signal\ntry:\n    signal.raise_signal({int(number)})\nexcept BaseException:\n    pass\n"
    )
    done = subprocess.run([sys.executable, "-c", LOADS, str(tmp_path)], capture_output=True, text=True)
    told = "interrupted" if number == signal.SIGINT else f"ended by {number.name}"
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "", f"groundup: {told}\n")
