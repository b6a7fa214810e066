"""The names of files in a run, a checkpoint, a model folder and a dataset, written once."""

from pathlib import Path

# Of a run, of a checkpoint and of a model folder.
CONFIG = "config.json"
WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer.json"

# Of a run.
RUN = "run.json"
"""What the machine and `auto` became, and how the run ended."""
METRICS = "metrics.jsonl"
EVAL = "eval.json"
LOSS_PICTURE = "loss.png"
REPORT = "report.html"
CHECKPOINTS = "checkpoints"

# Of a checkpoint.
STATE = "training.json"
TENSORS = "training.safetensors"

# Of a dataset, beside its shards and its tokenizer.
INDEX = "index.json"


def folders_around(path: Path) -> tuple[Path, Path, Path]:
    """A folder and the two above it: of a model folder or a checkpoint, the run is among them."""
    return (path, *path.resolve().parents[:2])  # type: ignore[return-value]
