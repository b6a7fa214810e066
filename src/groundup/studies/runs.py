"""Whole runs side by side: `groundup train` in processes of its own, its metrics read when it is over.

Nothing is trained in another way than a user trains. A run that is cut short leaves its folder, and is not compared.
"""

import dataclasses
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from groundup.config.errors import UsageError, UserError
from groundup.config.io import dump_json, from_dict, to_dict
from groundup.config.train import TrainConfig
from groundup.files.atomic import make_folder, write_file
from groundup.files.layout import METRICS
from groundup.files.processes import end_with_parent
from groundup.records.facts import number
from groundup.records.history import is_finite, whole_looks
from groundup.records.measured import PART
from groundup.records.metrics import read_metrics
from groundup.studies.options import HEAD_DIM, shape_of
from groundup.terminal.python import fresh_python
from groundup.terminal.waiting import THREADS, own_cores

WAIT = 0.2
"""Seconds between looks at the runs."""
GRACE = 30.0
"""Seconds that a run which is cut short has for saving."""


def changed(config: TrainConfig, changes: Mapping[str, Any]) -> TrainConfig:
    """A config with some values replaced, by their dotted names, as the flags of `groundup train` do.

    Raises:
        UserError: There is no such name, or the value has another type.
    """
    values = to_dict(config)
    for name, value in changes.items():
        place = values
        *path, last = name.split(".")
        for key in path:
            if key not in place:
                raise UsageError(f"a recipe has no {name}")
            place = place[key]
        place[last] = value
    return from_dict(TrainConfig, values)


def sized(config: TrainConfig, size: str) -> TrainConfig:
    """A config whose model has another size, with heads of HEAD_DIM; the rest stays.

    Args:
        config: A run.
        size: Layers x width, such as 4x128.

    Raises:
        UsageError: It says no size.
    """
    n_layer, n_embd = shape_of(size)
    return changed(config, {"model.n_layer": n_layer, "model.n_embd": n_embd, "model.n_head": n_embd // HEAD_DIM})


def bare(recipe: TrainConfig, folder: Path, *, device: str, eval_tokens: int, text: Path | None) -> TrainConfig:
    """A recipe with as little around the training as there can be.

    Args:
        recipe: What to train.
        folder: Of the runs and their data.
        device: auto, cpu, cuda or mps.
        eval_tokens: Validation tokens of each evaluation; 0 is the whole split.
        text: Where the text is on this machine; None leaves it to the recipe.
    """
    return changed(
        recipe,
        {
            "out_dir": str(folder),
            "runtime.device": device,
            "runtime.compile": "off",
            "eval.sample_every": 0,
            "eval.max_tokens": eval_tokens,
            "checkpoint.every": 1_000_000_000,
            "data.cache_dir": str(folder / "data"),
        }
        | ({"data.path": str(text)} if text else {}),
    )


def train_all(
    configs: Mapping[str, TrainConfig], *, at_once: int, seconds: float, say: Callable[[str], None]
) -> dict[str, list[dict[str, Any]]]:
    """Train every config, several at once, each with its share of the cores.

    Args:
        configs: By name; a run's folder is `out_dir / name`.
        at_once: How many.
        seconds: After so long no run begins, and those that go on are stopped; 0 is no limit.
        say: Called with a line per run.

    Returns:
        The metrics of each that came to its end in this call; empty for the others, whose folder may be of an earlier.

    Raises:
        UserError: A run failed.
    """
    start = time.monotonic()
    waiting, going = list(configs.items()), dict[str, subprocess.Popen[bytes]]()
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in configs}
    threads = str(max(1, own_cores() // at_once))
    try:
        while waiting or going:
            over = seconds and time.monotonic() - start > seconds
            while waiting and len(going) < at_once and not over:
                name, config = waiting.pop(0)
                going[name] = _start(dataclasses.replace(config, name=name), threads)
            for name, process in list(going.items()):
                if process.poll() is not None:
                    del going[name]
                    rows[name] = _finished(configs[name], name, process.returncode, say)
            if over:
                break
            time.sleep(WAIT)
    finally:
        _stop(going)
    for name in going:
        say(f"{name}: stopped, the time was over")
    for name, _ in waiting:
        say(f"{name}: not begun, the time was over")
    return rows


def curve(rows: list[dict[str, Any]]) -> list[dict[str, float]]:
    """Validation losses of a run: step, tokens, seconds of training, loss; of a part of the split, its tokens."""
    same = {key: key for key in ("step", "tokens", "seconds")}
    keys = same | {"loss": "val/loss", "raw": "val/loss_raw", "part": PART}
    return [{short: row[key] for short, key in keys.items() if key in row} for row in rows if "val/loss" in row]


def best_loss(rows: list[dict[str, Any]]) -> float | None:
    """The lowest loss over the whole validation split, of weights or of their average; None where none was measured."""
    looks = [row for row in whole_looks(rows) if row["step"] > 0]
    losses = [row[key] for row in looks for key in ("val/loss", "val/loss_raw") if is_finite(row.get(key))]
    return min(losses, default=None)


def spread(losses: list[float]) -> dict[str, float]:
    """Mean of several seeds, and how far they are apart."""
    return {"mean": round(statistics.mean(losses), 4), "spread": round(max(losses) - min(losses), 4)}


def _start(config: TrainConfig, threads: str) -> "subprocess.Popen[bytes]":
    make_folder(config.out_dir)
    file = config.out_dir / f"{config.name}.json"
    write_file(file, dump_json(to_dict(config)).encode())
    command, environment = fresh_python("-m", "groundup", "train", "--config", str(file))
    (path := config.out_dir / f"{config.name}.log").unlink(missing_ok=True)  # an old run may still write there
    with path.open("wb") as log:
        return subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment | {THREADS: threads},
            preexec_fn=end_with_parent if os.name == "posix" else None,  # a run that nobody waits for saves, and ends
        )


def _finished(config: TrainConfig, name: str, code: int, say: Callable[[str], None]) -> list[dict[str, Any]]:
    log = config.out_dir / f"{name}.log"
    if code:
        lines = log.read_text("utf-8", "replace").strip().splitlines()
        raise UserError(f"the run {name} failed: {lines[-1] if lines else f'exit code {code}'} (see {log})")
    rows = read_metrics(config.out_dir / name / METRICS)
    loss, seconds = best_loss(rows), max((row.get("seconds", 0.0) for row in rows), default=0.0)
    say(f"{name}: best validation loss {number(loss)}, {seconds:.1f} s of training steps")
    return rows


def _stop(going: Mapping[str, "subprocess.Popen[bytes]"]) -> None:
    for process in going.values():
        process.terminate()
    for process in going.values():
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
