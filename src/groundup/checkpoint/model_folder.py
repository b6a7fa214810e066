"""The model folder: config.json, model.safetensors, tokenizer.json, manifest.json. It is enough to generate text.

A checkpoint is such a folder with more files in it, and a run folder holds one as `model/`; `load_model` opens all
three. Nothing in it is code: tensors are safetensors, the rest is JSON.
"""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from groundup.checkpoint.folders import FORMAT, VERSION, find_model, read_config
from groundup.checkpoint.tensor_file import each_tensor, load_tensors, save_tensors
from groundup.config.errors import UserError
from groundup.config.io import dump_json, to_dict
from groundup.config.model import BigramConfig, ModelConfig
from groundup.files.atomic import new_folder, write_synced
from groundup.files.layout import CONFIG, TOKENIZER, WEIGHTS
from groundup.files.manifest import Facts, verify_folder
from groundup.inference.pick import pick_weights
from groundup.inference.recorded import use_decode_kernels
from groundup.inference.stored_linear import MAX_ROWS
from groundup.inference.weights import arrange_weights, stored_tensors, use_weights
from groundup.kernels.compiled import load_kernels
from groundup.model.bigram import Bigram
from groundup.model.build import Transformer, empty_model
from groundup.model.swap import use_matmul
from groundup.planner.params import count_parameters
from groundup.runtime.allocator import large_blocks_apart
from groundup.runtime.matmul import MIN_WIDTH_OF_DECODING, pick_matmul
from groundup.runtime.stored import DTYPES, Weights
from groundup.tokenizer.base import Tokenizer
from groundup.tokenizer.io import load_tokenizer, tokenizer_json

_TRIES = 5
"""Checkpoints of a run that goes on that may vanish, one after the other, while they are read."""
_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready to use, with what it came with."""

    model: Transformer | Bigram
    tokenizer: Tokenizer
    config: ModelConfig
    info: dict[str, Any]
    """What training noted: step, val_loss, data, run_step."""
    path: Path
    """The folder it was read from."""


def save_model(path: Path, model: Transformer | Bigram, tokenizer: Tokenizer, info: dict[str, Any]) -> None:
    """Write a model folder, replacing one of the same name.

    Raises:
        UserError: The disk refuses; what was there before is still there.
    """
    save_weights(path, model.config, model.state_dict(), tokenizer, info)


def save_weights(
    path: Path, config: ModelConfig, state: dict[str, Tensor], tokenizer: Tokenizer, info: dict[str, Any]
) -> None:
    """`save_model` from the state of a model, without the model.

    Raises:
        UserError: The disk refuses; what was there before is still there.
    """
    known: dict[str, Facts] = {}
    with new_folder(path, known) as folder:
        known |= write_model_files(folder, config, state, tokenizer, info)


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
    path: Path | str,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = torch.float32,
    rows: int = 0,
    weights: Weights | Literal["saved", "auto"] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> LoadedModel:
    """Open a model folder, a checkpoint or a run (`find_model` says which folder of it).

    Every file is checked against its SHA-256 before it is used; with `weights`, none is read after that, whoever
    overwrites it. With `dtype` None the weights keep the type they are stored in. With `rows`, tokens that a forward
    pass will have, the library that multiplies them fastest is used.

    Args:
        path: The folder.
        device: Where the model is to live.
        dtype: Type of the parameters of an ordinary model.
        rows: Tokens per forward pass.
        weights: For inference only: how the matrices are stored and multiplied; saved is how the folder has them,
            auto what decodes fastest here. None gives ordinary parameters.
        say: Called with lines that a person should read about that.

    Raises:
        UserError: There is no model there, a file is damaged, the files do not fit together, or the device or the
            folder does not have these weights.
    """
    path = Path(path)
    for _ in range(_TRIES):
        folder = find_model(path)
        try:
            return _load(folder, torch.device(device), dtype, rows, weights, say)
        except UserError:
            if folder.exists():
                raise  # else a run that goes on has dropped this checkpoint meanwhile, and has a newer one
    return _load(find_model(path), torch.device(device), dtype, rows, weights, say)


def _load(
    folder: Path,
    device: torch.device,
    dtype: torch.dtype | None,
    rows: int,
    weights: Weights | Literal["saved", "auto"] | None,
    say: Callable[[str], None],
) -> LoadedModel:
    """Open a model folder that `find_model` found."""
    with _verified_meanwhile(folder):
        config, info = read_config(folder / CONFIG)
        tokenizer = load_tokenizer(folder / TOKENIZER)
        if config.vocab_size != tokenizer.vocab_size:
            raise UserError(
                f"{folder} does not fit together: the model has {config.vocab_size} ids,"
                f" its tokenizer {tokenizer.vocab_size}"
            )
        saved = _saved_weights(info, folder / CONFIG)
        _refuse_too_large(config, folder, 1 if saved == "int8" else 2)
        model = empty_model(config)
        how = _pick_weights(folder, config, weights, saved, device=device, rows=rows, say=say)
        if how and device.type == "cpu":
            path = folder / WEIGHTS
            state = load_tensors(path, mapped=saved != "int8")
            if saved != "int8":
                check_tensors(model, state, path)
            use_weights(cast("Transformer", model), how, load_kernels(say))
            if saved != "int8":
                with large_blocks_apart():
                    state = _stored(path, cast("Transformer", model), how, state)
            check_tensors(model, state, path, exact=True)
            model.load_state_dict(state, assign=True)
            state.clear()
            arrange_weights(model)
            return LoadedModel(model.eval(), tokenizer, config, info, folder)
        dtype = DTYPES[how] if how else dtype
        state = load_tensors(folder / WEIGHTS, mapped=weights is None or device.type != "cpu")
        check_tensors(model, state, folder / WEIGHTS)
        model.load_state_dict({k: v.to(device=device, dtype=dtype) for k, v in state.items()}, assign=True)
        if rows and not isinstance(config, BigramConfig):
            use_matmul(model, pick_matmul(device, rows=rows, n_embd=config.n_embd, training=False))
            use_decode_kernels(model, say)
        return LoadedModel(model.eval(), tokenizer, config, info, folder)


@contextlib.contextmanager
def _verified_meanwhile(folder: Path) -> Iterator[None]:
    """Compute the hashes of a folder while it is read: they are known before anything of it is used.

    Raises:
        UserError: As `verify_folder`, whatever else was found wrong: a damaged file is the reason for it.
    """
    with ThreadPoolExecutor(1) as pool:
        verified = pool.submit(verify_folder, folder, CONFIG, WEIGHTS, TOKENIZER)
        try:
            yield
        finally:
            verified.result()


def _saved_weights(info: dict[str, Any], path: Path) -> Weights | None:
    """How an export has stored the matrices; None for those of training.

    Raises:
        UserError: In an unknown way.
    """
    saved = info.get("weights")
    if saved is not None and saved not in get_args(Weights):
        raise UserError(f"{path}: info.weights must be one of {', '.join(get_args(Weights))}, got {saved!r}")
    return cast("Weights | None", saved)


def _stored(path: Path, model: Transformer, weights: Weights, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state of a model with stored matrices, in memory of its own, from that of an ordinary one."""
    state.clear()  # what is in memory of its file would stay beside what is made of it
    return dict(part for name, blocks in each_tensor(path) for part in stored_tensors(name, blocks, model, weights))


def _pick_weights(
    folder: Path,
    config: ModelConfig,
    weights: Weights | Literal["saved", "auto"] | None,
    saved: Weights | None,
    *,
    device: torch.device,
    rows: int,
    say: Callable[[str], None],
) -> Weights | None:
    """How to store the matrices; None for ordinary parameters.

    Raises:
        UserError: The folder or the device does not have what is asked for.
    """
    if saved == "int8" and weights not in ("saved", "auto", "int8"):
        raise UserError(
            f"{folder} holds int8 weights, which only `generate`, `eval` and `serve` read; give the folder that it was"
            " exported from"
        )
    if isinstance(config, BigramConfig):
        if weights in DTYPES:
            raise UserError(f"{folder} is a bigram, which has no matrices to store in {weights}")
        return None
    if weights is None:
        return None
    if weights == "auto":
        weights = saved or pick_weights(device, n_embd=config.n_embd, rows=max(rows, 1), say=say)
    if weights == "saved":
        few = rows <= MAX_ROWS and config.n_embd >= MIN_WIDTH_OF_DECODING  # else our kernels are not faster
        weights = saved or ("fp32" if few else None)
    if weights == "int8" and device.type != "cpu":
        raise UserError(
            f"weights of 8 bits are for CPUs, the device is {device.type}: use --device cpu or --weights fp16"
        )
    return weights


def _refuse_too_large(config: ModelConfig, folder: Path, itemsize: int) -> None:
    """See whether the parameters of a config can be in the file beside it, before a model of that size is built."""
    n = count_parameters(config) if not isinstance(config, BigramConfig) else config.vocab_size**2
    size = (folder / WEIGHTS).stat().st_size
    if n * itemsize > size:
        raise UserError(f"{folder / WEIGHTS} does not fit its config: {n:,} parameters cannot be in {size:,} bytes")


def check_tensors(model: nn.Module, state: dict[str, Tensor], path: Path, *, exact: bool = False) -> None:
    """Compare names, shapes and types of tensors with a model's.

    Args:
        model: Whose they are to be.
        state: The tensors.
        path: Their file.
        exact: They are used as they are: compiled kernels would read another type beyond its end. Else one
            of _DTYPES will do, as it is converted.

    Raises:
        UserError: They differ, or the scale of a row is none; one message lists everything.
    """
    wanted = model.state_dict()
    faults = [f"{name} is missing" for name in wanted if name not in state]
    faults += [f"{name} is not part of the model" for name in state if name not in wanted]
    for name in wanted.keys() & state.keys():
        if state[name].shape != wanted[name].shape:
            faults.append(f"{name} is {tuple(state[name].shape)} instead of {tuple(wanted[name].shape)}")
        elif exact and state[name].dtype != wanted[name].dtype:
            faults.append(f"{name} is {state[name].dtype} instead of {wanted[name].dtype}")
        elif not exact and state[name].dtype not in _DTYPES:
            faults.append(f"{name} is {state[name].dtype} instead of float32, float16, bfloat16 or float64")
        elif exact and name.endswith(".scale") and not bool(((state[name] > 0) & state[name].isfinite()).all()):
            faults.append(f"{name} is not finite and above 0: it, or the weights that it is made of, are no numbers")
    if faults:
        raise UserError(f"{path} does not fit its config: {'; '.join(sorted(faults))}")
