"""groundup sweep PRESET --FLAG A,B,C --seed 1..3: one run for every combination, then a table and a plot.

Each run is a `groundup train` of its own, so that it may crash, be stopped or be resumed by itself. What is finished is
not run again: the same command goes on where it was.
"""

import functools
import itertools
import math
import operator
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from groundup.cli.train import read_request
from groundup.config.errors import UsageError
from groundup.config.io import differing_keys, to_dict
from groundup.config.train import TrainConfig
from groundup.records.history import read_run
from groundup.studies.runs import changed
from groundup.studies.sweep import compare, refuse_another, run_or_resume
from groundup.terminal.parse import values_in
from groundup.terminal.say import warn
from groundup.training import own_text

MOST_RUNS = 1000
"""More is a slip of the pen: 1..1000000."""

Axis = tuple[int, str, list[str]]
"""The place of a flag's values among the words, the flag, and the values."""

USAGE = """usage: groundup sweep PRESET --FLAG A,B,... [--FLAG A..B] [flags of groundup train]

One run for every combination of the flags that have several values, in OUT_DIR/NAME (runs/sweep-PRESET), one after the
other. Values stand between commas (--optim.lr 1e-3,3e-3); whole numbers may be a range (--seed 1..3). All other flags
are those of groundup train, for every run. Runs that differ in their seed alone are one row of the table: mean and
deviation.

The same command goes on where it was stopped. At the end: the table, and sweep.png with a band for each row.

  groundup sweep shakespeare --optim.lr 1e-3,3e-3 --seed 1..3 --max-steps 500"""


def main(argv: Sequence[str]) -> int:
    """Run what is missing, then show all of it."""
    if not argv or {"-h", "--help"} & set(argv):
        print(USAGE)
        return 0
    runs = plan_runs(list(argv))
    for i, (config, words) in enumerate(runs, 1):
        if code := run_or_resume(config, words, f"run {i} of {len(runs)}: {config.run_dir}"):
            if config.run_dir.exists():  # else it has begun nothing, and said why
                warn(f"{config.run_dir} ended with {code}; the same command goes on")
            return code
    compare([read_run(config.run_dir) for config, _ in runs], runs[0][0].out_dir)
    return 0


def plan_runs(words: list[str]) -> list[tuple[TrainConfig, list[str]]]:
    """The config of every run, and the words of `groundup train` that start it.

    Raises:
        UsageError: A flag is wrong, nothing varies, or there are more runs than MOST_RUNS.
        UserError: A run's folder holds another run.
    """
    words = [part for word in words for part in (word.split("=", 1) if re.match(r"--[\w.\-]+=", word) else [word])]
    axes: list[Axis] = []
    for i, word in enumerate(words[1:], 1):
        listed = re.match(r"--(?!data\.separator$)", flag := words[i - 1])  # a separator may be a comma
        if listed and len(values := values_in(word, most=MOST_RUNS)) > 1:
            axes.append((i, flag.removeprefix("--"), values))
    if not axes:
        raise UsageError("nothing varies: give a flag several values, as in --optim.lr 1e-3,3e-3 or --seed 1..3")
    given = [word.replace("_", "-") for word in words]
    if twice := next((key for _, key, _ in axes if given.count(f"--{key}".replace("_", "-")) > 1), None):
        raise UsageError(f"--{twice} is given twice, and has several values in one place: give it once")
    if odd := {"--resume", "--resume-or-start", "--dry-run", "--config"} & set(words):
        raise UsageError(f"{min(odd)} does not go with sweep: it begins at a preset, and goes on by itself")
    if not own_text.plain(words):
        raise UsageError("name what to train, a preset or a text, as in groundup sweep shakespeare --seed 1..3")
    if math.prod(len(values) for _, _, values in axes) > MOST_RUNS:
        raise UsageError(f"these flags make more than {MOST_RUNS} runs")
    base = read_request(_with(words, {i: values[0] for i, _, values in axes})).config
    changes = {(i, value): _changes(words, axes, i, value, base) for i, _, values in axes for value in values}
    runs = []
    for combination in itertools.product(*(values for _, _, values in axes)):
        chosen = dict(zip((i for i, _, _ in axes), combination, strict=True))
        config = changed(base, {k: v for place in chosen.items() for k, v in changes[place].items()})
        sweep = config.name if "--name" in words else f"sweep-{config.name}"
        name = ",".join(f"{axis[1].rpartition('.')[2]}={value}" for axis, value in zip(axes, combination, strict=True))
        config = replace(config, name=re.sub(r"[^\w.,=+-]", "_", name), out_dir=config.out_dir / sweep)
        runs.append((config, [*_with(words, chosen), "--name", config.name, "--out-dir", str(config.out_dir)]))
    if len({replace(config, name="run", out_dir=Path()) for config, _ in runs}) < len(runs):
        raise UsageError("two of the runs would train the same: a value stands twice, or names a folder alone")
    if len({config.name for config, _ in runs}) < len(runs):
        raise UsageError("two of the runs would have the same folder: their values differ in odd characters alone")
    for config, _ in runs:
        refuse_another(config)
    return runs


def _with(words: list[str], chosen: dict[int, str]) -> list[str]:
    """The words, with one value at each place that has several."""
    return [chosen.get(i, word) for i, word in enumerate(words)]


def _changes(words: list[str], axes: list[Axis], at: int, value: str, base: TrainConfig) -> dict[str, Any]:
    """What a value changes in the base. Reading flags takes 50 ms, most of it tyro's: once per value, not per run."""
    if value == next(values[0] for i, _, values in axes if i == at):
        return {}
    config = read_request(_with(words, {i: value if i == at else values[0] for i, _, values in axes})).config
    found, keys = to_dict(config), differing_keys(base, config)
    return {key: functools.reduce(operator.getitem, key.split("."), found) for key in keys}
