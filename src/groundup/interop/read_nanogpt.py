"""nanoGPT's ckpt.pt: a dictionary with `model`, `model_args`, `iter_num` and more, as its train.py saves it."""

from pathlib import Path
from typing import Any

from torch import Tensor

from groundup.config.errors import UserError
from groundup.config.io import from_dict
from groundup.config.model import GPTConfig
from groundup.interop.imported import Foreign, load_pickled_tensors
from groundup.interop.names import from_nanogpt

NOTE = (
    "nanoGPT computes GELU with erf, groundup and the published GPT-2 with tanh: logits differ in the third digit after"
    " the point"
)
_SHAPE = ("n_layer", "n_head", "n_embd", "block_size", "vocab_size", "bias", "dropout")


def read_nanogpt(path: Path) -> Foreign:
    """Read shape and weights; the optimizer's state is left behind.

    Raises:
        UserError: It is not such a file.
    """
    values = load_pickled_tensors(path)
    if not isinstance(values, dict) or not {"model", "model_args"} <= values.keys():
        raise UserError(f"{path} is not a checkpoint of nanoGPT: it has no model and model_args")
    state = values["model"]
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise UserError(f"{path} is not a checkpoint of nanoGPT: its model must hold tensors by name")
    return Foreign(_config(values["model_args"], path), from_nanogpt(state), _info(values), NOTE)


def _config(arguments: Any, path: Path) -> GPTConfig:
    if not isinstance(arguments, dict) or not all(isinstance(v, int | float) for v in arguments.values()):
        raise UserError(f"{path} is not a checkpoint of nanoGPT: model_args must hold numbers by name")
    if unknown := sorted(map(str, arguments.keys() - set(_SHAPE))):
        raise UserError(f"{path} is not a plain nanoGPT model: model_args has {', '.join(unknown)}")
    shape = {"vocab_size": 50304, **arguments}
    return from_dict(GPTConfig, shape, where="model_args")


def _info(values: dict[str, Any]) -> dict[str, Any]:
    """Step and validation loss: numbers, or tensors of one."""
    info = {}
    for theirs, ours, kind in (("iter_num", "step", int), ("best_val_loss", "val_loss", float)):
        value = values.get(theirs)
        if isinstance(value, Tensor) and value.numel() == 1:
            value = value.item()
        if isinstance(value, int | float):
            info[ours] = kind(value)
    return info
