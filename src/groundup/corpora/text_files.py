"""Any UTF-8 text: a file, or all text files of a folder."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from groundup.config.errors import UserError
from groundup.corpora.documents import Document
from groundup.files.atomic import sha256_file


class TextFiles:
    """Each file is a part. Its last `val_fraction`, from the next line on, is validation.

    Args:
        path: A file, or a folder that is searched for `*.txt` and `*.md`.
        val_fraction: Share of each file.
    """

    name = "text"

    def __init__(self, path: Path, val_fraction: float) -> None:
        self.path, self.val_fraction = path, val_fraction

    def describe(self) -> dict[str, Any]:
        """Contents of all files, and the split."""
        digest = hashlib.sha256()
        for file in self.parts():
            digest.update(sha256_file(file).encode())
        return {"sha256": digest.hexdigest(), "val_fraction": self.val_fraction}

    def parts(self) -> Sequence[Path]:
        """The files, by name.

        Raises:
            UserError: There are none, or one cannot be read.
        """
        if not self.path.exists():
            raise UserError(f"{self.path} does not exist")
        files = [self.path]
        if self.path.is_dir():
            files = sorted(f for f in self.path.rglob("*") if f.suffix.lower() in (".txt", ".md") and f.is_file())
            if not files:
                raise UserError(f"{self.path} holds no .txt or .md files")
        for file in files:
            try:
                file.open("rb").close()
            except OSError as error:
                raise UserError(f"cannot read {file}: {error.strerror}") from error
        if not any(file.stat().st_size for file in files):
            raise UserError(f"{self.path} is empty")
        return files

    def read(self, part: Path, skipped: dict[str, int]) -> Iterator[Document]:
        """The head and the tail of one file."""
        text = read_text(part)
        cut = len(text) - max(1, int(len(text) * self.val_fraction))
        cut = text.find("\n", cut) + 1 or cut
        if cut == len(text):  # one long line, or a file that ends with one
            cut = len(text) - max(1, int(len(text) * self.val_fraction))
        yield Document(text[:cut], "train")
        yield Document(text[cut:], "val")


def read_text(path: Path) -> str:
    r"""A file of UTF-8 text, line ends as `\n`, without a byte order mark.

    Raises:
        UserError: Not readable, binary, or not UTF-8; the message says where.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    return decode_text(data, str(path))


def decode_text(data: bytes, name: str, at: int = 0) -> str:
    r"""UTF-8 bytes as text, line ends as `\n`, without a byte order mark.

    Args:
        data: The bytes.
        name: Of the file, for messages.
        at: Where in the file they begin.

    Raises:
        UserError: Binary, or not UTF-8; the message says where.
    """
    if at == 0 and data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{name} is UTF-16; convert it first, for example with iconv -f utf-16 -t utf-8")
    if b"\0" in data:
        raise UserError(f"{name} is not text: byte {at + data.index(0)} is zero")
    try:
        text = data.decode("utf-8" if at else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{name} is not UTF-8: byte {at + error.start} is 0x{data[error.start]:02x};"
            f" convert it first, for example with iconv -f latin1 -t utf-8"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")
