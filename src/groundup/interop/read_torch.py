"""A file of tensors: nanoGPT's ckpt.pt and what was made like it, Lightning's .ckpt, or a bare state dict."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from groundup.checkpoint.tensor_file import load_tensors
from groundup.config.errors import UserError
from groundup.files.layout import resolved
from groundup.interop.imported import HEADS, Imported, Record, gpt_config, heads_of, load_pickled, plain_tensors
from groundup.interop.names import HEAD, to_ours
from groundup.interop.read_meta import META, read_meta
from groundup.tokenizer.char import CharTokenizer

HEAD_DIM = 64
"""Of every published GPT-2."""
GELU = (
    "nothing says which GELU it computes: the published GPT-2's tanh was taken; where it is nanoGPT's erf, logits"
    " differ in the third digit after the point"
)
NANOGPTS_GELU = (
    "nanoGPT's erf GELU was taken; before June 2023 nanoGPT computed tanh, and of its checkpoints from then logits"
    " differ in the third digit after the point: to have tanh, import what this writes, in Python: import torch;"
    """ c = torch.load("ckpt.pt", map_location="cpu"); del c["model_args"]["bias"]; torch.save(c, "tanh.pt")"""
)
_WEIGHTS = ("model", "state_dict", "model_state_dict", "module", "weights")
_SETTINGS = ("model_args", "config", "model_config", "hyper_parameters", "hparams", "args", "cfg", "model")
_SHAPE = ("n_layer", "n_head", "n_embd", "block_size", "vocab_size", "bias", "dropout")
_NO_STEP, _NO_LOSS = 1e18, 1e9
"""Numbers from here on are none that was counted or measured: nanoGPT begins with a best loss of 1e9."""
_BLOCK = re.compile(r"h\.([0-9]{1,6})\.")


def read_torch(path: Path, *, n_head: int | None = None) -> Imported:
    """Read shape and weights; the optimizer's state is left behind.

    Args:
        path: The file.
        n_head: Attention heads, which no tensor tells, where the file does not say.

    Raises:
        UserError: It holds no GPT-2, or nothing says how many heads it has.
    """
    values = load_tensors(path) if path.suffix == ".safetensors" else load_pickled(path)
    if isinstance(values, Record):
        raise UserError(f"{path} holds an object of {values.name}, not tensors; save its state_dict()")
    if not isinstance(values, dict):
        raise UserError(f"{path} is not a model's weights: it must hold tensors by name")
    held = next((values[key] for key in _WEIGHTS if isinstance(values.get(key), Mapping)), values)
    state = to_ours(plain_tensors(held, str(path)), str(path))
    n_embd = state["wte.weight"].shape[1]
    told = _told(values, path) if held is not values else {}
    if n_head is not None:
        told["n_head"] = n_head
    elif held is not values and (heads := _heads(values, n_embd, path)) is not None:
        told["n_head"] = heads
    activation, note = _gelu(values.get("model_args"))
    notes = [note] if note else []
    if "n_head" not in told:
        told["n_head"] = _usual_heads(n_embd, path)
        notes.append(f"nothing says how many heads it has; {told['n_head']} were taken, --n-head says otherwise")
    config = gpt_config({**_seen(state, path), **told}, str(path), _switches(state, activation))
    info = _info(values, notes)
    return Imported(config, state, info, "\n".join(notes), _alphabet(values, path))


def _told(values: dict[Any, Any], path: Path) -> dict[str, Any]:
    """The shape as the file tells it, in a dictionary or in a config object.

    Raises:
        UserError: nanoGPT's own arguments hold what nanoGPT's models do not have.
    """
    arguments = values.get("model_args")
    if arguments is not None:
        if not isinstance(arguments, dict) or not all(isinstance(v, int | float) for v in arguments.values()):
            raise UserError(
                f"{path} is not a checkpoint of nanoGPT: model_args must hold numbers by name, and not NumPy's"
            )
        if unknown := sorted(map(str, arguments.keys() - {*_SHAPE, *HEADS})):
            raise UserError(f"{path} is not a plain nanoGPT model: model_args has {', '.join(unknown)}")
    for settings in _settings(values):
        if any(name in settings for name in HEADS):
            return {name: settings[name] for name in _SHAPE if name in settings}
    return {}


def _heads(values: dict[Any, Any], n_embd: int, path: Path) -> int | None:
    found = (heads_of(settings, n_embd, str(path)) for settings in _settings(values))
    return next((heads for heads in found if heads is not None), None)


def _settings(part: Any, depth: int = 3) -> Iterator[dict[Any, Any]]:
    """The dictionaries and config objects in a checkpoint, outer ones first."""
    values = vars(part) if isinstance(part, Record) else part
    if isinstance(values, dict) and depth:
        yield values
        for key in _SETTINGS:
            yield from _settings(values.get(key), depth - 1)


def _seen(state: dict[str, Tensor], path: Path) -> dict[str, Any]:
    """What the tensors themselves say of the shape.

    Raises:
        UserError: There is no table of positions.
    """
    if "wpe.weight" not in state or state["wpe.weight"].dim() != 2:
        raise UserError(f"{path} is no GPT-2: it has no matrix wpe.weight, so its positions are not learned")
    blocks = [int(found[1]) for name in state if (found := _BLOCK.match(name))]
    return {
        "n_layer": max(blocks, default=-1) + 1,
        "n_embd": state["wte.weight"].shape[1],
        "block_size": state["wpe.weight"].shape[0],
        "vocab_size": state["wte.weight"].shape[0],
        "bias": "ln_f.bias" in state,
    }


def _gelu(arguments: Any) -> tuple[str, str]:
    """The GELU of a file with these model_args, and what to say of it: nanoGPT's was not always erf."""
    if not isinstance(arguments, dict):
        return "gelu_tanh", GELU
    if "bias" in arguments:  # since January 2023; erf since June
        return "gelu", NANOGPTS_GELU
    return "gelu_tanh", "" if arguments.keys() >= {"n_layer", "n_head", "n_embd", "block_size"} else GELU


def _switches(state: dict[str, Tensor], activation: str) -> dict[str, Any]:
    """Where it is not the published GPT-2: the MLP may be wider, the head not be tied."""
    matrix = state.get("h.0.mlp.c_fc.weight")
    width, usual = 0 if matrix is None or not matrix.dim() else matrix.shape[0], 4 * state["wte.weight"].shape[1]
    return {
        "activation": activation,
        "n_inner": 0 if width == usual else width,
        "tied_head": HEAD not in state,
    }


def _usual_heads(n_embd: int, path: Path) -> int:
    if n_embd % HEAD_DIM:
        raise UserError(f"nothing in {path} says how many heads its {n_embd} columns are; name them with --n-head")
    return n_embd // HEAD_DIM


def _info(values: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    """Step and validation loss: numbers, or tensors of one. What was never measured is left out, and noted."""
    info = {}
    for theirs, ours, kind, most in (
        ("step", "step", int, _NO_STEP),
        ("global_step", "step", int, _NO_STEP),
        ("iter_num", "step", int, _NO_STEP),
        ("val_loss", "val_loss", float, _NO_LOSS),
        ("best_val_loss", "val_loss", float, _NO_LOSS),
    ):
        value = values.get(theirs)
        if isinstance(value, Tensor) and value.numel() == 1 and value.device.type == "cpu":
            value = value.item()
        if isinstance(value, int | float) and 0 <= value < most:
            info[ours] = kind(value)
        elif isinstance(value, int | float):
            notes.append(f"{theirs} was left out: it is no number from 0 to below {most:g}")
        elif value is not None:
            notes.append(f"{theirs} was left out: it is no plain number, as NumPy's are not")
    return info


def _alphabet(values: dict[str, Any], path: Path) -> CharTokenizer | None:
    """NanoGPT's meta.pkl: beside the checkpoint, or where nanoGPT keeps it."""
    places = [path.parent / META]
    settings = values.get("config")
    name = settings.get("dataset") if isinstance(settings, dict) else None
    if isinstance(name, str) and Path(name).name == name and name.isprintable():
        places += [path.parent / name / META, *(at / "data" / name / META for at in resolved(path).parents[:2])]
    return next((read_meta(place) for place in places if place.is_file()), None)
