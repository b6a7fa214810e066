"""The folder of a run: kept by one run at a time, and of an earlier run only taken when the new one has begun."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from groundup.checkpoint.state import CheckpointStore
from groundup.config.errors import UserError
from groundup.config.train import TrainConfig
from groundup.distributed.ranks import World
from groundup.files.atomic import made_for, make_folder
from groundup.files.layout import CHECKPOINTS, CONFIG, GROWTH, METRICS, RUN, TENSORBOARD, WANDB
from groundup.files.leftovers import remove_leftover
from groundup.files.lock import RunLock
from groundup.records.metrics import read_metrics
from groundup.training.snapshot import check_state

OF_A_START = frozenset({CONFIG, RUN, METRICS, CHECKPOINTS, GROWTH, TENSORBOARD, WANDB})
"""What a run has in its folder before its first step."""


@contextlib.contextmanager
def own_folder(config: TrainConfig, world: World) -> Iterator[CheckpointStore]:
    """The checkpoints of a run folder, for as long as rank 0 keeps all other runs out of it."""
    store = CheckpointStore(
        config.run_dir / CHECKPOINTS, keep_last=config.checkpoint.keep_last, check_state=check_state
    )
    if not world.is_main:
        yield store
        return
    with made_for(config.out_dir), RunLock(config.run_dir):
        yield store


@contextlib.contextmanager
def fresh_folder(run_dir: Path, say: Callable[[str], None]) -> Iterator[None]:
    """An empty folder for a new run; an earlier run is set aside, or removed where it made no step.

    Where the block fails (a service refuses the run, the disk is full), the new folder is gone again and the earlier
    run is back under its name.

    Raises:
        UserError: The earlier run cannot be set aside.
    """
    earlier = set_aside(run_dir)
    try:
        make_folder(run_dir)
        yield
    except BaseException:
        if run_dir.is_dir() and not run_dir.is_symlink():
            shutil.rmtree(run_dir, ignore_errors=True)
        if earlier is not None and not run_dir.exists():
            earlier.rename(run_dir)
        raise
    if earlier is not None and _is_false_start(earlier):
        remove_leftover(earlier)
        say("an earlier run was here that made no step; it is removed")
    elif earlier is not None:
        say(f"an earlier run was here; it is in {earlier} now")


def _is_false_start(folder: Path) -> bool:
    """Whether a folder holds a run that made no step, and nothing beside it that a person may want."""
    try:
        names = {path.name for path in folder.iterdir()}
        saved = any((folder / CHECKPOINTS).glob("step-*"))
        return CONFIG in names and names <= OF_A_START and not saved and not _steps(folder)
    except (OSError, UserError):
        return False


def _steps(folder: Path) -> bool:
    path = folder / METRICS
    return path.exists() and any("train/loss" in row for row in read_metrics(path))


def set_aside(run_dir: Path) -> Path | None:
    """Rename an earlier run out of the way: it is never overwritten. An empty folder, or a link to one, is no run.

    Returns:
        Where it is now (`runs/name.1`, the next free number), or None if there was nothing.

    Raises:
        UserError: What is there can be neither used nor renamed.
    """
    if run_dir.is_symlink() and not run_dir.exists():
        raise UserError(
            f"{run_dir} is a link to {run_dir.readlink()}, which does not exist; make it, or remove the link"
        )
    if not run_dir.exists() or (run_dir.is_dir() and not any(run_dir.iterdir())):
        return None
    if os.path.ismount(run_dir):  # Path has it on Windows from Python 3.12 on
        raise UserError(
            f"{run_dir} is the root of a disk and not empty, so it cannot be set aside; choose another --name"
        )
    number = 1
    while (target := run_dir.with_name(f"{run_dir.name}.{number}")).exists():
        number += 1
    run_dir.rename(target)
    return target
