"""tokenizer.json: any tokenizer as JSON, and back."""

from pathlib import Path

from groundup.config.errors import UserError
from groundup.config.io import dump_json, load_json
from groundup.tokenizer.base import Tokenizer
from groundup.tokenizer.char import CharTokenizer

VERSION = 1
FILE = "tokenizer.json"


def tokenizer_json(tokenizer: Tokenizer) -> str:
    """The text of a tokenizer.json."""
    return dump_json({"format": "groundup-tokenizer", "version": VERSION, **tokenizer.to_dict()})


def save_tokenizer(tokenizer: Tokenizer, path: Path) -> None:
    """Write tokenizer.json."""
    path.write_text(tokenizer_json(tokenizer), "utf-8")


def load_tokenizer(path: Path) -> Tokenizer:
    """Read a tokenizer.json, or the one in a folder.

    Raises:
        UserError: Not readable, not ours, or of a newer version.
    """
    file = path / FILE if path.is_dir() else path
    values = load_json(file)
    if not isinstance(values, dict) or values.get("format") != "groundup-tokenizer":
        raise UserError(f"{file} is not a groundup tokenizer")
    if values.get("version") != VERSION:
        raise UserError(f"{file} has format version {values.get('version')}; this groundup reads {VERSION}")
    if values.get("kind") == "char":
        return CharTokenizer(values["symbols"])
    raise UserError(f"{file}: unknown kind of tokenizer {values.get('kind')!r}")
