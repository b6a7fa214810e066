"""groundup train --dry-run: what a run would be, on paper."""

from pathlib import Path

from rich.console import Console

from groundup.checkpoint.folders import find_model, read_config
from groundup.config.data import DataConfig
from groundup.config.presets import GPT2_VOCAB
from groundup.config.train import TrainConfig
from groundup.data.index import load_index
from groundup.files.layout import CONFIG, INDEX
from groundup.planner.plan import plan
from groundup.terminal.tables import facts
from groundup.tokenizer.io import resolve_tokenizer

GUESSED_VOCAB = 65
"""A character vocabulary is known when the text has been read; a plan on paper takes Tiny Shakespeare's."""


def print_plan(config: TrainConfig, console: Console, *, resumed: bool = False) -> None:
    """Print what a run would be, without reading its text or touching its device."""
    vocab_size = _own_vocabulary(config.run_dir) if resumed else vocabulary(config.data)
    console.print(facts(plan(config, vocab_size=vocab_size).rows()))


def _own_vocabulary(run_dir: Path) -> int:
    """Ids of a run that has been saved: the file that its tokenizer came from may be gone."""
    return read_config(find_model(run_dir) / CONFIG)[0].vocab_size


def vocabulary(data: DataConfig) -> int:
    """Ids of the tokenizer, as far as they can be known before the text is read."""
    if data.source == "shards":
        return load_index(data.path).vocab_size if data.path and (data.path / INDEX).is_file() else GPT2_VOCAB
    if data.tokenizer == "char":
        return GUESSED_VOCAB
    return GPT2_VOCAB if data.tokenizer == "gpt2" else resolve_tokenizer(data.tokenizer).vocab_size
