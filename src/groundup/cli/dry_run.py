"""groundup train --dry-run: what a run would be, on paper."""

from rich.console import Console
from rich.table import Table

from groundup.config.data import DataConfig
from groundup.config.presets import GPT2_VOCAB
from groundup.config.train import TrainConfig
from groundup.data.index import load_index
from groundup.files.layout import INDEX
from groundup.planner.plan import plan
from groundup.tokenizer.io import resolve_tokenizer

GUESSED_VOCAB = 65
"""A character vocabulary is known when the text has been read; a plan on paper takes Tiny Shakespeare's."""


def print_plan(config: TrainConfig, console: Console) -> None:
    """Print what a run would be, without reading its text or touching its device."""
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in plan(config, vocab_size=vocabulary(config.data)).rows():
        table.add_row(name, value)
    console.print(table)


def vocabulary(data: DataConfig) -> int:
    """Ids of the tokenizer, as far as they can be known before the text is read."""
    if data.source == "shards":
        return load_index(data.path).vocab_size if data.path and (data.path / INDEX).is_file() else GPT2_VOCAB
    if data.tokenizer == "char":
        return GUESSED_VOCAB
    return GPT2_VOCAB if data.tokenizer == "gpt2" else resolve_tokenizer(data.tokenizer).vocab_size
