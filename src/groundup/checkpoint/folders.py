"""Where the model of a run lies, and what its config says: read without PyTorch."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from groundup.config.errors import UserError
from groundup.config.io import from_dict, from_kinds, load_json, load_object
from groundup.config.model import BigramConfig, GPTConfig, ModelConfig, ModernConfig
from groundup.files.atomic import recover
from groundup.files.foreign import other_programs
from groundup.files.layout import CHECKPOINTS, CONFIG, MODEL, RUN, TOKENIZER, WEIGHTS
from groundup.files.manifest import verify_folder

FORMAT, VERSION = "groundup-model", 1
RUN_STEP = "run_step"
"""In what `model/` notes: the step of its run at which it was made."""
_KINDS: tuple[type[GPTConfig] | type[ModernConfig] | type[BigramConfig], ...] = (GPTConfig, ModernConfig, BigramConfig)


@dataclass(frozen=True, slots=True)
class _Head:
    """config.json of a model folder."""

    format: str
    version: int
    kind: Literal["gpt", "modern", "bigram"]
    model: dict[str, Any]
    info: dict[str, Any] | None = None


def find_model(path: Path) -> Path:
    """The folder that holds the model of `path`.

    Of a run it is `model/`, or its newest whole checkpoint where it is not over or has gone on since `model/` was made.

    Raises:
        UserError: No model is there; the message says what was looked for.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist; give a run, checkpoint or model folder")
    if theirs := other_programs(path):
        raise UserError(theirs)
    if (path / CONFIG).is_file() and (path / WEIGHTS).is_file():
        return path
    recover(path / MODEL)
    has_model = (path / MODEL / WEIGHTS).is_file()
    steps = step_folders(path / CHECKPOINTS)
    made_at = _made_at(path, max(steps, default=-1)) if has_model else -1
    damage = ""
    for folder in (steps[step] for step in sorted(steps, reverse=True) if step > made_at):
        try:
            verify_folder(folder)
        except UserError as error:
            damage = damage or str(error)
            continue
        return folder
    if damage and has_model:
        raise UserError(
            f"{path} went on after its {MODEL}/ was made, and has no whole checkpoint since: {damage}; for the model of"
            f" before, give {path / MODEL}"
        )
    if damage:
        raise UserError(f"{path} has no {MODEL}/ yet and no whole checkpoint: {damage}")
    if has_model:
        return path / MODEL
    raise UserError(f"{path} holds no model: neither {WEIGHTS} nor {MODEL}/ nor {CHECKPOINTS}/ is in it")


def _made_at(run: Path, newest: int) -> int:
    """The step of a run at which its `model/` was made: not that of the weights in it, which are the best.

    A `model/` of before this was noted is the last of its run where the newest checkpoint is at the run's end.
    """
    info = load_object(run / MODEL / CONFIG).get("info")
    info = info if isinstance(info, dict) else {}
    if type(noted := info.get(RUN_STEP)) is int:
        return noted
    end, best = load_object(run / CONFIG).get("max_steps"), info.get("step")
    if type(end) is int and type(best) is int and newest < end:
        first = load_object(run / RUN).get("config")
        first_end = first.get("max_steps") if isinstance(first, dict) else None
        return max(best, first_end) if type(first_end) is int and first_end < end else best
    return newest


def step_folder(checkpoints: Path, step: int) -> Path:
    """The folder of the checkpoint of a step."""
    return checkpoints / f"step-{step:07d}"


def step_folders(checkpoints: Path) -> dict[int, Path]:
    """All checkpoints of a run by their step, oldest first: what has exactly such a name. Else it is not ours."""
    steps = sorted(int(name[5:]) for name in _names(checkpoints) if re.fullmatch(r"step-[0-9]{7,18}", name))
    folders = {step: step_folder(checkpoints, step) for step in steps}
    return {step: folder for step, folder in folders.items() if folder.is_dir() and not folder.is_symlink()}


def _names(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(f"cannot list {folder}: {error.strerror or error}") from error


def read_config(path: Path) -> tuple[ModelConfig, dict[str, Any]]:
    """The shape of the model in a folder, and what training noted of it.

    Raises:
        UserError: Not our format, or a newer version of it.
    """
    values = load_json(path)
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise UserError(f'{path} is not a groundup model: its "format" is not "{FORMAT}"')
    version = values.get("version")
    if version != VERSION:
        raise UserError(f"{path} has format version {version}; this groundup reads version {VERSION}")
    try:
        head = from_dict(_Head, values)
        return from_kinds(_KINDS, {**head.model, "kind": head.kind}, where="model"), head.info or {}
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def config_of(path: Path) -> tuple[GPTConfig | ModernConfig, Path] | None:
    """The shape of a model folder, its vocabulary left open, and the file of its tokenizer; None for a bigram.

    Raises:
        UserError: There is no model there.
    """
    folder = find_model(path)
    config, _ = read_config(folder / CONFIG)
    if isinstance(config, BigramConfig):
        return None  # `init_from` says so
    return replace(config, vocab_size=0), folder / TOKENIZER


def is_model_folder(path: Path) -> bool:
    """Whether a folder holds a model of ours, of whatever version."""
    return load_object(path / CONFIG).get("format") == FORMAT
