"""groundup train --dry-run: what a run would be, on paper."""

from pathlib import Path

from groundup.checkpoint.folders import find_model, read_config
from groundup.config.train import TrainConfig
from groundup.files.layout import CONFIG
from groundup.planner.plan import plan
from groundup.prepare.vocabulary import known_vocabulary
from groundup.terminal.tables import facts, print_table


def print_plan(config: TrainConfig, *, resumed: bool = False) -> None:
    """Print what a run would be, without touching its device; of its text, at most characters are counted."""
    vocab_size, assumed = (_own_vocabulary(config.run_dir), False) if resumed else known_vocabulary(config)
    print_table(facts(plan(config, vocab_size=vocab_size, assumed=assumed).rows()))


def _own_vocabulary(run_dir: Path) -> int:
    """Ids of a run that has been saved: the file that its tokenizer came from may be gone."""
    return read_config(find_model(run_dir) / CONFIG)[0].vocab_size
