"""The models that a server offers, by id."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup import __version__
from groundup.checkpoint.model_folder import LoadedModel, load_model
from groundup.files.layout import WEIGHTS
from groundup.files.manifest import read_manifest
from groundup.generation.engine import Engine
from groundup.generation.slots import count_slots
from groundup.generation.text import TextGenerator
from groundup.serving.errors import RequestError

MAX_SLOTS = 16
"""The most texts that one model writes side by side."""


@dataclass(frozen=True)
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

    @property
    def fingerprint(self) -> str:
        """Changes when, and only when, program or weights do."""
        weights = str(read_manifest(self.loaded.path)[WEIGHTS]["sha256"])
        return f"groundup-{__version__}-{weights[:8]}"

    def prompt_ids(self, prompt: str) -> list[int]:
        """The ids a prompt stands for; an empty one begins a document."""
        return TextGenerator(self.loaded.model, self.loaded.tokenizer).prompt_ids(prompt)

    def facts(self) -> dict[str, Any]:
        """What /v1/models says."""
        return {
            "id": self.id,
            "object": "model",
            "created": int((self.loaded.path / WEIGHTS).stat().st_mtime),
            "owned_by": "groundup",
            "max_model_len": self.context,
        }


def open_models(paths: Sequence[Path]) -> dict[str, Served]:
    """Load every model; the first one is the default.

    Raises:
        UserError: A folder holds no model, or a damaged one.
    """
    models: dict[str, Served] = {}
    for path in paths:
        loaded = load_model(path)
        name = _name_of(path, taken=models)
        engine = Engine(loaded.model, n_slots=count_slots(loaded.model, MAX_SLOTS))
        models[name] = Served(name, loaded, engine)
    return models


def find(models: Mapping[str, Served], name: str | None) -> Served:
    """The model of a request; None takes the first.

    Raises:
        RequestError: 404, with the names there are.
    """
    if name is None:
        return next(iter(models.values()))
    if name not in models:
        raise RequestError(
            404, f"there is no model {name!r}; there are {', '.join(models)}", param="model", code="model_not_found"
        )
    return models[name]


def _name_of(path: Path, taken: Mapping[str, Served]) -> str:
    """The folder's name; of a run's checkpoint or model folder, the run's with it."""
    resolved = path.resolve()
    if resolved.parent.name == "checkpoints":
        name = f"{resolved.parent.parent.name}@{resolved.name}"
    else:
        name = resolved.parent.name if resolved.name == "model" else resolved.name
    if name in taken:
        name = f"{name}-{hashlib.sha256(str(resolved).encode()).hexdigest()[:4]}"
    return name
