"""A task by its name, from files to the result that eval.json keeps."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from groundup import __version__
from groundup.checkpoint.folders import step_folders
from groundup.checkpoint.model_folder import LoadedModel
from groundup.config.data import ReadConfig
from groundup.config.errors import UserError
from groundup.config.io import from_dict, load_json
from groundup.config.train import TrainConfig
from groundup.corpora.local_files import LocalFiles
from groundup.data.dataset import TokenDataset
from groundup.data.loader import eval_batches
from groundup.evaluation.benchmarks import PUBLISHED, find_published, measure_choices, measure_completions
from groundup.evaluation.examples import kind_of, read_choices, read_completions
from groundup.evaluation.loss import evaluate_loss
from groundup.evaluation.own_text import measure_text, usual_stride
from groundup.evaluation.pages import measure_pages, read_pages
from groundup.evaluation.scoring import BATCH_TOKENS
from groundup.files.layout import CHECKPOINTS, CONFIG, INDEX, RUN, STATE, WEIGHTS, folders_around
from groundup.files.manifest import read_manifest, sha256_file
from groundup.inference.weights import weights_of
from groundup.model.loss import LossModule
from groundup.model.types import device_of
from groundup.prepare.corpus import open_corpus, refuse_moved
from groundup.tokenizer.base import Tokenizer

FOLDER = Path("data")
"""Where benchmarks are kept."""


@dataclass(frozen=True, kw_only=True, slots=True)
class How:
    """How tasks are measured."""

    data: Path | None = None
    """A prepared folder for val, or the folder of the published files."""
    limit: int = 0
    """The most examples; for val, blocks; for wikitext, pages. 0 is all."""
    batch_tokens: int = 0
    """Tokens per forward pass; 0 takes what suits the device."""
    stride: int = 0
    """For text, see `measure_text`."""
    reading: ReadConfig = field(default_factory=ReadConfig)
    """How text is read."""
    progress: Callable[[float], None] = lambda _: None
    """Called with the share of a task that is done."""
    say: Callable[[str], None] = lambda _: None
    """Called with a line on what of a task is left out."""


def run_task(name: str, loaded: LoadedModel, path: Path, how: How) -> dict[str, Any]:
    """Measure one task.

    Args:
        name: val, a published benchmark, the path of a .jsonl of examples, or a file, folder or glob of text.
        loaded: The model.
        path: What it was loaded from; val looks there for the run's data.
        how: Where data is, how much of it is read, and how.

    Returns:
        The numbers, and what they were measured with: SHA-256 of data and weights, version, seconds. "path" is a file's
        of one's own, "how" what was unusual.

    Raises:
        UserError: The data is not there, damaged, or not of this model's tokenizer.
    """
    start = time.perf_counter()
    if name == "val":
        result = _val(loaded, path, how)
    elif is_text(name):
        result = _text(name, loaded, how)
    else:
        file = find_published(name, how.data or FOLDER) if name in PUBLISHED else Path(name)
        result = (_pages if name == "wikitext" else _examples)(file, loaded, how)
        result["data"] = sha256_file(file)
    weights = weights_of(loaded.model)
    facts: dict[str, Any] = {
        "path": None if name == "val" or name in PUBLISHED else os.path.abspath(name),  # noqa: PTH100  # as LocalFiles
        "how": ", ".join(_unusual(result, weights, how.limit, usual_stride(loaded.config.block_size))) or None,
        "limit": how.limit,
        "model": read_manifest(loaded.path)[WEIGHTS]["sha256"],
        "weights": weights,
        "step": loaded.info.get("step"),
        "groundup": __version__,
        "seconds": round(time.perf_counter() - start, 3),
    }
    return result | {key: value for key, value in facts.items() if value is not None}


def _unusual(result: dict[str, Any], weights: str | None, limit: int, stride: int) -> Iterator[str]:
    """What makes a result another one than that of the whole task by the model as it was trained."""
    if weights is not None:
        yield weights
    if limit:
        yield f"first {limit}"
    if result.get("stride", stride) != stride:
        yield f"stride {result['stride']}"


def is_text(name: str) -> bool:
    """Whether a task is a text of one's own: not a published one, nor examples in .jsonl."""
    return name not in (*PUBLISHED, "val") and not name.endswith(".jsonl")


def _text(name: str, loaded: LoadedModel, how: How) -> dict[str, Any]:
    source = LocalFiles(name, how.reading)
    result = measure_text(
        loaded.model,
        loaded.tokenizer,
        source,
        stride=how.stride,
        limit=how.limit,
        batch_tokens=how.batch_tokens,
        progress=how.progress,
        say=how.say,
    ).as_json()
    return result | {"data": source.describe()["sha256"]}


def _examples(file: Path, loaded: LoadedModel, how: How) -> dict[str, Any]:
    model, batch_tokens, progress = loaded.model, how.batch_tokens, how.progress
    if kind_of(file) == "choice":
        choices = read_choices(file, loaded.tokenizer, limit=how.limit, say=how.say)
        return measure_choices(model, choices, batch_tokens=batch_tokens, progress=progress).as_json()
    completions = read_completions(file, loaded.tokenizer, limit=how.limit, say=how.say)
    return measure_completions(model, completions, batch_tokens=batch_tokens, progress=progress).as_json()


def _pages(file: Path, loaded: LoadedModel, how: How) -> dict[str, Any]:
    pages = read_pages(file, limit=how.limit)
    model, tokenizer = loaded.model, loaded.tokenizer
    return measure_pages(model, tokenizer, pages, batch_tokens=how.batch_tokens, progress=how.progress).as_json()


def _val(loaded: LoadedModel, path: Path, how: How) -> dict[str, Any]:
    dataset = _val_data(path, how.data, loaded.tokenizer)
    if dataset.index.tokenizer_fingerprint != loaded.tokenizer.fingerprint:
        raise UserError(f"{dataset.dir} was prepared with another tokenizer than that of {path}")
    split = dataset.split("val")
    model, block_size = loaded.model, loaded.config.block_size
    device = device_of(model)
    tokens = how.batch_tokens or BATCH_TOKENS[device.type]
    batches = eval_batches(
        split,
        block_size=block_size,
        batch_size=max(1, tokens // block_size),
        max_tokens=how.limit * block_size,
        progress=how.progress,
    )
    result = evaluate_loss(LossModule(model), batches, device=device, bytes_per_token=split.n_bytes / split.n_tokens)
    return result.as_json() | {"data": dataset.index.fingerprint}


def _val_data(path: Path, data: Path | None, tokenizer: Tokenizer) -> TokenDataset:
    """What --data names. A folder of published files is meant for other tasks; one that holds neither is a mistake."""
    if data is None or (not (data / INDEX).is_file() and any((data / p.file).is_file() for p in PUBLISHED.values())):
        return _own_data(path, tokenizer)
    return TokenDataset(data)


def _own_data(path: Path, tokenizer: Tokenizer) -> TokenDataset:
    """The data of the run that a folder is, or is part of.

    Raises:
        UserError: It is of no run, or the run's data is not there, or another by now: then what is validation may be
            what the run learned.
    """
    for folder in folders_around(path):
        if (folder / RUN).is_file():
            config = folder / CONFIG
            data = from_dict(TrainConfig, load_json(config), where=str(config)).data
            refuse_moved(data, "put it back, or name a prepared folder with --data")
            learned = _learned(folder)
            dataset = open_corpus(data, tokenizer, learned=learned, instead="--data, as a prepared folder")
            if learned not in ("", dataset.index.fingerprint):
                raise UserError(
                    f"{data.path or data.source} is not what {folder} learned from: its fingerprint is"
                    f" {dataset.index.fingerprint[:12]} instead of {learned[:12]}, and the run may have learned what is"
                    " validation now; put the text back, or name a prepared folder with --data"
                )
            return dataset
    raise UserError(f"{path} is of no run that says what it learned from: name a prepared folder with --data")


def _learned(run: Path) -> str:
    """Fingerprint of the data that a run learned from last; empty where that is not known."""
    for folder in reversed(step_folders(run / CHECKPOINTS).values()):
        with contextlib.suppress(UserError, KeyError, TypeError):
            return str(load_json(folder / STATE)["state"]["data"]["fingerprint"])
    with contextlib.suppress(KeyError, TypeError):
        return str(load_json(run / RUN)["data_fingerprint"])
    return ""
