"""Datasets of the Hugging Face Hub: FineWeb-Edu, or any other whose files are parquet, JSON lines or text.

Which files make up a subset and a split is asked once and written down with the commit: later calls, other processes
and other machines read the same files, whatever is published meanwhile. The files are then downloaded one by one, a cut
download going on where it stopped; or each worker reads the row groups of its own parts over the network, and nothing
is kept.
"""

import io
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import regex

from groundup.config.data import ReadConfig
from groundup.config.errors import UsageError, UserError, first_line
from groundup.config.io import dump_json, from_dict, load_json, to_dict
from groundup.config.printable import listed
from groundup.corpora.patterns import glob_regex
from groundup.files.atomic import write_file
from groundup.files.hub_listing import pieces, repository
from groundup.files.layout import resolved
from groundup.files.manifest import has_digest
from groundup.files.streams import RangedFile
from groundup.formats.by_suffix import format_of, has_format, read_spans
from groundup.formats.document import Document
from groundup.formats.spans import FileSpan, Span, gather

FINEWEB_EDU = ("HuggingFaceFW/fineweb-edu", "sample-10BT")
READ_AHEAD = 8 << 20
"""Bytes per request when reading over the network."""
PATTERN_TIME = 1.0
"""Seconds that comparing one name with one pattern of a dataset card may take."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """The files of one split at one commit."""

    revision: str
    files: dict[str, int]
    """Names and sizes, in order."""
    hashes: dict[str, str] = field(default_factory=dict)
    """SHA-256 of large files, and git's hash of small ones, as the Hub lists them."""


class HubDataset:
    """All documents of one split of a dataset.

    Args:
        dataset: `OWNER/NAME`, or `OWNER/NAME@REVISION`.
        subset: What the Hub calls a subset or configuration; None takes the dataset's default.
        split: Name of the split there; it has nothing to do with ours.
        config: How files are read.
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
        config: ReadConfig | None = None,
        cache: Path,
        stream: bool = False,
    ) -> None:
        self.dataset, _, self.wanted = dataset.partition("@")
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", self.dataset):
            raise UsageError(f"a dataset of the Hub is OWNER/NAME or OWNER/NAME@REVISION, got {dataset!r}")
        self.subset, self.split, self.stream = subset, split, stream
        self.config = config or ReadConfig()
        self._checked: set[str] = set()
        self.folder = cache.absolute() / "hub" / self.dataset.replace("/", "--")

    def describe(self) -> dict[str, Any]:
        """The dataset, its commit and what is read of it; a commit names contents."""
        return {
            "dataset": self.dataset,
            "revision": self.listing().revision,
            "subset": self.subset or "",
            "split": self.split,
            "text_column": self.config.text_column,
            "separator": self.config.between,
            "bad_files": self.config.bad_files,
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
        info = self._ask(lambda _: repository("datasets", self.dataset, revision=self.wanted or None))
        listed = {file.rfilename: file for file in info.siblings or [] if has_format(file.rfilename)}
        configs = _configs(info.card_data)
        names = choose_files(sorted(listed), configs, self.dataset, self.subset, self.split)
        listing = Listing(
            revision=info.sha,
            files={name: max(0, listed[name].size or 0) for name in names},
            hashes={name: found for name in names if (found := _listed_hash(listed[name]))},
        )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write {self.folder}: {error.strerror}") from error
        write_file(pinned, dump_json(to_dict(listing)).encode())
        return listing

    def parts(self) -> Sequence[tuple[FileSpan, ...]]:
        """Spans of the files, which are downloaded first, one by one, unless they are streamed.

        Raises:
            UserError: A file cannot be had.
        """
        self._refuse_beyond_disk()
        return gather((name, self._spans(name)) for name in self.listing().files)

    def _spans(self, name: str) -> list[Span]:
        with self._open(name) as file:
            self._check(name)
            return format_of(name).spans(file.seek(0, 2), lambda: file, self._said(name), self.config)

    def read(self, part: tuple[FileSpan, ...], skipped: dict[str, int]) -> Iterator[Document]:
        """The documents of some spans.

        Raises:
            UserError: A file cannot be had, or is damaged; it is named, with the place.
        """
        return read_spans(part, self._open, self._said, format_of, self.config, skipped)

    def _said(self, name: str) -> str:
        """A file, in messages."""
        return f"{self.dataset}/{name}" if self.stream else str(self.folder / name)

    def _open(self, name: str) -> BinaryIO:
        listing = self.listing()
        if self.stream:
            remote = RangedFile(lambda start, stop: self._fetch(name, start, stop), listing.files[name])
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

    def _refuse_beyond_disk(self) -> None:
        """Refuse a download that cannot end well before it begins.

        Raises:
            UserError: The files that are not here yet are larger than the free space.
        """
        if self.stream:
            return
        missing = sum(size for name, size in self.listing().files.items() if not (self.folder / name).exists())
        free = shutil.disk_usage(self.folder).free
        if missing > free:
            raise UserError(
                f"{self.dataset} is {missing / 1e9:,.1f} GB, and {self.folder} has {free / 1e9:,.1f} GB free;"
                " --stream reads it without keeping it, --cache-dir names another disk"
            )

    def _check(self, name: str) -> None:
        """Compare a download with the hash that the Hub lists, once.

        Raises:
            UserError: It is another file, which is removed, so that the next call fetches it again.
        """
        wanted = self.listing().hashes.get(name)
        if self.stream or wanted is None or name in self._checked:
            return
        path = self.folder / name
        if not has_digest(path, wanted):
            if resolved(path).is_relative_to(resolved(self.folder)):
                path.unlink()
            raise UserError(
                f"{path} is not the file that {self.dataset} lists: its hash differs, as a proxy's page does;"
                " it was removed, run the command again"
            )
        self._checked.add(name)

    def _fetch(self, name: str, start: int, stop: int) -> bytes:
        """Bytes [start, stop) of a file at the Hub, and no more, whatever it sends."""

        def get(hub: Any) -> bytes:
            from huggingface_hub import utils

            url = hub.hf_hub_url(
                self.dataset,
                name,
                repo_type="dataset",
                revision=self.listing().revision,
            )
            headers = {**utils.build_hf_headers(), "Range": f"bytes={start}-{stop - 1}"}
            data = bytearray()
            with _answer(utils, url, headers) as answer:  # tries again where that may help
                utils.hf_raise_for_status(answer)
                if answer.status_code == 206:
                    for piece in pieces(answer):
                        data += piece
                        if len(data) > stop - start:
                            break
                if answer.status_code != 206 or len(data) != stop - start:
                    got = "more" if len(data) > stop - start else f"{len(data)} with status {answer.status_code}"
                    raise OSError(f"asked for {stop - start} bytes of {name}, got {got}")
            return bytes(data)

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
        except UserError:
            raise
        except errors.GatedRepoError as error:
            raise UserError(f"{self.dataset} asks for your consent at its page; then run: hf auth login") from error
        except errors.RevisionNotFoundError as error:
            raise UserError(f"{self.dataset} has no revision {self.wanted!r} at {constants.ENDPOINT}") from error
        except errors.RepositoryNotFoundError as error:
            raise UserError(
                f"there is no dataset {self.dataset} at {constants.ENDPOINT}; a private one needs: hf auth login"
            ) from error
        except Exception as error:  # the client has changed its HTTP library twice, and its exceptions with it
            raise UserError(
                f"cannot reach {self.dataset} at {constants.ENDPOINT} ({first_line(error)[:200]});"
                " run the command again to go on, or give local files instead"
            ) from error


def _answer(utils: Any, url: str, headers: dict[str, str]) -> Any:
    """An answer whose body is not read yet. Versions of the client before 1.0 stream by an argument."""
    if hasattr(utils, "http_stream_backoff"):
        return utils.http_stream_backoff("GET", url, headers=headers)
    return utils.http_backoff("GET", url, headers=headers, stream=True)


def _listed_hash(listed: Any) -> str:
    """The hash that the Hub lists for a file: SHA-256 of a large one, git's of a small one; or nothing."""
    return str(listed.lfs.sha256 if listed.lfs is not None else listed.blob_id or "")


def _configs(card: Any) -> list[dict[str, Any]]:
    """The subsets that a dataset card lists; what is no list of objects lists none."""
    configs = card.get("configs") if hasattr(card, "get") else None  # a class of the Hub's client, or nothing
    return [config for config in configs if isinstance(config, dict)] if isinstance(configs, list) else []


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
        chosen = _matching(names, patterns, dataset)
    else:
        below = [name for name in names if not subset or name.startswith(f"{subset}/")]
        below = [name for name in below if not name.endswith(".json")] or below  # most often facts about the dataset
        word = r"(?:^|[/._-]){}(?:[/._-]|$)"
        named = any(re.search(word.format("(train|test|validation|valid|dev)"), name) for name in below)
        chosen = [name for name in below if re.search(word.format(re.escape(split)), name)]
        if not named and split == "train":
            chosen = below
    if not chosen:
        what = f"subset {subset!r}, split {split!r}" if subset else f"split {split!r}"
        raise UsageError(f"{dataset} has no parquet, JSON lines or text files for {what}")
    return chosen


def _matching(names: Sequence[str], patterns: Sequence[str], dataset: str) -> list[str]:
    """The names that one of a card's patterns means, found in bounded time.

    Raises:
        UserError: A pattern means nothing, or takes too long to compare.
    """
    try:
        matchers = [regex.compile(glob_regex(p.removeprefix("./").removeprefix("/"))) for p in patterns]
        return [name for name in names if any(matcher.match(name, timeout=PATTERN_TIME) for matcher in matchers)]
    except (re.error, regex.error, TimeoutError) as error:
        reason = str(error) or "it takes too long"
        raise UserError(f"the card of {dataset} names files by a pattern that cannot be used: {reason}") from None


def _card_patterns(configs: Sequence[dict[str, Any]], dataset: str, subset: str | None, split: str) -> list[str]:
    by_name = {str(config.get("config_name", "default")): config for config in configs}
    if subset is None:
        marked = [name for name, config in by_name.items() if config.get("default")]
        subset = next(iter([*marked, *(name for name in by_name if name == "default"), *by_name]))
    if subset not in by_name:
        raise UsageError(f"{dataset} has no subset {subset!r}; it has {listed(list(by_name))}")
    data_files = by_name[subset].get("data_files") or f"{by_name[subset].get('data_dir', '.')}/**"
    if not isinstance(data_files, list) or not all(isinstance(entry, dict) for entry in data_files):
        data_files = [{"split": "train", "path": data_files}]
    by_split = {str(entry.get("split", "train")): entry.get("path", []) for entry in data_files}
    if split not in by_split:
        raise UsageError(f"{dataset}, subset {subset!r}, has no split {split!r}; it has {listed(list(by_split))}")
    path = by_split[split]
    return [path] if isinstance(path, str) else [str(each) for each in path] if isinstance(path, list) else []
