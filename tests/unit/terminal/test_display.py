import io
import types

import pytest
from rich.console import Console

from groundup.terminal import display as module
from groundup.terminal.display import Display, clock, quantity, say


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (59.6, "1:00"), (185, "3:05"), (3599.6, "1:00:00"), (7380, "2:03:00"),
     (90_061, "25:01:01")],
)  # fmt: skip
def test_clock(seconds, text):
    assert clock(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (12.3456, "12.3"), (999, "999"), (1000, "1k"), (1234567, "1.23M"), (124_439_808, "124M"),
     (8.55e18, "8.55e+06T"), (1.5e9, "1.5B"), (2e12, "2T")],
)  # fmt: skip
def test_quantity(number, text):
    assert quantity(number) == text


@pytest.mark.parametrize(("number", "text"), [(999_700, "1M"), (999.9, "1k")])
def test_quantity_rounds_into_the_next_unit(number, text):
    assert quantity(number) == text


@pytest.fixture
def clock_hand(monkeypatch):
    hand = types.SimpleNamespace(now=0.0)
    monkeypatch.setattr(module, "time", types.SimpleNamespace(monotonic=lambda: hand.now))
    return hand


def update(display, step, **changes):
    values = {"loss": 1.5, "tokens_per_sec": 12_345.0, "mfu": 0.42, "left": 65.0}
    display.update(step=step, **{**values, **changes})


def test_a_log_file_gets_plain_lines_now_and_then(clock_hand):
    out = io.StringIO()
    with Display(max_steps=100, console=Console(file=out, soft_wrap=True)) as display:
        update(display, 1)
        clock_hand.now = 9.9
        update(display, 20)
        assert out.getvalue() == ""
        clock_hand.now = 10.0
        update(display, 30)
        update(display, 31)
        update(display, 100, mfu=None, left=0)
    assert out.getvalue().splitlines() == [
        "step 30/100 · loss 1.500 · 12.3k tokens/s · MFU 42% · 1:05 left",
        "step 100/100 · loss 1.500 · 12.3k tokens/s · 0 s left",
    ]


def test_nothing_in_a_log_file_is_for_a_terminal(clock_hand):
    out = io.StringIO()
    with Display(max_steps=3, console=Console(file=out, soft_wrap=True)) as display:
        display.say("a line with [brackets] and [/no markup]")
        display.quote("ROMEO:\n[bold]O[/bold]\n\nend", title="step 1 writes:")
        display.quote("", title="step 1 writes:")
        update(display, 3)
    printed = out.getvalue()
    assert "\x1b" not in printed
    assert "\r" not in printed
    assert printed.splitlines()[:8] == [
        "a line with [brackets] and [/no markup]", "step 1 writes:", "  │ ROMEO:", "  │ [bold]O[/bold]", "  │ ",
        "  │ end", "step 1 writes:", "  │ ",
    ]  # fmt: skip


class Screen(io.StringIO):
    """What a terminal is given."""

    def isatty(self):
        return True


def test_a_terminal_gets_a_live_line_and_no_plain_ones(clock_hand, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    out = Screen()
    console = Console(file=out, width=120, color_system=None)
    with Display(max_steps=100, console=console) as display:
        clock_hand.now = 100.0
        update(display, 30)
        display._progress.refresh()
    printed = out.getvalue()
    assert "step 30/100" in printed
    assert "loss 1.500 · 12.3k tokens/s · MFU 42% · 1:05 left" in printed
    assert "step 30/100 · loss" not in printed


def test_a_path_is_neither_markup_nor_a_command_to_the_terminal():
    out = io.StringIO()
    console = Console(file=out, soft_wrap=True, force_terminal=True, color_system=None)
    say(console, "runs/[/y] [bold]x :smile: \x1b[2J\u202e")
    assert out.getvalue() == "runs/[/y] [bold]x :smile: \\x1b[2J\\u202e\n"


def test_a_sample_is_shown_exactly_but_for_what_commands_a_terminal():
    out = io.StringIO()
    display = Display(max_steps=1, console=Console(file=out, soft_wrap=True, width=20))
    display.quote("\ta  :smile: [bold]b[/bold] \u2028" + "x" * 40 + " \n\n\x1b[2Jc\n", title="step 1 writes:")
    shown = ["\ta  :smile: [bold]b[/bold] \u2028" + "x" * 40 + " ", "", "\\x1b[2Jc"]
    assert out.getvalue() == "step 1 writes:\n" + "".join(f"  │ {line}\n" for line in shown)


@pytest.mark.parametrize("name", ["JPY_PARENT_PID", "KAGGLE_KERNEL_RUN_TYPE", "COLAB_RELEASE_TAG"])
def test_below_a_notebook_lines_are_plain(clock_hand, name, monkeypatch):
    """It gives a terminal, and keeps whatever is drawn there."""
    monkeypatch.setenv(name, "1")
    monkeypatch.setenv("TERM", "xterm")
    out = Screen()
    console = Console(file=out, width=120, color_system=None)
    with Display(max_steps=100, console=console) as display:
        clock_hand.now = 100.0
        display.tick(29)
        display.doing("validating", 0.4)
        update(display, 30)
    assert out.getvalue() == "step 30/100 · loss 1.500 · 12.3k tokens/s · MFU 42% · 1:05 left\n"


@pytest.mark.parametrize("term", ["dumb", "unknown"])
def test_where_rich_draws_nothing_lines_are_plain(clock_hand, term, monkeypatch):
    monkeypatch.setenv("TERM", term)
    out = Screen()
    with Display(max_steps=100, console=Console(file=out, width=120, color_system=None)) as display:
        clock_hand.now = 100.0
        update(display, 30)
    assert out.getvalue() == "step 30/100 · loss 1.500 · 12.3k tokens/s · MFU 42% · 1:05 left\n"


@pytest.mark.parametrize("name", ["FORCE_COLOR", "TTY_COMPATIBLE"])
def test_colors_that_are_asked_for_make_no_terminal_of_a_file(clock_hand, name, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv(name, "1")
    out = io.StringIO()
    with Display(max_steps=100, console=Console(file=out, width=120)) as display:
        clock_hand.now = 100.0
        display.tick(29)
        update(display, 30)
    assert out.getvalue() == "step 30/100 · loss 1.500 · 12.3k tokens/s · MFU 42% · 1:05 left\n"


def test_what_stands_between_steps_is_shown(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    out = Screen()
    console = Console(file=out, width=120, color_system=None)
    with Display(max_steps=100, console=console) as display:
        display.tick(29)
        display.doing("validating", 0.4)
        display._progress.refresh()
    assert "step 29/100" in out.getvalue()
    assert "validating 40%" in out.getvalue()
