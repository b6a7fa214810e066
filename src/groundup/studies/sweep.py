"""One run of many: made by `groundup train` in a process of its own, and not again where it is finished."""

import os
import subprocess
import sys

from groundup.config.train import TrainConfig
from groundup.files.layout import CHECKPOINTS, CONFIG
from groundup.files.processes import end_with_parent
from groundup.records.history import read_run
from groundup.terminal.ended import Ended
from groundup.terminal.say import say


def run_or_resume(config: TrainConfig, words: list[str], title: str) -> int:
    """Train in a process of its own, which hears Ctrl-C itself; its exit code."""
    begun = (config.run_dir / CONFIG).is_file()
    if begun and read_run(config.run_dir).state == "finished":
        say(f"{title}: finished")
        return 0
    resumes = begun and any((config.run_dir / CHECKPOINTS).glob("step-*"))
    say(f"{title}{': goes on' if resumes else ''}")
    command = ["train", "--resume", str(config.run_dir)] if resumes else ["train", *words]
    process = subprocess.Popen(
        [sys.executable, "-m", "groundup", *command],
        preexec_fn=end_with_parent if os.name == "posix" else None,  # a run without a sweep saves, and ends
    )
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue  # the run has heard it too: it saves, and ends with 130
        except Ended:
            process.terminate()
            process.wait()
            raise
