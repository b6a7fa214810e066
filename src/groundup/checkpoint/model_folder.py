"""The model folder: config.json, model.safetensors, tokenizer.json, manifest.json. All that a model needs to speak.

A checkpoint is such a folder with more files in it, and a run folder holds one as `model/`; `load_model` opens all
three. Nothing in it is code: tensors are safetensors, the rest is JSON.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from groundup.checkpoint.tensor_file import load_tensors, save_tensors
from groundup.config.errors import UserError
from groundup.config.io import dump_json, from_dict, from_kinds, load_json, to_dict
from groundup.config.model import BigramConfig, GPTConfig, ModelConfig, ModernConfig
from groundup.files.atomic import Facts, new_folder, recover, verify_folder, write_synced
from groundup.files.layout import CHECKPOINTS, CONFIG, TOKENIZER, WEIGHTS
from groundup.model.bigram import Bigram
from groundup.model.build import Transformer, build_model
from groundup.model.swap import use_matmul
from groundup.planner.params import count_parameters
from groundup.runtime.matmul import pick_matmul
from groundup.tokenizer.base import Tokenizer
from groundup.tokenizer.io import load_tokenizer, tokenizer_json

FORMAT, VERSION = "groundup-model", 1
_KINDS: tuple[type[GPTConfig] | type[ModernConfig] | type[BigramConfig], ...] = (GPTConfig, ModernConfig, BigramConfig)
_TRIES = 5
"""Checkpoints of a run that goes on that may vanish, one after the other, while they are read."""
_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@dataclass(frozen=True, slots=True)
class _Head:
    """config.json of a model folder."""

    format: str
    version: int
    kind: Literal["gpt", "modern", "bigram"]
    model: dict[str, Any]
    info: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready to use, with what it came with."""

    model: Transformer | Bigram
    tokenizer: Tokenizer
    config: ModelConfig
    info: dict[str, Any]
    """What training noted: step, val_loss, data."""
    path: Path
    """The folder it was read from."""


def save_model(path: Path, model: Transformer | Bigram, tokenizer: Tokenizer, info: dict[str, Any]) -> None:
    """Write a model folder, replacing one of the same name.

    Raises:
        UserError: The disk refuses; what was there before is still there.
    """
    known: dict[str, Facts] = {}
    with new_folder(path, known) as folder:
        known |= write_model_files(folder, model.config, model.state_dict(), tokenizer, info)


def write_model_files(
    folder: Path, config: ModelConfig, state: dict[str, Tensor], tokenizer: Tokenizer, info: dict[str, Any]
) -> dict[str, Facts]:
    """The three files of a model, into a folder that `new_folder` made.

    Returns:
        What is known of the large one, by its name.
    """
    values = {"format": FORMAT, "version": VERSION, "kind": config.kind, "model": to_dict(config), "info": info}
    write_synced(folder / CONFIG, dump_json(values).encode())
    write_synced(folder / TOKENIZER, tokenizer_json(tokenizer).encode())
    return {WEIGHTS: save_tensors(folder / WEIGHTS, state)}


def load_model(
    path: Path, *, device: torch.device | str = "cpu", dtype: torch.dtype | None = torch.float32, rows: int = 0
) -> LoadedModel:
    """Open a model folder, a checkpoint or a run (its `model/`, else its newest whole checkpoint).

    Every file is checked against its SHA-256 before it is used. With `dtype` None the weights keep the type they are
    stored in. With `rows`, tokens that a forward pass will have, the library that multiplies them fastest is used.

    Raises:
        UserError: There is no model there, a file is damaged, or the files do not fit together.
    """
    for _ in range(_TRIES):
        folder = find_model(path)
        try:
            return _load(folder, torch.device(device), dtype, rows)
        except UserError:
            if folder.exists():
                raise  # else a run that goes on has dropped this checkpoint meanwhile, and has a newer one
    return _load(find_model(path), torch.device(device), dtype, rows)


def _load(folder: Path, device: torch.device, dtype: torch.dtype | None, rows: int) -> LoadedModel:
    """Open a model folder that `find_model` found."""
    verify_folder(folder, CONFIG, WEIGHTS, TOKENIZER)
    config, info = read_config(folder / CONFIG)
    tokenizer = load_tokenizer(folder / TOKENIZER)
    if config.vocab_size != tokenizer.vocab_size:
        raise UserError(
            f"{folder} does not fit together: the model has {config.vocab_size} ids,"
            f" its tokenizer {tokenizer.vocab_size}"
        )
    _refuse_too_large(config, folder)
    with torch.device("meta"):
        model = build_model(config)
    state = load_tensors(folder / WEIGHTS)
    check_state(model, state, folder / WEIGHTS)
    model.load_state_dict({k: v.to(device=device, dtype=dtype) for k, v in state.items()}, assign=True)
    if rows and not isinstance(config, BigramConfig):
        use_matmul(model, pick_matmul(device, rows=rows, n_embd=config.n_embd, training=False))
    return LoadedModel(model.eval(), tokenizer, config, info, folder)


def _refuse_too_large(config: ModelConfig, folder: Path) -> None:
    """See whether the parameters of a config can be in the file beside it, before a model of that size is built."""
    n = count_parameters(config) if not isinstance(config, BigramConfig) else config.vocab_size**2
    size = (folder / WEIGHTS).stat().st_size
    if n * min(dtype.itemsize for dtype in _DTYPES) > size:
        raise UserError(f"{folder / WEIGHTS} does not fit its config: {n:,} parameters cannot be in {size:,} bytes")


def find_model(path: Path) -> Path:
    """The folder that holds the model of `path`.

    Raises:
        UserError: No model is there; the message says what was looked for.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist; give a run, checkpoint or model folder")
    if (path / CONFIG).is_file() and (path / WEIGHTS).is_file():
        return path
    recover(path / "model")
    if (path / "model" / WEIGHTS).is_file():
        return path / "model"
    # A run that is not over has no model/ yet.
    for folder in reversed(step_folders(path / CHECKPOINTS)):
        try:
            verify_folder(folder)
        except UserError:
            continue
        return folder
    raise UserError(f"{path} holds no model: neither {WEIGHTS} nor model/ nor checkpoints/ is in it")


def step_folder(checkpoints: Path, step: int) -> Path:
    """The folder of the checkpoint of a step."""
    return checkpoints / f"step-{step:07d}"


def step_folders(checkpoints: Path) -> list[Path]:
    """All checkpoints of a run, oldest first: what has exactly such a name. Anything else beside them is not ours."""
    numbers = [int(name[5:]) for name in _names(checkpoints) if re.fullmatch(r"step-[0-9]{7,18}", name)]
    folders = [step_folder(checkpoints, number) for number in sorted(numbers)]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir() and not folder.is_symlink()]


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


def check_state(model: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Compare names, shapes and types of tensors with a model's.

    Raises:
        UserError: They differ; one message lists everything.
    """
    wanted = model.state_dict()
    faults = [f"{name} is missing" for name in wanted if name not in state]
    faults += [f"{name} is not part of the model" for name in state if name not in wanted]
    for name in wanted.keys() & state.keys():
        if state[name].shape != wanted[name].shape:
            faults.append(f"{name} is {tuple(state[name].shape)} instead of {tuple(wanted[name].shape)}")
        elif state[name].dtype not in _DTYPES:
            faults.append(f"{name} is {state[name].dtype}, not a floating-point type")
    if faults:
        raise UserError(f"{path} does not fit its config: {'; '.join(sorted(faults))}")
