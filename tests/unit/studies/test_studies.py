"""Whole runs side by side: what is decided without training."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from forked import ForkedPopen
from groundup import __version__
from groundup.checkpoint.model_folder import save_model
from groundup.config.errors import UsageError, UserError
from groundup.config.model import GPTConfig
from groundup.config.presets import RECIPES
from groundup.model.gpt import GPT
from groundup.model.init import init_weights
from groundup.runtime.facts import signed
from groundup.studies import ablation, contexts, loss, scaling_law, weights
from groundup.studies.runs import best_loss, changed, curve, spread, train_all
from groundup.studies.variants import SETS
from small_runs import until

ROWS = [
    {"step": 0, "tokens": 0, "seconds": 0.0, "val/loss": 4.2},
    {"step": 5, "train/loss": 3.0},
    {"step": 5, "tokens": 50, "seconds": 1.5, "val/loss": 2.5, "val/loss_raw": 2.4},
]
TINY = {"model.n_layer": 1, "model.n_embd": 32, "model.n_head": 1, "model.block_size": 16, "tokens_per_step": 64,
        "runtime.micro_batch_size": 4, "max_steps": 4, "eval.sample_every": 0, "runtime.compile": "off",
        "runtime.device": "cpu", "runtime.matmul": "default", "runtime.threads": 1,
        "eval.every": 2, "eval.max_tokens": 200}  # fmt: skip


def test_values_are_changed_by_their_dotted_names():
    config = changed(RECIPES["shakespeare-modern"], {"optim.lr": 1e-4, "model.n_layer": 3, "max_steps": 7})
    assert (config.optim.lr, config.model.n_layer, config.max_steps) == (1e-4, 3, 7)
    assert changed(config, {}) == config
    with pytest.raises(UsageError, match=r"a recipe has no optimizer\.lr"):
        changed(config, {"optimizer.lr": 1.0})
    with pytest.raises(UserError, match=r"unknown config key optim\.lrr"):
        changed(config, {"optim.lrr": 1.0})


@pytest.mark.parametrize("name", SETS)
def test_every_variant_is_a_recipe_and_another_one(name):
    preset, variants = SETS[name]
    recipes = [changed(RECIPES[preset], changes) for changes in variants.values()]
    assert len({json.dumps(dataclasses.asdict(recipe), default=str) for recipe in recipes}) == len(variants)
    assert len({ablation._folder(variant, 1) for variant in variants}) == len(variants)


def test_the_best_loss_is_of_the_weights_or_their_average_but_not_of_random_ones():
    assert best_loss(ROWS) == 2.4
    assert best_loss(ROWS[:2]) is None
    assert best_loss([]) is None
    assert curve(ROWS)[1] == {"step": 5, "tokens": 50, "seconds": 1.5, "loss": 2.5, "raw": 2.4}
    assert spread([1.0, 1.5]) == {"mean": 1.25, "spread": 0.5}


def test_the_best_loss_is_of_the_whole_split_and_a_curve_tells_parts():
    part = {"step": 3, "tokens": 30, "seconds": 1.0, "val/loss": 0.9, "val/loss_raw": 0.8, "val/tokens": 65536}
    assert best_loss([*ROWS, part]) == 2.4
    assert best_loss([part]) is None
    assert best_loss([{**ROWS[2], "val/loss_raw": None}, part]) == 2.5
    assert curve([part]) == [{"step": 3, "tokens": 30, "seconds": 1.0, "loss": 0.9, "raw": 0.8, "part": 65536}]


def test_a_run_that_was_cut_short_is_not_compared():
    rows = {"as-it-is-seed1": ROWS, "as-it-is-seed2": ROWS[:1], "as-it-is-seed3": []}
    row = ablation._row(rows, dict.fromkeys(rows, 5), "as it is", 3)
    assert row["losses"] == [2.4]
    assert len(row["curves"]) == 1
    assert ablation._row(rows, dict.fromkeys(rows, 9), "as it is", 3)["losses"] == []


def test_a_power_law_is_found_again():
    truth = scaling_law.Law(1.2, 30.0, 0.35)
    sizes = [30_000, 100_000, 300_000, 1_000_000, 3_000_000]
    found = scaling_law.fit(sizes, [truth(n) for n in sizes])
    assert found.floor == pytest.approx(1.2, abs=0.02)
    assert found.exponent == pytest.approx(0.35, abs=0.02)
    assert max(abs(found(n) - truth(n)) for n in sizes) < 1e-3


def test_the_law_is_drawn(tmp_path):
    law = scaling_law.Law(1.2, 30.0, 0.35)
    scaling_law.draw([10_000, 100_000], [law(1e4), law(1e5) + 0.01], law, tmp_path / "law.png")
    assert (tmp_path / "law.png").stat().st_size > 5_000


@pytest.mark.parametrize("size", ["4", "ax128", "0x128", "4x100", "4x0"])
def test_sizes_that_are_none(size):
    with pytest.raises(UsageError, match="sizes must be layers x width"):
        scaling_law.Options(sizes=f"2x64,3x96,{size}")


def test_what_does_not_exist_is_refused(tmp_path):
    with pytest.raises(UsageError, match="parts has no variant 'SwiGLU'"):
        ablation.Options(only="SwiGLU")
    with pytest.raises(UsageError, match="preset must be one of"):
        scaling_law.Options(preset="x")
    with pytest.raises(UsageError, match="at-once must be 1 or more, got 0"):
        scaling_law.Options(at_once=0)
    with pytest.raises(UsageError, match="preset must be one of"):
        loss.Options(nanogpt=tmp_path, tiny_shakespeare=tmp_path, preset="x")


def test_the_result_of_the_loss_names_the_code_and_both_contestants(tmp_path, monkeypatch):
    theirs, ours = {"seconds": 9.0, "estimate": 1.9}, {"seconds": 8.0, "loss": 1.5, "estimate": 1.5}
    monkeypatch.setattr(loss, "_nanogpt", lambda options, folder: theirs)
    monkeypatch.setattr(loss, "_ours", lambda *_: ours)
    options = loss.Options(nanogpt=tmp_path, tiny_shakespeare=tmp_path)
    result = signed(loss.bench(options, lambda _: None), ["groundup", "bench", "loss"])
    assert result["contestants"] == {"nanoGPT": theirs, "groundup": ours}
    assert __version__ in result["groundup"]
    with pytest.raises(AssertionError):
        signed({"groundup": ours}, [])


def test_runs_train_side_by_side_and_a_failed_one_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("groundup.studies.runs.subprocess.Popen", ForkedPopen)
    (tmp_path / "text.txt").write_text("The quick brown fox jumps over the lazy dog.\n" * 200)
    base = changed(RECIPES["shakespeare-modern"], TINY | {"out_dir": str(tmp_path / "runs"), "data.source": "text",
                   "data.path": str(tmp_path / "text.txt"), "data.cache_dir": str(tmp_path)})  # fmt: skip
    said = []
    rows = train_all({"good": base}, at_once=2, seconds=0, say=said.append)
    assert [point["step"] for point in curve(rows["good"])] == [0, 2, 4]
    assert said[0].startswith("good: best validation loss ")
    broken = changed(base, {"data.path": str(tmp_path / "nothing.txt")})
    with pytest.raises(UserError, match=r"the run bad failed: .*nothing.txt"):
        train_all({"bad": broken}, at_once=1, seconds=0, say=said.append)


def test_a_run_that_did_not_end_in_this_call_has_no_rows(tmp_path, monkeypatch):
    """Its folder may hold a part of it, or a whole run of another call."""

    class Endless:
        def __class_getitem__(cls, item):
            return cls

        def __init__(self, command, **options):
            self.ended = False

        def poll(self):
            return None

        def terminate(self):
            self.ended = True

        def wait(self, timeout=None):
            assert self.ended

    monkeypatch.setattr("groundup.studies.runs.subprocess.Popen", Endless)
    config = changed(RECIPES["shakespeare"], {"out_dir": str(tmp_path)})
    for name in ("cut", "waiting"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    said = []
    rows = train_all({"cut": config, "waiting": config}, at_once=1, seconds=0.01, say=said.append)
    assert rows == {"cut": [], "waiting": []}
    assert said == ["cut: stopped, the time was over", "waiting: not begun, the time was over"]


def test_a_law_is_of_models_that_came_to_their_end(tmp_path, monkeypatch):
    rows = {"1x32": ROWS, "1x64": ROWS, "2x64": []}
    monkeypatch.setattr(scaling_law, "open_corpus", lambda *_, **__: None)
    monkeypatch.setattr(scaling_law, "train_all", lambda *_, **__: rows)
    options = scaling_law.Options(sizes=",".join(rows), out=tmp_path / "law")
    with pytest.raises(UserError, match="3 models at least, 2 came to the last step; give more --seconds"):
        scaling_law.study(options, print, machine={})


BEGIN = """
import os, sys, time
from pathlib import Path
from groundup.config.presets import RECIPES
from groundup.studies import runs
sys.executable = os.path.abspath("stand-in")
process = runs._start(runs.changed(RECIPES["shakespeare"], {"out_dir": "runs"}), "1")
print(process.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of the death of its parent")
def test_a_run_ends_with_a_study_that_is_killed_and_its_log_is_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("stand-in").write_text("#!/bin/sh\nsleep 600 & trap 'kill $!; echo heard; exit' TERM; echo begun; wait\n")
    Path("stand-in").chmod(0o755)
    Path("runs").mkdir()
    with Path("runs/shakespeare.log").open("wb", buffering=0) as earlier:
        study = subprocess.Popen([sys.executable, "-c", BEGIN], stdout=subprocess.PIPE)
        study.stdout.readline()
        until(lambda: Path("runs/shakespeare.log").read_text() == "begun\n")
        earlier.write(b"an earlier run that goes on")
        study.kill()
        study.communicate()
        until(lambda: Path("runs/shakespeare.log").read_text() == "begun\nheard\n")


@pytest.mark.parametrize("probe_pace", [0.10, 0.14, 0.20], ids=["fast", "slow", "very slow"])
def test_a_run_is_planned_until_it_fills_its_seconds(probe_pace):
    """The short run is slower or faster than whole ones; 12 s go by around the steps."""
    made, said = [], []

    def run(steps, name):
        pace = probe_pace if name == "probe" else 0.125
        made.append(steps)
        return loss._Timed(
            name, steps, 12 + pace * steps, [{"train/loss": 2.0, "seconds": pace * steps}, {"seconds": 0}]
        )

    found = loss._fitting(run, 150.0, said.append, most=1800)
    assert 0.97 * 150 <= found.seconds <= 150
    assert [one["steps"] for one in found.tries] == made[1:]
    assert len(said) == len(made) - 2
    assert found.steps == made[-1]


def test_a_recipe_is_given_no_more_steps_than_it_is_made_for():
    made = []

    def run(steps, name):
        made.append(steps)
        return loss._Timed(name, steps, 12 + 0.125 * steps, [{"train/loss": 2.0, "seconds": 0.125 * steps}])

    found = loss._fitting(run, 150.0, print, most=900)
    assert (found.steps, found.seconds, made) == (900, 124.5, [loss.PROBE_STEPS, 900])


def test_a_budget_that_no_run_keeps_is_refused_and_the_longest_that_keeps_it_is_taken():
    def drifting(steps, name):
        whole = {"try1": 160.0, "try2": 130.0, "try3": 151.0}
        return loss._Timed(name, steps, whole.get(name, 18.0), [{"train/loss": 2.0, "seconds": 6.0}])

    found = loss._fitting(drifting, 150.0, print, most=1800)
    assert (found.name, found.seconds, len(found.tries)) == ("try2", 130.0, 3)
    with pytest.raises(UserError, match=r"no run came to its end within 125\.0 s"):
        loss._fitting(drifting, 125.0, print, most=1800)
    with pytest.raises(UserError, match=r"11\.0 s do not suffice for one step: all around the steps takes 12\.0 s"):
        loss._fitting(drifting, 11.0, print, most=1800)


def test_reading_and_decoding_are_measured_apart():
    config = GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=32, vocab_size=27)
    lines = []
    options = contexts.Options(model=config, short=4, long=24, new_tokens=8, rounds=1)
    result = json.loads(json.dumps(contexts.bench(options, lines.append)))
    for name, row in result["modes"].items():
        short, long = row["tokens_per_sec"].values()
        assert list(row["tokens_per_sec"]) == ["4", "24"]
        assert row["long_over_short"] == pytest.approx(long / short, rel=0.01)
        assert 0 < row["first_token_seconds"] < 60
        assert row["share_of_gemm_rate"] > 0
        assert lines[list(result["modes"]).index(name) - 2].startswith(f"{name:<6}")
    with pytest.raises(UsageError, match=r"long at most 24 .*, got 4, 25 and 8"):
        dataclasses.replace(options, long=25)


def test_the_flops_of_reading_are_those_that_pytorch_counts():
    config = GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=64, vocab_size=61, bias=False)
    model = GPT(config).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        hidden = model.hidden(torch.zeros(1, 64, dtype=torch.long))
        model.logits(hidden[:, -1])
    masked = 2 * config.n_layer * config.n_embd * 64 * 64  # the half of attention that a counter does not leave out
    gains = 2 * 5 * config.n_embd * 64  # as products: the convention of the planner
    assert contexts.reading_flops(config, 64) == counter.get_total_flops() - masked + gains


def test_fewer_bits_are_fewer_bytes_and_their_errors_are_told(tmp_path, alphabet):
    config = GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=16, vocab_size=27)
    save_model(tmp_path / "model", init_weights(GPT(config), seed=0), alphabet, {})
    (tmp_path / "text.txt").write_text("abc def ghi jkl mno pqr " * 3)
    options = weights.Options(model=tmp_path / "model", text=tmp_path / "text.txt", new_tokens=4, rounds=1)
    lines = []
    result = json.loads(json.dumps(weights.bench(options, lines.append)))
    modes = result["modes"]
    assert list(modes) == ["fp32", "fp16", "bf16", "int8"]
    assert [line.split()[0] for line in lines[-4:]] == list(modes)
    assert modes["fp32"]["largest_logit_error"] == modes["fp32"]["loss_above_fp32"] == 0
    assert modes["fp32"]["bytes"] > modes["fp16"]["bytes"] == modes["bf16"]["bytes"] > modes["int8"]["bytes"]
    for name in ("fp16", "bf16", "int8"):
        assert 0 < modes[name]["largest_logit_error"] < 0.1
        assert modes[name]["loss_above_fp32"] == pytest.approx(modes[name]["loss"] - modes["fp32"]["loss"])
        assert 0 < abs(modes[name]["decoded_loss_above_fp32"]) < 0.01
    with pytest.raises(UsageError, match="new-tokens must be at most 15, the model's context less one, got 16"):
        weights.bench(dataclasses.replace(options, new_tokens=16), lines.append)
