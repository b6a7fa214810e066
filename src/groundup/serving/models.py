"""The models that a server offers, by id: those it was started with, and any kept step of their runs.

`shakespeare` is the model of a run, `shakespeare@64` its weights after 64 steps. Steps are loaded when they are asked
for, and a few of them are kept. A request never names a path: names are looked up in lists that the server made.
"""

import asyncio
import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from groundup import __version__
from groundup.checkpoint.folders import find_model, step_folders
from groundup.checkpoint.model_folder import LoadedModel, load_model
from groundup.config.errors import UserError
from groundup.files.layout import CHECKPOINTS, GROWTH, MODEL, WEIGHTS, folders_around, resolved
from groundup.files.manifest import read_manifest
from groundup.generation.engine import Engine
from groundup.generation.slots import Slots, count_slots
from groundup.generation.text import MAX_SLOTS, prompt_ids
from groundup.records.history import find_runs, is_run
from groundup.runtime.stored import Weights
from groundup.serving.errors import RequestError, invalid, shown
from groundup.serving.texts import TokenNames

T = TypeVar("T")
MAX_STEPS, SLOTS_OF_STEP = 4, 4
"""Steps of runs that are held in memory beside the models themselves, and the slots of each."""


@dataclass(frozen=True, eq=False)
class Served:
    """One model.

    Args:
        id: Its name in requests.
        loaded: Weights, tokenizer and shape.
        engine: Writes its texts.
    """

    id: str
    loaded: LoadedModel
    engine: Engine

    @property
    def context(self) -> int:
        """The most tokens the model sees."""
        return self.loaded.config.block_size

    @cached_property
    def fingerprint(self) -> str:
        """Changes when program or weights do. Read once: a checkpoint's folder may be dropped while it is served."""
        return f"groundup-{__version__}-{self._weights_sha256[:8]}"

    @cached_property
    def _weights_sha256(self) -> str:
        return str(read_manifest(self.loaded.path)[WEIGHTS]["sha256"])

    @cached_property
    def vocabulary(self) -> list[str]:
        """How each id is written."""
        names = TokenNames(self.loaded.tokenizer, as_ids=False)
        return [names(token) for token in range(self.loaded.config.vocab_size)]

    @cached_property
    def looked(self) -> Slots:
        """A slot for the text that the page looks at, which mostly begins as it did before."""
        return Slots(self.loaded.model, 1)

    @cached_property
    def created(self) -> int:
        """When the weights were written, in seconds since 1970."""
        return int((self.loaded.path / WEIGHTS).stat().st_mtime)

    @property
    def run(self) -> Path | None:
        """The run folder that it lies in."""
        return next((path for path in folders_around(self.loaded.path) if is_run(path)), None)

    def prompt_ids(self, prompt: str) -> list[int]:
        """The ids a prompt stands for; an empty one begins a document."""
        return prompt_ids(self.loaded.tokenizer, prompt)

    def check_ids(self, param: str, ids: Sequence[int]) -> None:
        """Refuse ids that the model does not have.

        Raises:
            RequestError: It does not; the field is named.
        """
        n, most = self.loaded.config.vocab_size, max(ids, default=0)
        if most >= n:
            raise invalid(param, f"{param}: the model has {n} ids, got {most}")

    def facts(self) -> dict[str, Any]:
        """What /v1/models says."""
        return {
            "id": self.id,
            "object": "model",
            "created": self.created,
            "owned_by": "groundup",
            "max_model_len": self.context,
        }


class Models:
    """Loads every model; the first one is the default.

    Args:
        paths: Runs, checkpoints or model folders.
        weights: How matrices are stored, as in `load_model`.
        say: Called with lines that a person should read.

    Raises:
        UserError: A folder holds no model, or a damaged one.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        weights: Weights | Literal["saved", "auto"] = "saved",
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._open = partial(load_model, weights=weights, rows=MAX_SLOTS, say=say)
        self._own: dict[str, Served] = {}
        self._steps: OrderedDict[str, tuple[Any, Served]] = OrderedDict()
        """Of runs, by id, the one used last at the end, each with its manifest: a run may be trained again."""
        self._loading = asyncio.Lock()
        for path in paths:
            name = _name_of(path, taken=self._own)
            self._own[name] = _on_a_short_thread(partial(self._load, name, path, MAX_SLOTS))

    def __iter__(self) -> Iterator[Served]:
        """Those that the server was started with."""
        return iter(self._own.values())

    @property
    def runs_folder(self) -> Path | None:
        """Where the first served run lies, and its neighbors; None where no run is served."""
        return next((served.run.parent for served in self if served.run), None)

    def run_folder(self, name: str) -> Path | None:
        """The folder of a run by the id of its model, or by its name among the neighbors of the first served run."""
        if served := self._own.get(name):
            return served.run
        folder = self.runs_folder
        return None if folder is None else {path.name: path for path in find_runs(folder)}.get(name)

    def steps(self, name: str) -> dict[int, Path]:
        """The kept steps of a run, in their order, and where their weights are."""
        run = self.run_folder(name)
        if run is None:
            return {}
        folders = step_folders(run / CHECKPOINTS) | step_folders(run / GROWTH)  # growth stays: it goes first
        return dict(sorted(folders.items()))

    async def find(self, name: str | None) -> Served:
        """The model of a request; None takes the first.

        Raises:
            RequestError: 404, with the names there are.
        """
        if name is None:
            return next(iter(self))
        if served := self._own.get(name):
            return served
        async with self._loading:
            try:
                path = await asyncio.to_thread(self._path_of, name)
                manifest = await asyncio.to_thread(read_manifest, path)
                known, served = self._steps.get(name, (None, None))
                if served is None or known != manifest:
                    load = partial(self._load, name, path, SLOTS_OF_STEP)
                    served = await asyncio.to_thread(_on_a_short_thread, load)
            except UserError as error:
                said = str(error).replace(f"{self.runs_folder}{os.sep}", "")  # where that is, is the server's matter
                raise RequestError(404, said, param="model", code="model_not_found") from None
            self._steps[name] = manifest, served
            self._steps.move_to_end(name)
            while len(self._steps) > MAX_STEPS:  # texts that are being written hold their model until they end
                self._steps.popitem(last=False)
            return served

    def _path_of(self, name: str) -> Path:
        run, at, step = name.rpartition("@")
        if at and step.isascii() and step.isdecimal() and len(step) < 19 and str(int(step)) == step:  # one id each
            steps = self.steps(run)
            if int(step) in steps:
                return steps[int(step)]
            if steps:
                listed = ", ".join(map(str, steps))
                message = f"there is no step {step} of {shown(run)}; there are {listed}"
                raise RequestError(404, message, param="model", code="model_not_found")
        elif folder := self.run_folder(name):
            return find_model(folder)
        message = f"there is no model {shown(name)}; there are {', '.join(self._own)}"
        raise RequestError(404, message, param="model", code="model_not_found")

    def _load(self, name: str, path: Path, n_slots: int) -> Served:
        loaded = self._open(path)
        served = Served(name, loaded, Engine(loaded.model, n_slots=count_slots(loaded.model, n_slots)))
        _ = served.fingerprint, served.created  # while the folder is certainly there
        return served


def _on_a_short_thread(work: Callable[[], T]) -> T:
    """Let PyTorch compute on a thread that ends with the work.

    OpenMP gives each thread that computes a team of threads, which lives as long as it. When the teams together are
    larger than the machine, GNU's OpenMP lets them sleep at every barrier, and a step of the engine takes longer.
    """
    with ThreadPoolExecutor(1) as short:
        return short.submit(work).result()


def _name_of(path: Path, taken: dict[str, Served]) -> str:
    """The folder's name; of a run's checkpoint or model folder, the run's with it.

    A container has a run at /model: it is no part of another one, and a name is never empty.
    """
    place = resolved(path)
    if place.parent.name in (CHECKPOINTS, GROWTH):
        name = f"{place.parent.parent.name}@{place.name}"
    else:
        of_run = place.name == MODEL and not is_run(place)
        name = (place.parent.name if of_run else "") or place.name or MODEL
    if name in taken:
        name = f"{name}-{hashlib.sha256(os.fsencode(place)).hexdigest()[:4]}"
    return name
