"""Tiny Shakespeare: the million characters on which char-rnn and nanoGPT learned to speak."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from groundup.config.errors import UserError
from groundup.files.download import download
from groundup.files.manifest import sha256_file
from groundup.formats.document import Document

URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
SIZE = 1_115_394
FILE = "tinyshakespeare.txt"
SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"


class TinyShakespeare:
    """One document cut by position, 90 % and 10 %, exactly as nanoGPT cuts it: losses compare.

    Args:
        path: A local copy; None downloads it to the cache.
        cache: Where the download is kept.
        instead: What takes a local copy, for the message.
    """

    name = "tiny-shakespeare"

    def __init__(self, path: Path | None, cache: Path, *, instead: str = "--data.path") -> None:
        self.path, self.cache, self._instead = path, cache, instead

    def describe(self) -> dict[str, Any]:
        """The file."""
        return {"sha256": SHA256}

    def parts(self) -> Sequence[Path]:
        """The file, downloaded if need be.

        Raises:
            UserError: It cannot be had, or the local copy is another file.
        """
        if self.path is None:
            return [download(URL, self.cache / FILE, size=SIZE, sha256=SHA256, instead=self._instead)]
        if not self.path.is_file():
            raise UserError(f"{self.path} does not exist")
        if sha256_file(self.path) != SHA256:
            raise UserError(
                f"{self.path} is not Tiny Shakespeare ({SIZE:,} bytes, SHA-256 {SHA256[:12]}...);"
                f" other text is learned by groundup train {shlex.quote(str(self.path))}"
            )
        return [self.path]

    def read(self, part: Path, skipped: dict[str, int]) -> Iterator[Document]:
        """1,003,854 characters to learn from, 111,540 to be judged by."""
        text = part.read_text(encoding="utf-8")
        cut = int(len(text) * 0.9)
        yield Document(text[:cut], "train")
        yield Document(text[cut:], "val")
