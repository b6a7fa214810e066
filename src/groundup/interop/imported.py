"""What a reader of another program's files returns, and what every reader needs."""

import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from groundup.config.errors import UserError
from groundup.config.io import from_dict, refuse_pointer
from groundup.config.model import GPTConfig, ModernConfig
from groundup.tokenizer.base import Tokenizer


@dataclass(frozen=True, slots=True)
class Imported:
    """A model from elsewhere, under our names and in our layout, not yet checked against its shape."""

    config: GPTConfig | ModernConfig
    """Its vocab_size counts the rows of the embedding, padding included."""
    state: dict[str, Tensor]
    info: dict[str, Any]
    """What is known of its training."""
    note: str = ""
    """What the user should know: where our model is not exactly theirs."""
    tokenizer: Tokenizer | None = None
    """The one that lies beside it."""


HEADS = ("n_head", "n_heads", "num_heads", "num_attention_heads", "n_attention_heads", "nhead", "heads")
"""What others call the number of attention heads, the one number of a shape that no tensor tells."""
_HEAD_DIM = ("head_dim", "head_size", "d_head")


def heads_of(settings: Mapping[Any, Any], n_embd: int, where: str) -> int | None:
    """The number of attention heads, by any of its names; None where the settings say nothing of heads.

    Args:
        settings: Foreign values by name.
        n_embd: Columns of the embedding, which the width of a head divides.
        where: Their file, for messages.

    Raises:
        UserError: Two names say different numbers, or a name with "head" in it says a number that may be another.
    """
    said = {name: settings[name] for name in HEADS if name in settings}
    for name in _HEAD_DIM:
        width = settings.get(name)
        if type(width) is int and width > 0 and n_embd % width == 0:
            said[name] = n_embd // width
    if len({str(heads) for heads in said.values()}) > 1:
        raise UserError(
            f"{where} says different numbers of heads: "
            + ", ".join(f"{name} {settings[name]}" for name in said)
            + "; --n-head decides"
        )
    if said:
        heads: int = next(iter(said.values()))
        return heads
    odd = next((n for n, v in settings.items() if isinstance(n, str) and "head" in n.lower() and type(v) is int), None)
    if odd is not None:
        raise UserError(
            f"{where} has {odd} {settings[odd]}, which is no name for attention heads that groundup knows; say how"
            " many there are with --n-head"
        )
    return None


class Record:
    """Stands for an object of a foreign class: its attributes, without its class and without its code."""

    name = ""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        for part in state if isinstance(state, tuple) else (state,):  # a class with slots has two parts
            if isinstance(part, dict):
                self.__dict__.update(part)


def gpt_config(
    shape: Mapping[str, Any], where: str, switches: Mapping[str, Any] = MappingProxyType({})
) -> GPTConfig | ModernConfig:
    """A config of foreign numbers.

    Args:
        shape: Fields of `GPTConfig`.
        where: Their file, for the message.
        switches: Fields of `ModernConfig`; a model that has GPT-2's value in each is a GPT-2.

    Raises:
        UserError: They are no shape of a model; the message names where they stand.
    """
    try:
        plain = ModernConfig.AS_GPT2
        if all(plain[name] == value for name, value in switches.items()):
            return from_dict(GPTConfig, dict(shape), where="model")
        return from_dict(ModernConfig, {**shape, **plain, **switches}, where="model")
    except UserError as error:
        raise type(error)(f"{where}: {error}") from None


def load_pickled(path: Path) -> Any:
    """Read a PyTorch file with the unpickler that builds tensors and plain containers, and runs nothing.

    An object of any class, such as a config, becomes a `Record`; a function in the file is refused.

    Raises:
        UserError: It cannot be read, unpacks to more than it is, or holds anything else.
    """
    try:
        _refuse_packed(path)
        stand_ins: list[Any] = [(type("Record", (Record,), {"name": name}), name) for name in _classes(path)]
        with torch.serialization.safe_globals(stand_ins):
            return torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:
        refuse_pointer(path)
        if _is_damaged(path, error):
            raise UserError(f"{path} is cut off or damaged; fetch or copy it again") from error
        if isinstance(error, OSError):
            raise UserError(f"cannot read {path}: {error.strerror or error}") from error
        # Damaged and hostile files make every kind of exception; PyTorch's own text spans a page.
        raise UserError(
            f"{path} is not a plain PyTorch file of tensors, and nothing else is read; save its model's state_dict()"
        ) from error


_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How files begin that PyTorch wrote before version 1.6, and writes where it is asked to: no zip file."""


def _is_damaged(path: Path, error: Exception) -> bool:
    """Whether a file begins as PyTorch's do, and its end or its table of contents is not there.

    A zip file's table stands at its end. Without one PyTorch's reader fails in many ways, by the length that is left:
    `OSError` is one of them.
    """
    try:
        with path.open("rb") as file:
            begins = file.read(len(_LEGACY))
    except OSError:
        return False
    if not begins:
        return False
    if begins[:4] == b"PK\x03\x04"[: len(begins)]:
        is_bad = isinstance(error, zipfile.BadZipFile) or "failed reading zip archive" in str(error)
        return is_bad or not zipfile.is_zipfile(path)
    ran_out = isinstance(error, EOFError | IndexError | struct.error) or "unexpected EOF" in str(error)
    return ran_out and begins == _LEGACY[: len(begins)]


def _classes(path: Path) -> list[str]:
    """Names of the classes in a file that PyTorch does not know as harmless."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # not a zip file: `torch.load` says what it is
        return []
    return [name for name in names if name.rpartition(".")[2][:1].isupper() or name in _NUMPY]


_NUMPY = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype")


def _refuse_packed(path: Path) -> None:
    """PyTorch stores its parts as they are; a file that unpacks to more was made to fill the memory."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as file:
        parts = file.infolist()
    if any(part.compress_type != zipfile.ZIP_STORED for part in parts) or (
        sum(part.file_size for part in parts) > path.stat().st_size
    ):
        raise UserError(f"{path} is compressed, which PyTorch's own files never are; save it again with torch.save")


def plain_tensors(state: Any, where: str) -> dict[str, Tensor]:
    """Tensors by name, when all of them are: dense, on the CPU, and no larger than what was read for them.

    Raises:
        UserError: They are not.
    """
    if not isinstance(state, Mapping) or not state or not all(isinstance(t, Tensor) for t in state.values()):
        raise UserError(f"{where} is not a model's weights: it must hold tensors by name")
    for name, t in state.items():
        dense = type(t) in (Tensor, nn.Parameter) and t.layout is torch.strided and t.device.type == "cpu"
        if not dense or t.is_neg() or t.is_conj() or t.is_quantized:
            raise UserError(f"{where}: {name!r} is not a dense tensor on the CPU")
        if t.numel() * t.element_size() > t.untyped_storage().nbytes():
            raise UserError(f"{where}: {name!r} is {tuple(t.shape)}, which is more than the file holds for it")
    return {name: t.detach() for name, t in state.items()}
