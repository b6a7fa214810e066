"""The runs of a sweep: each by `groundup train` in a process of its own, and not again where it is finished."""

import os
import shlex
import signal
import subprocess
from pathlib import Path

from groundup.checkpoint.folders import step_folders
from groundup.config.errors import UserError
from groundup.config.io import differing_keys, read_json
from groundup.config.printable import counted
from groundup.config.train import TrainConfig
from groundup.files.layout import CHECKPOINTS, CONFIG
from groundup.files.new import refuse_unwritable
from groundup.files.processes import end_with_parent
from groundup.records.groups import group, table
from groundup.records.history import RunHistory, read_run
from groundup.terminal.ended import Ended
from groundup.terminal.python import fresh_python
from groundup.terminal.say import say, warn
from groundup.terminal.tables import print_table


def refuse_another(config: TrainConfig) -> None:
    """See that a run has a folder, which is its own.

    Raises:
        UserError: There is no place for one, or it holds a run with other settings.
    """
    refuse_unwritable(config.run_dir, folder=True)
    path = config.run_dir / CONFIG
    if path.is_file() and (differing := differing_keys(read_json(path, TrainConfig), config)):
        raise UserError(
            f"{config.run_dir} is a run with other {', '.join(differing)}; give this sweep a --name of its own"
        )


def run_or_resume(config: TrainConfig, words: list[str], title: str) -> int:
    """Train in a process of its own, which hears Ctrl-C of a terminal itself; its exit code."""
    begun = (config.run_dir / CONFIG).is_file()
    if begun and read_run(config.run_dir).state == "finished":
        say(f"{title}: finished")
        return 0
    resumes = begun and bool(step_folders(config.run_dir / CHECKPOINTS))
    say(f"{title}{': goes on' if resumes else ''}")
    words = ["--resume", str(config.run_dir)] if resumes else words
    command, environment = fresh_python("-m", "groundup", "train", *words)
    passed_on = os.name == "posix" and not _has_terminal()
    process = subprocess.Popen(
        command,
        env=environment,
        start_new_session=passed_on,  # so that it never hears a signal twice
        preexec_fn=end_with_parent if os.name == "posix" else None,  # a run without a sweep saves, and ends
    )
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            if passed_on:
                process.send_signal(signal.SIGINT)
            continue  # the run saves, and ends with 130
        except Ended:
            process.terminate()
            process.wait()
            raise


def _has_terminal() -> bool:
    """Whether Ctrl-C comes from a terminal, which sends it to all processes in it; a supervisor asks this one alone."""
    try:
        os.close(os.open(os.ctermid(), os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def compare(runs: list[RunHistory], folder: Path) -> None:
    """Print a table of the runs, and draw them into their folder."""
    from groundup.records.plot import plot_bands

    groups = group(runs)
    print_table(table(groups))
    if short := sum(run.state != "finished" for run in runs):
        warn(
            f"{short} of {counted(len(runs), 'run')} are not at their last step, and compared by what they have;"
            " the same command goes on"
        )
    plot_bands(groups, folder / "sweep.png")
    say(f"drew {folder / 'sweep.png'}; each run: groundup runs list {shlex.quote(str(folder))}")
