"""What a recipe reaches in the seconds that nanoGPT needs: its own train.py, and then ours, on the same machine.

nanoGPT runs as it is, with the flags of its README for a CPU: 4 layers, 128 wide, context 64, batch 12, 2,000 steps.
Its wall time, from the start of its process to the end, is the budget. How many steps of ours fit is planned from a
short run, and again from a whole run that took too long or left too much of the budget; the preset's own steps are the
most. What counts is the wall time of the whole run that is reported; the others are named beside it.
"""

import dataclasses
import math
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from groundup.checkpoint.model_folder import load_model
from groundup.config.errors import UserError
from groundup.config.io import dump_json
from groundup.config.presets import RECIPES
from groundup.config.train import TrainConfig
from groundup.data.dataset import Split
from groundup.data.loader import eval_batches
from groundup.evaluation.loss import evaluate_loss
from groundup.files.atomic import write_file
from groundup.model.loss import LossModule
from groundup.prepare.corpus import open_corpus
from groundup.runtime.facts import machine_facts
from groundup.studies.options import LossOptions as Options
from groundup.studies.runs import changed, curve, train_all

FLAGS = (
    "--device=cpu", "--compile=False", "--eval_iters=20", "--log_interval=100", "--block_size=64", "--batch_size=12",
    "--n_layer=4", "--n_head=4", "--n_embd=128", "--max_iters=2000", "--lr_decay_iters=2000", "--dropout=0.0",
)  # fmt: skip
"""Of nanoGPT's README, "I only have a macbook"."""
PROBE_STEPS = 60
AIM = 0.985
"""Share of the budget that our run is planned for."""
ENOUGH = 0.97
"""A run that takes this share of the budget is not planned again."""
TRIES = 3
"""Most whole runs: a machine whose speed drifts more than the plan leaves room for has no better one."""
ESTIMATE = (20, 12)
"""Batches and sequences of nanoGPT's own estimate."""
CONTEXT = 64
"""Tokens of its sequences."""


def bench(options: Options, say: Callable[[str], None]) -> dict[str, Any]:
    """Run nanoGPT, then ours.

    Args:
        options: What to run.
        say: Called with each result as soon as it is known.

    Returns:
        Seconds and losses of both: over the whole validation split, and nanoGPT's estimate of 20 batches.

    Raises:
        UserError: One of the runs failed.
    """
    with tempfile.TemporaryDirectory() as temporary:
        theirs = {"seconds": options.budget} if options.budget else _nanogpt(options, Path(temporary))
        say(f"nanoGPT: {theirs}")
        ours = _ours(options, options.out or Path(temporary), theirs["seconds"], say)
    result = {
        "bench": "loss",
        "preset": options.preset,
        **machine_facts(torch.device("cpu")),
        "threads": torch.get_num_threads(),
        "contestants": {"nanoGPT": theirs, "groundup": ours},
    }
    if options.out:
        write_file(options.out / f"loss-seed{options.seed}.json", dump_json(result).encode())
    say(
        f"groundup: {ours['loss']:.4f} over the whole split ({ours['estimate']:.4f} by 20 batches) in"
        f" {ours['seconds']:.1f} s; nanoGPT took {theirs['seconds']:.1f} s"
    )
    return result


def _nanogpt(options: Options, folder: Path) -> dict[str, Any]:
    """Prepare its data, run its train.py, and take its last words."""
    checkout = folder / "nanoGPT"
    shutil.copytree(options.nanogpt, checkout, ignore=shutil.ignore_patterns(".git", "assets"))
    data = checkout / "data" / "shakespeare_char"
    shutil.copyfile(options.tiny_shakespeare, data / "input.txt")
    _run([sys.executable, "prepare.py"], data)
    steps = str(options.nanogpt_steps)
    flags = [*FLAGS, f"--max_iters={steps}", f"--lr_decay_iters={steps}"]
    start = time.perf_counter()
    said = _run([sys.executable, "train.py", "config/train_shakespeare_char.py", *flags], checkout)
    seconds = time.perf_counter() - start
    losses = re.findall(r"step \d+: train loss [\d.]+, val loss ([\d.]+)", said)
    return {"seconds": round(seconds, 1), "estimate": float(losses[-1]), "steps": options.nanogpt_steps}


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, errors="replace", check=False, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        raise UserError(f"nanoGPT's {command[1]} failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return done.stdout


def _ours(options: Options, folder: Path, budget: float, say: Callable[[str], None]) -> dict[str, Any]:
    """Our run, of as many steps as fit."""
    config = changed(
        RECIPES[options.preset],
        {
            "out_dir": str(folder),
            "seed": options.seed,
            "runtime.device": "cpu",
            "runtime.compile": "off",
            "data.path": str(options.tiny_shakespeare),
            "data.cache_dir": str(folder / "data"),
            "eval.sample_every": 0,
            "eval.every": 1_000_000,
            "eval.max_tokens": math.prod(ESTIMATE) * CONTEXT,  # as many as each of nanoGPT's evaluations reads
            "checkpoint.every": 1_000_000,
        },
    )
    split = open_corpus(config.data).split("val")

    def run(steps: int, name: str) -> _Timed:
        return _timed(dataclasses.replace(config, max_steps=steps), name, say)

    found = _fitting(run, budget, say, most=config.max_steps)
    whole, estimate = _losses(folder / found.name, split, options.seed)
    return {
        "seconds": round(found.seconds, 1),
        "steps": found.steps,
        "seed": options.seed,
        "loss": round(whole, 4),
        "estimate": round(estimate, 4),
        "tries": found.tries,
        "curve": curve(found.rows),
    }


@dataclass(frozen=True)
class _Timed:
    """A run and its wall time."""

    name: str
    steps: int
    seconds: float
    rows: list[dict[str, Any]]
    tries: tuple[dict[str, float], ...] = ()
    """Steps and seconds of all whole runs."""


def _fitting(run: Callable[[int, str], _Timed], budget: float, say: Callable[[str], None], *, most: int) -> _Timed:
    """The longest whole run within the budget, of no more than `most` steps.

    Seconds are taken to be a + b * steps. A first guess of b is what the steps of a short run took by its own record;
    after each whole run the line goes through that run and the short one.

    Args:
        run: Trains so many steps under a name.
        budget: Seconds.
        say: Called with the reason why a run is made again.
        most: Steps that the recipe is made for.

    Raises:
        UserError: Not one step fits, or no try did.
    """
    probe = run(PROBE_STEPS, "probe")
    per_step = max(row["seconds"] for row in probe.rows if "train/loss" in row) / PROBE_STEPS
    around = probe.seconds - per_step * PROBE_STEPS
    runs: list[_Timed] = []
    while len(runs) < TRIES:
        steps = min(most, int((AIM * budget - around) / per_step))
        if steps < 1:
            raise UserError(f"{budget:.1f} s do not suffice for one step: all around the steps takes {around:.1f} s")
        if runs and steps == runs[-1].steps:
            break
        last = run(steps, f"try{len(runs) + 1}")
        runs.append(last)
        if ENOUGH * budget <= last.seconds <= budget or (steps == most and last.seconds <= budget):
            break
        say(f"{steps} steps took {last.seconds:.1f} of {budget:.1f} s: planning again")
        if last.steps > PROBE_STEPS and last.seconds > probe.seconds:
            per_step = (last.seconds - probe.seconds) / (last.steps - PROBE_STEPS)
            around = last.seconds - per_step * last.steps
    tries = tuple({"steps": one.steps, "seconds": round(one.seconds, 1)} for one in runs)
    within = [one for one in runs if one.seconds <= budget]
    if not within:
        raise UserError(f"no run came to its end within {budget:.1f} s: {tries}; the speed of this machine drifts")
    return dataclasses.replace(max(within, key=lambda one: one.steps), tries=tries)


def _timed(config: TrainConfig, name: str, say: Callable[[str], None]) -> _Timed:
    name = f"{name}-seed{config.seed}"
    start = time.perf_counter()
    rows = train_all({name: config}, at_once=1, seconds=0, say=say)[name]
    return _Timed(name, config.max_steps, time.perf_counter() - start, rows)


def _losses(run: Path, split: Split, seed: int) -> tuple[float, float]:
    """Over the whole split, and over 20 batches of 12 random windows as nanoGPT estimates it."""
    loaded = load_model(run)
    model, length = loaded.model.eval(), loaded.config.block_size
    module = LossModule(model)
    whole = evaluate_loss(
        module, eval_batches(split, block_size=length, batch_size=32), device=torch.device("cpu"), bytes_per_token=1.0
    )
    ids = torch.from_numpy(split.read_all().astype("int64"))
    n_batches, size = ESTIMATE
    starts = torch.randint(len(ids) - length, (n_batches, size), generator=torch.Generator().manual_seed(seed))
    windows = ids[starts[..., None] + torch.arange(length + 1)]  # (20, 12, T + 1)
    with torch.no_grad():
        total = sum(float(module(w[:, :-1], w[:, 1:])) for w in windows)
    return whole.loss, total / starts.numel() / length
