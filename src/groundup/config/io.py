"""Config in and out of JSON, strictly: an unknown key, a missing one or a wrong type is named by its dotted path."""

import contextlib
import dataclasses
import difflib
import json
import re
import stat
import sys
import types
import typing
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from groundup.config.errors import UserError, reading
from groundup.config.limits import JSON_BYTES, Limit

T = TypeVar("T")
_MAX_FLOAT = sys.float_info.max
_CONTAINERS = {dict: "an object", list: "a list", tuple: "a list"}
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_RENAMED = {"products": "matmul", "compare_every": "check_replicas_every"}
"""Keys of older run folders, and what they are called now."""
_RATIOS = {"min_lr": "min_lr_ratio", "muon_lr": "muon_lr_ratio"}
"""Rates of older run folders, and what their share of `lr` is called now."""


def to_dict(config: Any) -> dict[str, Any]:
    """Turn a config dataclass into plain JSON values (paths become strings)."""
    return {f.name: _plain(getattr(config, f.name)) for f in dataclasses.fields(config)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = _kind(type(value))
        return ({"kind": kind} if kind else {}) | to_dict(value)
    if isinstance(value, Path):
        return value.as_posix()  # which every system reads
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def from_dict(cls: type[T], values: Any, *, where: str = "", more: bool = False) -> T:
    """Build `cls` from plain values.

    Args:
        cls: A config dataclass.
        values: What `to_dict` made, or a part of it: fields left out take their defaults.
        where: Dotted path of `values`, for messages.
        more: Let objects have keys that their classes do not, as files of other programs may; they are left out.

    Raises:
        UserError: An unknown key, a value of the wrong type, or a missing required field.
        UsageError: The values have the right types but break a rule of the dataclass.
    """
    if not isinstance(values, dict):
        raise UserError(f"{where or 'config'} must be an object, got {_shown(values)}")
    fields = {f.name: f for f in dataclasses.fields(typing.cast("Any", cls))}
    values = with_new_names(values, fields)
    prefix = f"{where}." if where else ""
    if more:
        values = {key: value for key, value in values.items() if key in fields}
    for key in values:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f"; did you mean {prefix}{near[0]}?" if near else ""
            raise UserError(f"unknown config key {prefix}{key}{hint}")
    hints = get_type_hints(cls)
    missing = [
        name
        for name, f in fields.items()
        if name not in values and f.default is f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise UserError(f"missing config key {prefix}{missing[0]}")
    return cls(**{key: _typed(hints[key], value, f"{prefix}{key}", more=more) for key, value in values.items()})


def with_new_names(values: dict[str, Any], known: Collection[str]) -> dict[str, Any]:
    """What an older version wrote, under the names of now; a name among `known` stays."""
    now = {old: new for old, new in _RENAMED.items() if old not in known and new not in values}
    for old, new in _RATIOS.items():
        if old in values and new in known and new not in values and "lr" in values:
            values = {**values, old: _share(values[old], values["lr"])}
            now[old] = new
    return {now.get(name, name): value for name, value in values.items()}


def _share(rate: Any, lr: Any) -> Any:
    """A rate as a share of `lr`; what is no number stays, to be refused under its name."""
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (rate, lr))
    return rate / lr if numbers and lr else rate


def _typed(hint: Any, value: Any, where: str, *, more: bool) -> Any:
    """Check one JSON value against its annotation; only lossless conversions are made (int to float, str to Path)."""
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast("type[Any]", hint), value, where=where, more=more)
    origin = get_origin(hint)
    if origin is Literal:
        if value in get_args(hint) and not isinstance(value, bool):
            return value
        raise UserError(f"{where} must be one of {', '.join(map(str, get_args(hint)))}, got {_shown(value)}")
    if origin in (types.UnionType, typing.Union):
        if all(map(_kind, get_args(hint))):
            return from_kinds(get_args(hint), value, where=where, more=more)
        return _one_of(hint, value, where, more=more)
    if origin in (tuple, list) and isinstance(value, list):
        return origin(_typed(get_args(hint)[0], item, f"{where}[{i}]", more=more) for i, item in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {key: _typed(get_args(hint)[1], item, f"{where}.{key}", more=more) for key, item in value.items()}
    return _plain_typed(hint, value, where)


def _kind(cls: type[Any]) -> str:
    """What a class calls its kind in JSON; empty where it does not say."""
    kind = getattr(cls, "kind", "")
    return kind if isinstance(kind, str) else ""


def from_kinds(classes: Sequence[type[T]], values: Any, *, where: str, more: bool = False) -> T:
    """Build the one of several classes that the key `kind` names; the rest as in `from_dict`."""
    if not isinstance(values, dict):
        raise UserError(f"{where} must be an object, got {_shown(values)}")
    values = _with_kind(values)
    kinds = {_kind(cls): cls for cls in classes}
    if not isinstance(values["kind"], str) or values["kind"] not in kinds:
        raise UserError(f"{where}.kind must be one of {', '.join(kinds)}, got {_shown(values['kind'])}")
    rest = {name: value for name, value in values.items() if name != "kind"}
    return from_dict(kinds[values["kind"]], rest, where=where, more=more)


def _with_kind(values: dict[str, Any]) -> dict[str, Any]:
    """The kind of a model. In older folders a gpt had a position, and one with rope is what is now modern."""
    kind = values.get("kind", "gpt")
    if kind == "gpt" and values.get("position") == "rope":
        kind = "modern"
    elif kind == "gpt" and values.get("position") == "learned":
        values = {name: value for name, value in values.items() if name not in ("position", "rope_base")}
    return values | {"kind": kind}


def _one_of(hint: Any, value: Any, where: str, *, more: bool) -> Any:
    """The first alternative of a union that fits."""
    for option in get_args(hint):
        try:
            return _typed(option, value, where, more=more)
        except UserError:
            continue
    names = " or ".join(_json_name(option) for option in get_args(hint))
    raise UserError(f"{where} must be {names}, got {_shown(value)}")


def _plain_typed(hint: Any, value: Any, where: str) -> Any:
    """A number, a string, a boolean, a path or null."""
    if hint is types.NoneType and value is None:
        return None
    if hint is Path and isinstance(value, str) and "\0" not in value:  # which no system takes in a path
        return Path(value)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _MAX_FLOAT:
        return float(value)
    if hint in (int, str, bool) and type(value) is hint:
        return value
    raise UserError(f"{where} must be {_json_name(hint)}, got {_shown(value)}")


def _shown(value: Any) -> str:
    """A value in a message of one line."""
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:100]}..."


def _json_name(hint: Any) -> str:
    if (origin := get_origin(hint)) in _CONTAINERS:
        return _CONTAINERS[origin]
    if origin is Literal:
        return " or ".join(map(str, get_args(hint)))
    if dataclasses.is_dataclass(hint):
        return "an object"
    if hint is Path:
        return "a path"
    return "null" if hint is types.NoneType else getattr(hint, "__name__", str(hint))


def differing_keys(old: Any, new: Any) -> list[str]:
    """Dotted paths of the fields in which two configs of one class differ; `kind` where a part is of another class."""
    keys = []
    for f in dataclasses.fields(old):
        before, after = getattr(old, f.name), getattr(new, f.name)
        if type(before) is not type(after) and _kind(type(before)):
            keys.append(f"{f.name}.kind")
        elif dataclasses.is_dataclass(before):
            keys += [f"{f.name}.{key}" for key in differing_keys(before, after)]
        elif before != after:
            keys.append(f.name)
    return keys


def read_json(path: Path, cls: type[T], *, more: bool = False) -> T:
    """Read a JSON file into a dataclass: the door for every file whose form is known.

    Args:
        path: The file.
        cls: What it must hold.
        more: As for `from_dict`.

    Raises:
        UserError: As `load_json` and `from_dict`; the message names the file and the dotted path in it.
    """
    values = load_json(path)
    try:
        return from_dict(cls, values, more=more)
    except UserError as error:
        raise type(error)(f"{path}: {error}") from None


def read_whole(path: Path, limit: Limit) -> bytes:
    """Read a file at once.

    Raises:
        UserError: It cannot be read, is larger than the limit, or is no file: a pipe may never end.
    """
    with reading(path):
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise UserError(f"cannot read {path}: it is not a file")
        limit.check(facts.st_size, str(path))
        return path.read_bytes()


def refuse_pointer(path: Path) -> None:
    """Of a file that is not what it should be, say where it is the pointer that git leaves without git-lfs.

    Raises:
        UserError: It is one.
    """
    with contextlib.suppress(OSError), path.open("rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            raise UserError(
                f"{path} is a pointer of git-lfs and not the file itself: git lfs pull fetches it, as does groundup"
                " import hf:OWNER/NAME for a model"
            )


_POINTER = b"version https://git-lfs.github.com/spec/"


def load_json(path: Path) -> Any:
    """Read a JSON file whose form the caller checks.

    Raises:
        UserError: The file cannot be read, is too large, is no file, is not JSON, gives a key twice or holds text that
            cannot be written again; the message names it.
    """
    data = read_whole(path, JSON_BYTES)
    try:
        text = data.decode()
        values = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_refuse_twins)
        if _SURROGATE.search(text):
            json.dumps(values, ensure_ascii=False).encode()  # half of a pair of escapes is no character
    except (ValueError, RecursionError) as error:
        refuse_pointer(path)
        raise UserError(f"{path} is not valid JSON: {error}") from error
    return values


def load_object(path: Path) -> dict[str, Any]:
    """A JSON file of which only what is there counts: nothing where it cannot be read, or holds no object."""
    try:
        values = load_json(path)
    except UserError:
        return {}
    return values if isinstance(values, dict) else {}


def _refuse_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Two values for one key are a mistake; which of them was meant is not known."""
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} is given twice")
    return values


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def dump_json(values: Any) -> str:
    """Format plain values the way every JSON file of ours is written.

    Raises:
        UserError: A text is not Unicode, as names of files can be.
    """
    text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        line = text[text.rfind("\n", 0, error.start) + 1 : text.index("\n", error.end)]
        raise UserError(f"{line.strip()} is not UTF-8, in which files are written; rename it") from None
    return text
