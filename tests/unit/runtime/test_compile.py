import contextlib
import math
import signal
import sys
import time

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

from groundup.config.errors import UserError
from groundup.runtime import compile as module
from groundup.runtime import timing
from groundup.runtime.compile import maybe_compile

CPU = torch.device("cpu")


class Clock:
    """Time that passes only when a fake module is run."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now


class Machine:
    """A plain module that takes `eager` seconds, and a compiler whose module takes `compiled` after `cost` once."""

    def __init__(self, patch, *, eager, compiled=math.inf, cost=0.0, fails=None):
        self.clock, self.plain, self.fast = Clock(), nn.Identity(), nn.Identity()
        self.eager, self.compiled, self.cost, self.fails = eager, compiled, cost, fails
        self.compilations, self.said = 0, []
        patch.setattr(module, "time", self.clock)
        patch.setattr(timing, "time", self.clock)
        patch.setattr(module.torch, "compile", self.compile)

    def compile(self, plain, *, dynamic):
        assert plain is self.plain
        assert dynamic is False
        assert len(self.said) == 1, "a compilation must be told before it begins"
        self.compilations += 1
        return self.fast

    def run(self, which):
        if which is self.plain:
            self.clock.now += self.eager
            return
        if self.fails:
            raise self.fails
        self.clock.now += self.compiled + self.cost
        self.cost = 0.0

    def choose(self, mode, n_runs):
        return maybe_compile(self.plain, mode=mode, run=self.run, n_runs=n_runs, device=CPU,
                             doing=lambda what, limit: self.said.append((what, limit)), longest=500.0)  # fmt: skip


def test_off_does_nothing(monkeypatch):
    machine = Machine(monkeypatch, eager=1.0)
    choice = machine.choose("off", 10**6)
    assert (choice.module, choice.compiled, choice.note) == (machine.plain, False, "")
    assert (machine.clock.now, machine.compilations) == (0.0, 0)


def test_on_compiles_whatever_it_gains(monkeypatch):
    machine = Machine(monkeypatch, eager=1.0, compiled=2.0, cost=100.0)
    choice = machine.choose("on", 1)
    assert choice.module is machine.fast
    assert choice.compiled


def test_auto_keeps_what_is_faster_and_says_so(monkeypatch):
    machine = Machine(monkeypatch, eager=0.1, compiled=0.06, cost=30.0)
    choice = machine.choose("auto", 10_000)
    assert choice.module is machine.fast
    assert choice.compiled
    assert choice.note == "compiled: 60.0 ms instead of 100.0 ms a pass"


def test_auto_does_not_try_where_it_cannot_pay(monkeypatch):
    machine = Machine(monkeypatch, eager=0.01, compiled=0.001)
    choice = machine.choose("auto", 1000)  # ten seconds of work
    assert choice.module is machine.plain
    assert machine.compilations == 0
    assert machine.said == []


def test_auto_goes_back_when_it_measures_no_gain(monkeypatch):
    machine = Machine(monkeypatch, eager=0.1, compiled=0.099, cost=60.0)
    choice = machine.choose("auto", 10_000)
    assert (choice.module, choice.compiled) == (machine.plain, False)
    assert choice.note == "not compiled: 99.0 ms instead of 100.0 ms a pass would not pay"


times = st.floats(1e-4, 10)


@given(eager=times, compiled=times, cost=st.floats(0, 1000), n_runs=st.integers(1, 10**6))
def test_auto_is_never_slower(eager, compiled, cost, n_runs):
    """Compiled is chosen only where the whole run, compilation included, becomes shorter."""
    assume(abs(eager - compiled) > 1e-9)
    with pytest.MonkeyPatch.context() as patch:
        machine = Machine(patch, eager=eager, compiled=compiled, cost=cost)
        choice = machine.choose("auto", n_runs)
    if choice.compiled:
        assert choice.module is machine.fast
        assert cost + n_runs * compiled < n_runs * eager * (1 + 1e-6)
    else:
        assert choice.module is machine.plain


def test_a_compiler_that_fails_costs_auto_nothing_but_a_line(monkeypatch):
    machine = Machine(monkeypatch, eager=0.1, fails=RuntimeError("no compiler found\nand a long story"))
    choice = machine.choose("auto", 10_000)
    assert (choice.module, choice.compiled) == (machine.plain, False)
    assert choice.note == "not compiled: torch.compile does not work here (no compiler found)"


@pytest.mark.parametrize(
    ("error", "reason"), [(RuntimeError("no compiler\n..."), "no compiler"), (OSError(), "OSError")]
)
def test_a_compiler_that_fails_is_an_error_when_it_was_asked_for(monkeypatch, error, reason):
    machine = Machine(monkeypatch, eager=0.1, fails=error)
    with pytest.raises(UserError) as caught:
        machine.choose("on", 10)
    assert str(caught.value) == f"torch.compile does not work here ({reason}); use --runtime.compile off"


@pytest.mark.parametrize(("n_runs", "limit"), [(2_000, 80.0), (10**6, 500.0)])
def test_auto_gives_up_after_what_it_could_save(monkeypatch, n_runs, limit):
    machine = Machine(monkeypatch, eager=0.1, compiled=0.01)

    def slow(which):
        machine.clock.now += 0.1 if which is machine.plain else limit + 1
        if which is machine.fast:
            raise TimeoutError

    monkeypatch.setattr(machine, "run", slow)
    choice = machine.choose("auto", n_runs)
    assert machine.said == [("trying torch.compile (--runtime.compile off does without)", pytest.approx(limit))]
    assert (choice.module, choice.compiled) == (machine.plain, False)
    assert choice.note == f"not compiled: torch.compile was given up after {limit:.0f} s"


def test_who_asks_for_it_waits_for_it(monkeypatch):
    machine = Machine(monkeypatch, eager=0.1, compiled=0.01, cost=10_000.0)
    assert machine.choose("on", 10).compiled
    assert machine.said[0][1] == 0.0


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no such timer")
def test_what_takes_too_long_is_ended_and_the_timer_left_as_it_was():
    signal.setitimer(signal.ITIMER_REAL, 1000.0)
    before = signal.getsignal(signal.SIGALRM)
    try:
        compiled = nn.Identity()

        def run(which):
            if which is compiled:
                with contextlib.suppress(TimeoutError):  # as what compiles may do
                    time.sleep(60)
                time.sleep(60)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module.torch, "compile", lambda plain, dynamic: compiled)
            choice = maybe_compile(nn.Identity(), mode="auto", run=run, n_runs=10**15, device=CPU, longest=0.05)
        assert choice.note == "not compiled: torch.compile was given up after 0 s"
        assert signal.getsignal(signal.SIGALRM) is before
        assert 900 < signal.getitimer(signal.ITIMER_REAL)[0] <= 1000
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def test_ctrl_c_during_a_compilation_is_no_failure_of_the_compiler(monkeypatch):
    machine = Machine(monkeypatch, eager=0.1, fails=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        machine.choose("auto", 10_000)


def test_a_trial_of_the_compiler_is_ended_with_its_process():
    assert module.try_compiler(CPU, longest=0.2) == "was given up after 0 s"  # PyTorch is not even loaded


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ('test -d "$TORCHINDUCTOR_CACHE_DIR" && ls -A "$TORCHINDUCTOR_CACHE_DIR" && echo works', "works"),
        ("echo Traceback >&2; echo ImportError: no triton >&2; exit 1", "does not work here (ImportError: no triton)"),
        ("exit 3", "does not work here (exit code 3)"),
    ],
)
def test_a_trial_has_an_empty_cache_of_its_own_and_its_end_is_a_finding(monkeypatch, tmp_path, script, said):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    assert module.try_compiler(CPU, longest=60.0) == said


def test_what_is_tried_says_why_it_fails(monkeypatch):
    def refuse(plain, dynamic):
        def call(x):
            raise RuntimeError("no C++ compiler\nand a long story")

        return call

    monkeypatch.setattr(module.torch, "compile", refuse)
    assert module.compile_something("cpu") == "does not work here (no C++ compiler)"
    monkeypatch.setattr(module.torch, "compile", lambda plain, dynamic: plain)
    assert module.compile_something("cpu") == "works"


def test_what_is_tried_needs_a_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert "compiler" in module.try_compiler(CPU, longest=240.0)
