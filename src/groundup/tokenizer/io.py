"""tokenizer.json: any tokenizer as JSON, and back; and tokenizers by name."""

from pathlib import Path
from typing import Any

from groundup.config.errors import UserError
from groundup.config.io import dump_json, load_json
from groundup.files.layout import MODEL, TOKENIZER
from groundup.tokenizer.base import Tokenizer
from groundup.tokenizer.bpe import ByteBPE
from groundup.tokenizer.char import CharTokenizer
from groundup.tokenizer.gpt2 import GPT2Tokenizer, load_gpt2
from groundup.tokenizer.gpt2_vocab import holds_vocabulary

VERSION = 1

KINDS: dict[str, type[CharTokenizer] | type[ByteBPE] | type[GPT2Tokenizer]] = {
    "char": CharTokenizer,
    "bpe": ByteBPE,
    "gpt2": GPT2Tokenizer,
}


def tokenizer_json(tokenizer: Tokenizer) -> str:
    """The text of a tokenizer.json."""
    return dump_json({"format": "groundup-tokenizer", "version": VERSION, **tokenizer.to_dict()})


def load_tokenizer(path: Path) -> Tokenizer:
    """Read a tokenizer.json, or the one in a folder.

    Raises:
        UserError: Not readable, not ours, or of a newer version.
    """
    file = path / TOKENIZER if path.is_dir() else path
    values: Any = load_json(file)
    if not isinstance(values, dict) or values.get("format") != "groundup-tokenizer":
        theirs = isinstance(values, dict) and "model" in values
        advice = "; it is one of transformers, which comes with its model: groundup import FOLDER OUT" if theirs else ""
        raise UserError(f"{file} is not a groundup tokenizer{advice}")
    if values.get("version") != VERSION:
        raise UserError(f"{file} has format version {values.get('version')}; this groundup reads {VERSION}")
    kind = values.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise UserError(f"{file}: unknown kind of tokenizer {kind!r}; this groundup knows {', '.join(KINDS)}")
    try:
        return KINDS[kind].from_dict(values)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None


def resolve_tokenizer(name: str) -> Tokenizer:
    """The tokenizer that a flag names.

    Args:
        name: `gpt2`, the path of a tokenizer.json, of a folder that holds one (a run holds its model's), or of a folder
            with GPT-2's vocabulary.

    Raises:
        UserError: There is none of this name.
    """
    if name == "gpt2":
        return load_gpt2()
    path = Path(name)
    if not name or not path.exists():
        raise UserError(
            f"there is no tokenizer {name!r}: give gpt2, or the path of a {TOKENIZER} or of a folder with one"
        )
    if path.is_dir() and not (path / TOKENIZER).exists():
        if holds_vocabulary(path):
            return load_gpt2(path)
        if (path / MODEL / TOKENIZER).is_file():
            return load_tokenizer(path / MODEL)
    return load_tokenizer(path)
