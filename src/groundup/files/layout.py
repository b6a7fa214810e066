"""The names of files in a run, a checkpoint, a model folder and a dataset, written once."""

from pathlib import Path

CONFIG = "config.json"
WEIGHTS = "model.safetensors"


def folders_around(path: Path) -> tuple[Path, Path, Path]:
    """A folder and the two above it: of a model folder or a checkpoint, the run is among them."""
    return (path, *path.resolve().parents[:2])  # type: ignore[return-value]
