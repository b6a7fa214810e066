"""The models near the working folder, for a command that names none, or one that is not there. Needs no torch."""

import difflib
from collections.abc import Callable
from pathlib import Path

from groundup.config.errors import UsageError, UserError
from groundup.config.printable import listed
from groundup.files.foreign import other_programs
from groundup.files.hub_listing import HUB, on_hub
from groundup.files.layout import CHECKPOINTS, CONFIG, METRICS, MODEL, RUN, WEIGHTS

PLACES = ("runs", "models")
"""Folders in which models lie by default."""
SHOWN = 5


def missing_model(*command: str) -> UsageError:
    """What to say where a command is given no model: the models that there are.

    Args:
        command: The command, and words that stand behind the model.
    """
    found = [str(path) for place in PLACES for path in models_in(Path(place))]
    there = f"here are {listed(found, SHOWN)}" if found else "there is none yet; groundup train shakespeare makes one"
    words = " ".join([command[0], "runs/NAME", *command[1:]])
    return UsageError(f"name a run or a model, as in: groundup {words}; {there}")


def missing_run() -> UsageError:
    """What to say where a run is to go on and none is named: those that there are."""
    found = [str(path) for path in models_in(Path(PLACES[0])) if (path / CHECKPOINTS).exists()]
    there = f"here are {listed(found, SHOWN)}" if found else "there is none yet; groundup train shakespeare makes one"
    return UsageError(f"name the run to go on with: groundup train --resume runs/NAME; {there}")


def nothing_to_resume(path: Path) -> UserError:
    """What to say where the path that is to go on is no run: the run that was probably meant."""
    near = _nearest(path, lambda run: (run / CHECKPOINTS).exists())
    hint = f"; did you mean {near}?" if near and near != path else ""
    return UserError(f"{path} holds no run to resume: there is no {CONFIG} in it{hint}")


def check_model(path: Path) -> None:
    """See that a path may hold a model before the seconds that loading PyTorch takes.

    Raises:
        UserError: It does not, or does not exist.
    """
    if not path.exists():
        if (there := on_hub(str(path))) and not _nearest(path):
            out = Path("models", path.name.removeprefix(HUB))
            raise UserError(f"{path} is not here yet: groundup import {there}, then give {out}")
        raise _not_there(path, "give a run, checkpoint or model folder")
    if theirs := other_programs(path):
        raise UserError(theirs)
    if not holds_model(path):
        if found := models_in(path):
            raise UserError(f"{path} is no model but a folder of {len(found)}: {listed([*map(str, found)], SHOWN)}")
        raise UserError(f"{path} holds no model: neither {WEIGHTS} nor {MODEL}/ nor {CHECKPOINTS}/ is in it")


def _not_there(path: Path, hint: str) -> UserError:
    """What to say of a path that does not exist: the model that was probably meant, or a hint."""
    near = _nearest(path)
    return UserError(f"{path} does not exist; {f'did you mean {near}?' if near else hint}")


def _nearest(path: Path, fits: Callable[[Path], bool] = lambda _: True) -> Path | None:
    """The run or model with nearly the name of a path, beside it or in PLACES, of those that fit."""
    folders = [*map(Path, PLACES[::-1]), path.parent]
    there = {each.name.lower(): each for folder in folders for each in models_in(folder) if fits(each)}
    near = difflib.get_close_matches(path.name.removeprefix(HUB).lower(), there, n=1, cutoff=0.75)
    return there[near[0]] if near else None


def no_run(path: Path) -> UserError:
    """The hint for a path that is no run's folder: the runs that were probably meant."""
    if not path.exists():
        return _not_there(path, "give the folder of a run")
    if found := models_in(path):
        return UserError(f"{path} is no run but a folder of {len(found)}: {listed([*map(str, found)], SHOWN)}")
    if (path.parent / RUN).is_file():
        return UserError(f"{path} is a part of a run; did you mean {path.parent}?")
    return UserError(f"{path} is not a run folder: it holds neither {RUN} nor {CONFIG} and {METRICS}")


def models_in(folder: Path) -> list[Path]:
    """The runs and models in a folder, the newest first."""
    try:
        return sorted(filter(holds_model, folder.iterdir()), key=lambda path: -path.stat().st_mtime)
    except OSError:
        return []


def holds_model(path: Path) -> bool:
    """Whether a folder looks like a run or a model."""
    try:
        return any((path / name).exists() for name in (WEIGHTS, RUN, MODEL, CHECKPOINTS))
    except OSError:  # it is of another user
        return False
