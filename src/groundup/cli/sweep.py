"""groundup sweep PRESET --FLAG A,B,C --seed 1..3: one run for every combination, then a table and a plot.

Each run is a `groundup train` of its own, so that it may crash, be stopped or be resumed by itself. What is finished is
not run again: the same command goes on where it was.
"""

import itertools
import math
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from groundup.cli.train import read_request
from groundup.config.errors import UsageError, UserError
from groundup.config.io import differing_keys, read_json
from groundup.config.train import TrainConfig
from groundup.files.layout import CHECKPOINTS, CONFIG
from groundup.records.groups import group, table
from groundup.records.history import RunHistory, read_run
from groundup.terminal.parse import values_in
from groundup.terminal.say import say, warn
from groundup.terminal.tables import show

MOST_RUNS = 1000
"""More is a slip of the pen: 1..1000000."""

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
        code = _run(config, words, f"run {i} of {len(runs)}: {config.run_dir}")
        if code:
            warn(f"{config.run_dir} ended with {code}; the same command goes on")
            return code
    return _show([read_run(config.run_dir) for config, _ in runs], runs[0][0].out_dir)


def plan_runs(words: list[str]) -> list[tuple[TrainConfig, list[str]]]:
    """The config of every run, and the words of `groundup train` that start it.

    Raises:
        UsageError: A flag is wrong, nothing varies, or there are more runs than MOST_RUNS.
        UserError: A run's folder holds another run.
    """
    words = [part for word in words for part in (word.split("=", 1) if re.match(r"--[\w.\-]+=", word) else [word])]
    axes: list[tuple[int, str, list[str]]] = []
    for i, word in enumerate(words[1:], 1):
        values = values_in(word, most=MOST_RUNS) if words[i - 1].startswith("--") else []
        if len(values) > 1:
            axes.append((i, words[i - 1].removeprefix("--"), values))
    if not axes:
        raise UsageError("nothing varies: give a flag several values, as in --optim.lr 1e-3,3e-3 or --seed 1..3")
    if odd := {"--resume", "--dry-run", "--config"} & set(words):
        raise UsageError(f"{min(odd)} does not go with sweep: it begins at a preset, and goes on by itself")
    if math.prod(len(values) for _, _, values in axes) > MOST_RUNS:
        raise UsageError(f"these flags make more than {MOST_RUNS} runs")
    runs = []
    for combination in itertools.product(*(values for _, _, values in axes)):
        varied = list(words)
        for (i, _, _), value in zip(axes, combination, strict=True):
            varied[i] = value
        config = read_request(list(varied)).config
        sweep = config.name if "--name" in words else f"sweep-{config.name}"
        named = zip([key.rpartition(".")[2] for _, key, _ in axes], combination, strict=True)
        name = ",".join(f"{key}={value}" for key, value in named)
        config = replace(config, name=re.sub(r"[^\w.,=+-]", "_", name), out_dir=config.out_dir / sweep)
        runs.append((config, [*varied, "--name", config.name, "--out-dir", str(config.out_dir)]))
    if len({config.name for config, _ in runs}) < len(runs):
        raise UsageError("two of the runs are the same: a value stands twice")
    for config, _ in runs:
        _refuse_another(config)
    return runs


def _refuse_another(config: TrainConfig) -> None:
    path = config.run_dir / CONFIG
    if not path.is_file():
        return
    changed = differing_keys(read_json(path, TrainConfig), config)
    if changed:
        raise UserError(
            f"{config.run_dir} is a run with other {', '.join(changed)}; give this sweep a --name of its own"
        )


def _run(config: TrainConfig, words: list[str], title: str) -> int:
    """Train in a process of its own, which hears Ctrl-C itself; its exit code."""
    begun = (config.run_dir / CONFIG).is_file()
    if begun and read_run(config.run_dir).state == "finished":
        say(f"{title}: finished")
        return 0
    resumes = begun and any((config.run_dir / CHECKPOINTS).glob("step-*"))
    say(f"{title}{': goes on' if resumes else ''}")
    command = ["train", "--resume", str(config.run_dir)] if resumes else ["train", *words]
    process = subprocess.Popen([sys.executable, "-m", "groundup", *command])
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue  # the run has heard it too: it saves, and ends with 130


def _show(runs: list[RunHistory], folder: Path) -> int:
    from groundup.records.plot import plot_bands

    groups = group(runs)
    show(table(groups))
    plot_bands(groups, folder / "sweep.png")
    say(f"drew {folder / 'sweep.png'}; each run: groundup runs list {shlex.quote(str(folder))}")
    return 0
