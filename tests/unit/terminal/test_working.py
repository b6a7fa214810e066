import io
import threading
import types

import pytest
from rich.console import Console

from groundup.terminal import working as module
from groundup.terminal.working import Working


@pytest.fixture(autouse=True)
def _terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")


def live(out):
    out.isatty = lambda: True
    return Console(file=out, force_terminal=True, width=120, color_system=None)


class Printed(io.StringIO):
    """Output that can be waited for."""

    def __init__(self, *, lines):
        super().__init__()
        self._lines, self.there = lines, threading.Event()

    def write(self, text):
        n = super().write(text)
        if self.getvalue().count("\n") >= self._lines:
            self.there.set()
        return n


@pytest.fixture
def no_clock(monkeypatch):
    """However long it takes, it took 0 s."""
    monkeypatch.setattr(module, "clock", lambda seconds: "0 s")


@pytest.fixture
def hand(monkeypatch):
    """Time that stands still unless it is set."""
    times = {"now": 100.0}
    monkeypatch.setattr(module, "time", types.SimpleNamespace(monotonic=lambda: times["now"]))
    return times


def test_a_terminal_sees_what_how_long_and_how_long_at_most(hand):
    out = io.StringIO()
    with Working("loading PyTorch", live(out)) as working:
        hand["now"] = 103.0
        working._spinner.refresh()
        assert "loading PyTorch 3 s" in out.getvalue()
        working.doing("compiling [bold]x[/bold]", limit=120)
        hand["now"] = 164.0
        working._spinner.refresh()
        assert "compiling [bold]x[/bold] 1:01 of at most 2:00" in out.getvalue()
        working.share(0.4)
        working._spinner.refresh()
        assert "compiling [bold]x[/bold] 40% 1:01" in out.getvalue()
        working.say("a line")
    assert "a line\n" in out.getvalue()


def test_a_log_gets_a_line_where_it_takes_long(monkeypatch, no_clock):
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    monkeypatch.setattr(module, "REMIND", 0.01)
    out = Printed(lines=2)
    with Working("measuring val", Console(file=out, soft_wrap=True)):
        assert out.there.wait(30)
    lines = out.getvalue().splitlines()
    assert set(lines) == {"measuring val: 0 s"}
    assert "\x1b" not in out.getvalue()


def test_what_is_short_leaves_nothing_in_a_log():
    out = io.StringIO()
    with Working("loading", Console(file=out, soft_wrap=True)) as working:
        working.doing("measuring", limit=3)
        working.share(0.5)
    assert out.getvalue() == ""


def test_a_quiet_console_stays_quiet(monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.0)
    with Working("loading", Console(quiet=True, force_terminal=False)) as working:
        assert not working._plain.is_alive()


@pytest.mark.parametrize(
    ("rank", "lines"), [(None, {"loading PyTorch: 0 s"}), ("0", {"loading PyTorch: 0 s"}), ("1", set())]
)
def test_of_the_processes_of_a_job_one_speaks(monkeypatch, no_clock, rank, lines):
    monkeypatch.setattr(module, "PATIENCE", 0.0)
    if rank is not None:
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", rank)
    out = Printed(lines=1)
    monkeypatch.setattr("sys.stderr", out)
    with Working("loading PyTorch"):
        assert out.there.wait(30 if lines else 0.1) is bool(lines)
    assert set(out.getvalue().splitlines()) == lines


def test_a_quiet_console_takes_nothing_from_standard_output(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    out = Terminal()
    monkeypatch.setattr("sys.stdout", out)
    with Working("loading", Console(quiet=True, force_terminal=True)):
        print("a result")
    assert out.getvalue() == "a result\n"


def test_it_ends_with_an_error_too():
    out = io.StringIO()
    with pytest.raises(KeyError), Working("loading", Console(file=out)) as working:
        raise KeyError
    working._plain.join(10)
    assert not working._plain.is_alive()
