import json
import os
import subprocess
import sys
import types

import pytest
import torch

from forked import ForkedPopen
from groundup.loop import profile as module
from groundup.loop.profile import STEPS, WARMUP_STEPS, Profile
from groundup.loop.trainer import StepMetrics

TRAINER = types.SimpleNamespace(device=torch.device("cpu"))


def run(folder, steps, between=lambda step: None):
    """Steps of three products and one GELU each; returns what was said."""
    said = []
    profile = Profile(folder=folder, say=said.append)
    a = torch.randn(32, 32)
    profile.on_fit_start(TRAINER)
    for step in range(1, steps + 1):
        for _ in range(3):
            torch.mm(a, a)
        torch.nn.functional.gelu(a)
        profile.on_step_end(TRAINER, StepMetrics(torch.tensor(0.0), torch.tensor(0.0), 1.0, 0.25))
        between(step)
    profile.on_fit_end(TRAINER)
    return said


def trace(folder):
    return json.loads((folder / "trace.json").read_text())["traceEvents"]


@pytest.mark.parametrize(("steps", "watched"), [(WARMUP_STEPS + STEPS + 7, STEPS), (WARMUP_STEPS + 2, 2)])
def test_a_window_of_steps_and_nothing_else(tmp_path, steps, watched):
    said = run(tmp_path / "profile", steps)
    events = trace(tmp_path / "profile")
    assert sum(event.get("name") == "aten::mm" for event in events) == 3 * watched
    assert {p.name for p in (tmp_path / "profile").iterdir()} == {"trace.json", "summary.txt"}
    assert len(said) == 1
    assert said[0].startswith(f"profiled {watched} steps: read ")


def test_the_profiler_itself_says_nothing_that_would_tear_the_live_line(tmp_path):
    """In a process of its own: the profiler reads how much it shall say once, when it is used first."""
    code = (
        "import sys, types, torch\n"
        "from pathlib import Path\n"
        "from groundup.loop.profile import STEPS, WARMUP_STEPS, Profile\n"
        "from groundup.loop.trainer import StepMetrics\n"
        "trainer, zero = types.SimpleNamespace(device=torch.device('cpu')), torch.tensor(0.0)\n"
        "profile = Profile(folder=Path(sys.argv[1]), say=lambda line: print(line[:16]))\n"
        "profile.on_fit_start(trainer)\n"
        "for _ in range(WARMUP_STEPS + STEPS):\n"
        "    torch.mm(torch.ones(2, 2), torch.ones(2, 2))\n"
        "    profile.on_step_end(trainer, StepMetrics(zero, zero, 1.0, 0.25))\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "KINETO_LOG_LEVEL"}
    process = ForkedPopen(
        [sys.executable, "-c", code, str(tmp_path / "profile")],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
    )  # fmt: skip
    output, _ = process.communicate(120)
    assert (process.returncode, output) == (0, f"profiled {STEPS} steps\n")


def test_the_summary_counts_and_adds_up(tmp_path):
    run(tmp_path, WARMUP_STEPS + STEPS)
    text = (tmp_path / "summary.txt").read_text()
    assert text.startswith(f"{STEPS} steps of 250.00 ms on ")
    rows = [line.split(maxsplit=3) for line in text.splitlines() if line.startswith("  ") and "%" in line]
    table = {name: (float(ms), float(share.rstrip("%")), float(calls)) for ms, share, calls, name in rows}
    assert table["aten::mm"][2] == 3
    assert table["aten::gelu"][2] == 1
    assert sum(share for _, share, _ in table.values()) == pytest.approx(100, abs=0.1 * len(table))
    times = [ms for ms, _, _ in table.values()]
    assert times == sorted(times, reverse=True)  # fewer operators than lines: there are no "others"
    total = float(text.split("operators, by CPU time: ")[1].split(" ms")[0])
    assert total == pytest.approx(sum(times), abs=0.005 + 0.001 * len(times))


@pytest.mark.parametrize(("every", "told"), [(10, False), (5, True), (12, True)])
def test_what_a_run_does_between_steps_is_outside_of_the_window_or_told(tmp_path, monkeypatch, every, told):
    now = 0.0
    monkeypatch.setattr(module.time, "perf_counter", lambda: now)

    def callbacks(step):
        nonlocal now
        now += 0.25  # of the next step
        if step % every == 0:
            now += 0.5
            torch.exp(torch.ones(3))

    run(tmp_path, WARMUP_STEPS + STEPS + 1, callbacks)
    text = (tmp_path / "summary.txt").read_text()
    assert ("aten::exp" in text) == told
    assert ("Between two steps 100.00 ms passed" in text) == told


def test_many_operators_are_summed_up_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TOP", 1)
    run(tmp_path, WARMUP_STEPS + STEPS)
    assert (tmp_path / "summary.txt").read_text().splitlines()[-1].endswith(" others)")


@pytest.mark.parametrize("steps", [0, 1, WARMUP_STEPS])
def test_a_run_that_is_too_short_says_so(tmp_path, steps):
    said = run(tmp_path / "profile", steps)
    assert said == [f"no profile: the window opens after {WARMUP_STEPS} steps, and there were {steps}"]
    assert not (tmp_path / "profile").exists()
    assert not torch.autograd._profiler_enabled()


def test_a_run_that_fails_in_its_window_ends_as_it_would_without(tmp_path):
    """In an interpreter of its own, to its very end: PyTorch's profiler crashes when it is still open there."""
    code = (
        "import sys, types, torch\n"
        "from pathlib import Path\n"
        "from groundup.loop.profile import WARMUP_STEPS, Profile\n"
        "from groundup.loop.trainer import StepMetrics\n"
        "profile = Profile(folder=Path(sys.argv[1]), say=print)\n"
        "profile.on_fit_start(types.SimpleNamespace(device=torch.device('cpu')))\n"
        "for _ in range(WARMUP_STEPS + 2):\n"
        "    profile.on_step_end(None, StepMetrics(torch.tensor(0.0), torch.tensor(0.0), 1.0, 0.25))\n"
        "sys.exit(7)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "profile")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (7, "")


def test_a_disk_that_refuses_does_not_end_the_run(tmp_path):
    (tmp_path / "profile").write_text("a file where the folder should be")
    said = run(tmp_path / "profile", WARMUP_STEPS + STEPS + 1)
    assert len(said) == 1
    assert said[0].startswith("no profile: ")
