"""Datasets of the Hugging Face Hub: FineWeb-Edu, or any other whose files are parquet, JSON lines or text.

Which files make up a subset and a split is asked once and written down with the commit: later calls, other processes
and other machines read the same files, whatever is published meanwhile. The files are then downloaded one by one, a cut
download going on where it stopped; or each worker reads the row groups of its own parts over the network, and nothing
is kept.
"""

import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from groundup.config.errors import UsageError, UserError
from groundup.config.io import dump_json, from_dict, load_json, to_dict
from groundup.corpora.documents import Document
from groundup.corpora.formats import format_of, has_format
from groundup.corpora.pieces import Piece, gather
from groundup.files.atomic import write_file

FINEWEB_EDU = ("HuggingFaceFW/fineweb-edu", "sample-10BT")
READ_AHEAD = 8 << 20
"""Bytes per request when reading over the network."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """The files of one split at one commit."""

    revision: str
    files: dict[str, int]
    """Names and sizes, in order."""


class HubDataset:
    """All documents of one split of a dataset.

    Args:
        dataset: `OWNER/NAME`, or `OWNER/NAME@REVISION`.
        subset: What the Hub calls a subset or configuration; None takes the dataset's default.
        split: Name of the split there; it has nothing to do with ours.
        text_column: Column of the text.
        cache: Where the listing and the downloads are kept.
        stream: Read over the network instead of downloading.
    """

    name = "hub"

    def __init__(
        self,
        dataset: str,
        *,
        subset: str | None = None,
        split: str = "train",
        text_column: str = "text",
        cache: Path,
        stream: bool = False,
    ) -> None:
        self.dataset, _, self.wanted = dataset.partition("@")
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", self.dataset):
            raise UsageError(f"a dataset of the Hub is OWNER/NAME or OWNER/NAME@REVISION, got {dataset!r}")
        self.subset, self.split, self.text_column, self.stream = subset, split, text_column, stream
        self.folder = cache.absolute() / "hub" / self.dataset.replace("/", "--")

    def describe(self) -> dict[str, Any]:
        """The dataset, its commit and what is read of it; a commit names contents."""
        return {
            "dataset": self.dataset,
            "revision": self.listing().revision,
            "subset": self.subset or "",
            "split": self.split,
            "text_column": self.text_column,
        }

    def listing(self) -> Listing:
        """The files, as the first call found them.

        Raises:
            UserError: There is no such dataset, subset or split, or the Hub cannot be reached.
        """
        name = "-".join(filter(None, (self.subset or "default", self.split, self.wanted)))
        pinned = self.folder / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', name)}.json"
        if pinned.exists():
            return from_dict(Listing, load_json(pinned), where=str(pinned))
        info = self._ask(
            lambda hub: hub.HfApi().dataset_info(self.dataset, revision=self.wanted or None, files_metadata=True)
        )
        sizes = {file.rfilename: file.size for file in info.siblings or [] if has_format(file.rfilename)}
        configs = (info.card_data or {}).get("configs") or []
        names = choose_files(sorted(sizes), configs, self.dataset, self.subset, self.split)
        listing = Listing(revision=info.sha, files={name: sizes[name] or 0 for name in names})
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write {self.folder}: {error.strerror}") from error
        write_file(pinned, dump_json(to_dict(listing)).encode())
        return listing

    def parts(self) -> Sequence[tuple[Piece, ...]]:
        """Spans of the files, which are downloaded first, one by one, unless they are streamed.

        Raises:
            UserError: A file cannot be had.
        """

        def spans() -> Iterator[tuple[str, Any]]:
            for name in self.listing().files:
                with self._open(name) as file:
                    yield name, format_of(name).spans(file, self._said(name), self.text_column)

        return gather(spans())

    def read(self, part: tuple[Piece, ...], skipped: dict[str, int]) -> Iterator[Document]:
        """The documents of some spans.

        Raises:
            UserError: A file cannot be had, or is damaged; it is named, with the place.
        """
        for name, start, stop in part:
            with self._open(name) as file:
                said = self._said(name)
                for text in format_of(name).read(file, said, (start, stop), self.text_column, skipped):
                    yield Document(text)

    def _said(self, name: str) -> str:
        """A file, in messages."""
        return f"{self.dataset}/{name}" if self.stream else str(self.folder / name)

    def _open(self, name: str) -> BinaryIO:
        listing = self.listing()
        if self.stream:
            remote = _RemoteFile(lambda start, stop: self._fetch(name, start, stop), listing.files[name])
            return cast("BinaryIO", io.BufferedReader(remote, READ_AHEAD))
        path = self._ask(
            lambda hub: hub.hf_hub_download(
                self.dataset,
                name,
                repo_type="dataset",
                revision=listing.revision,
                local_dir=self.folder,
            )
        )
        return Path(path).open("rb")

    def _fetch(self, name: str, start: int, stop: int) -> bytes:
        """Bytes [start, stop) of a file at the Hub."""

        def get(hub: Any) -> bytes:
            from huggingface_hub import utils

            url = hub.hf_hub_url(
                self.dataset,
                name,
                repo_type="dataset",
                revision=self.listing().revision,
            )
            headers = {**utils.build_hf_headers(), "Range": f"bytes={start}-{stop - 1}"}
            answer = utils.http_backoff("GET", url, headers=headers)  # tries again where that may help
            utils.hf_raise_for_status(answer)
            data: bytes = answer.content
            if answer.status_code != 206 or len(data) != stop - start:
                got = f"{len(data)} with status {answer.status_code}"
                raise OSError(f"asked for {stop - start} bytes of {name}, got {got}")
            return data

        return self._ask(get)

    def _ask(self, call: Callable[[Any], T]) -> T:
        """Call the Hub's client; every failure becomes one line."""
        try:
            import huggingface_hub as hub
            from huggingface_hub import constants, errors, utils
        except ImportError:
            raise UserError("datasets of the Hub need huggingface_hub: pip install 'groundup[data]'") from None
        utils.logging.set_verbosity_error()  # its warnings about retries would stand in our progress
        try:
            return call(hub)
        except errors.GatedRepoError as error:
            raise UserError(f"{self.dataset} asks for your consent at its page; then run: hf auth login") from error
        except errors.RevisionNotFoundError as error:
            raise UserError(f"{self.dataset} has no revision {self.wanted!r} at {constants.ENDPOINT}") from error
        except errors.RepositoryNotFoundError as error:
            raise UserError(
                f"there is no dataset {self.dataset} at {constants.ENDPOINT}; a private one needs: hf auth login"
            ) from error
        except Exception as error:  # the client has changed its HTTP library twice, and its exceptions with it
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise UserError(
                f"cannot reach {self.dataset} at {constants.ENDPOINT} ({reason[0][:200]});"
                " run the command again to go on, or give local files instead"
            ) from error


class _RemoteFile(io.RawIOBase):
    """A file elsewhere, read by ranges."""

    def __init__(self, fetch: Callable[[int, int], bytes], size: int) -> None:
        self._fetch, self._size, self._at = fetch, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        stop = min(self._at + len(buffer), self._size)
        if stop <= self._at:
            return 0
        data = self._fetch(self._at, stop)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def choose_files(
    names: Sequence[str], configs: Sequence[dict[str, Any]], dataset: str, subset: str | None, split: str
) -> list[str]:
    """Which files make up a split, by the rules of the Hub's dataset cards.

    Args:
        names: All readable files of the dataset.
        configs: The card's `configs`: per subset a name and patterns of files; empty where the card has none.
        dataset: Name, for messages.
        subset: None is the one marked as default, or named so, or the first.
        split: A pattern without a split is the split train.

    Raises:
        UsageError: There is no such subset or split, or it has no files that can be read.
    """
    if configs:
        patterns = _card_patterns(configs, dataset, subset, split)
        matchers = [re.compile(_translate(pattern)) for pattern in patterns]
        chosen = [name for name in names if any(matcher.match(name) for matcher in matchers)]
    else:
        below = [name for name in names if not subset or name.startswith(f"{subset}/")]
        word = r"(?:^|[/._-]){}(?:[/._-]|$)"
        named = any(re.search(word.format("(train|test|validation|valid|dev)"), name) for name in below)
        chosen = [name for name in below if re.search(word.format(re.escape(split)), name)]
        if not named and split == "train":
            chosen = below
    if not chosen:
        what = f"subset {subset!r}, split {split!r}" if subset else f"split {split!r}"
        raise UsageError(f"{dataset} has no parquet, JSON lines or text files for {what}")
    return chosen


def _card_patterns(configs: Sequence[dict[str, Any]], dataset: str, subset: str | None, split: str) -> list[str]:
    by_name = {str(config.get("config_name", "default")): config for config in configs}
    if subset is None:
        marked = [name for name, config in by_name.items() if config.get("default")]
        subset = next(iter([*marked, *(name for name in by_name if name == "default"), *by_name]))
    if subset not in by_name:
        raise UsageError(f"{dataset} has no subset {subset!r}; it has {_some(list(by_name))}")
    data_files = by_name[subset].get("data_files") or f"{by_name[subset].get('data_dir', '.')}/**"
    if isinstance(data_files, str) or not all(isinstance(entry, dict) for entry in data_files):
        data_files = [{"split": "train", "path": data_files}]
    by_split = {str(entry.get("split", "train")): entry.get("path", []) for entry in data_files}
    if split not in by_split:
        raise UsageError(f"{dataset}, subset {subset!r}, has no split {split!r}; it has {_some(list(by_split))}")
    path = by_split[split]
    return [path] if isinstance(path, str) else list(path)


def _translate(pattern: str) -> str:
    """A glob as a regular expression: `*` stays within a folder, `**` does not."""
    pattern = pattern.removeprefix("./").removeprefix("/")
    out = ""
    for token in re.findall(r"\*\*/|\*\*|\*|\?|\[[^\]]+\]|[^*?\[]+|\[", pattern):
        known = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
        is_set = token.startswith("[") and len(token) > 1
        out += known.get(token) or (token.replace("[!", "[^") if is_set else re.escape(token))
    return out + r"\Z"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
