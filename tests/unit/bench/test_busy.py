import os

import pytest

from groundup.bench import busy as module
from groundup.bench.busy import WAYS, Options, bench
from groundup.config.model import GPTConfig
from groundup.terminal.waiting import SPIN


def test_figures_are_the_arithmetic_of_the_turns(monkeypatch):
    """A machine that becomes faster from turn to turn: shares are of what the default has in the same turn."""
    others, orders = [], []

    def turn(options, variables):
        orders.append(variables)
        quiet = 900.0 if variables is None else 1000.0
        return (0.8, 1, 1.5)[(len(orders) - 1) // len(WAYS)] * quiet if not others else 300.0

    monkeypatch.setattr(module, "_one_turn", turn)
    monkeypatch.setattr(module, "_others", lambda count: _counting(others, count))
    monkeypatch.setattr(module, "own_cores", lambda: 2)
    monkeypatch.setattr(module, "whole_cores", lambda: 2)
    monkeypatch.setattr(module.os, "cpu_count", lambda: 2)
    lines = []
    result = bench(Options(others=4, rounds=3), lines.append)
    assert [orders[i] for i in (0, 4, 8)] == [WAYS["OpenMP's default"], WAYS["asleep at once"], WAYS["ours"]]
    assert list(result["ways"]) == list(WAYS)
    assert len(lines) == len(WAYS)
    row = result["ways"]["ours"]
    assert row["share_of_quiet_default"] == 0.9
    assert row["share_of_fair"] == pytest.approx(300 / (1000 / 3), abs=1e-3)


class _counting:
    def __init__(self, seen, count):
        self.seen, self.count = seen, count

    def __enter__(self):
        self.seen.append(self.count)

    def __exit__(self, *error):
        self.seen.clear()


def test_our_way_is_what_a_command_would_set(monkeypatch):
    def as_a_command(environ):
        assert SPIN not in environ
        environ[SPIN] = "7"
        raise InterruptedError

    monkeypatch.setenv(SPIN, "123")
    monkeypatch.setattr(module, "choose_threads", as_a_command)
    with pytest.raises(InterruptedError):
        module._one_turn(Options(), WAYS["ours"])
    assert os.environ[SPIN] == "123"


def test_a_turn_trains_in_a_process_with_its_variables_and_leaves_ours(monkeypatch):
    monkeypatch.setenv(SPIN, "123")
    tiny = GPTConfig(n_layer=1, n_head=1, n_embd=16, block_size=16, vocab_size=64)
    options = Options(model=tiny, micro_batch_size=2, seconds=0.1)
    assert module._one_turn(options, WAYS["asleep at once"]) > 0
    assert os.environ[SPIN] == "123"
    assert "OMP_WAIT_POLICY" not in os.environ
