"""nanoGPT's meta.pkl, the alphabet of a character model: a pickle, of which a few words are understood and none is run.

A pickle is a program for a stack machine. These are read as data: text, numbers, dictionaries and the notes that the
program takes of them. What else it could ask for, such as a class or a call, ends the reading.
"""

import pickletools
from pathlib import Path
from typing import Any

from groundup.config.errors import UserError
from groundup.config.io import read_whole
from groundup.config.limits import JSON_BYTES
from groundup.tokenizer.char import CharTokenizer

META = "meta.pkl"
_VALUES = frozenset(["BININT", "BININT1", "BININT2", "LONG1", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"])
_IGNORED = frozenset(["PROTO", "FRAME"])


def read_meta(path: Path) -> CharTokenizer:
    """The tokenizer of nanoGPT's `itos`: the character of each id.

    Raises:
        UserError: It cannot be read, holds more than text, numbers and dictionaries, or no alphabet.
    """
    data = read_whole(path, JSON_BYTES)
    try:
        values = _read(data)
        symbols = [values["itos"][i] for i in range(len(values["itos"]))]
        if not all(isinstance(symbol, str) for symbol in symbols):
            raise ValueError("itos must map numbers to characters")
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise UserError(f"{path} is not the meta.pkl of a character model of nanoGPT: {error}") from None
    try:
        return CharTokenizer(symbols)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _read(data: bytes) -> Any:
    """The value a pickle describes.

    Raises:
        ValueError: It is damaged, or asks for something that is not read.
    """
    stack: list[Any] = []
    marks: list[int] = []
    notes: dict[int, Any] = {}
    for operation, argument, _ in pickletools.genops(data):
        match operation.name:
            case name if name in _IGNORED:
                pass
            case name if name in _VALUES:
                stack.append(argument)
            case "EMPTY_DICT":
                stack.append({})
            case "MARK":
                marks.append(len(stack))
            case "MEMOIZE":
                notes[len(notes)] = stack[-1]
            case "BINPUT" | "LONG_BINPUT" if argument is not None:
                notes[int(argument)] = stack[-1]
            case "BINGET" | "LONG_BINGET" if argument is not None:
                stack.append(notes[int(argument)])
            case "SETITEM" | "SETITEMS" as name:
                start = marks.pop() if name == "SETITEMS" else len(stack) - 2
                pairs, stack[start:] = stack[start:], []
                if not stack or not isinstance(stack[-1], dict):
                    raise ValueError("it sets items of what is no dictionary")
                stack[-1].update(zip(pairs[::2], pairs[1::2], strict=True))
            case "STOP":
                return stack.pop()
            case name:
                raise ValueError(f"it holds {name}, and only text, numbers and dictionaries are read")
    raise ValueError("it ends too early")
