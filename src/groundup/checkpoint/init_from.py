"""--init-from: begin with the weights of a model folder in place of random ones (fine-tuning)."""

from dataclasses import fields
from pathlib import Path

from groundup.checkpoint.model_folder import LoadedModel, load_model
from groundup.config.errors import UsageError
from groundup.config.model import BigramConfig, GPTConfig, ModernConfig, model_flag
from groundup.files.layout import TOKENIZER
from groundup.model.build import Transformer
from groundup.planner.params import has_position_table
from groundup.tokenizer.base import Tokenizer

_FREE = ("vocab_size", "dropout", "proj_init")
"""What need not be the same: the vocabulary is compared as a tokenizer, fine-tuning may want more dropout, and nothing
is drawn."""


def init_from(model: Transformer, tokenizer: Tokenizer, path: Path) -> None:
    """Copy the weights of a model folder into a model.

    Args:
        model: Of the shape that the run asks for.
        tokenizer: Of the run's data.
        path: A run, checkpoint or model folder.

    Raises:
        UserError: There is no model there, or it is damaged.
        UsageError: It has another shape or another vocabulary; one message lists everything, with the flags that help.
    """
    loaded = load_model(path)
    if isinstance(loaded.config, BigramConfig):
        raise UsageError(f"cannot start from {path}: it is a bigram")
    faults, flags = _mismatches(model.config, loaded.config, tokenizer, loaded)
    if faults:
        raise UsageError(f"cannot start from {path}: {'; '.join(faults)}; give {' '.join(flags)}")
    state = loaded.model.state_dict()
    if "wpe.weight" in state:
        state["wpe.weight"] = state["wpe.weight"][: model.config.block_size]
    model.load_state_dict(state)


def _mismatches(
    asked: GPTConfig | ModernConfig, there: GPTConfig | ModernConfig, tokenizer: Tokenizer, loaded: LoadedModel
) -> tuple[list[str], list[str]]:
    """What differs, and the flags that would make it the same."""
    faults, flags = [], []
    if type(asked) is not type(there):
        faults.append(f"model.kind is {asked.kind} and its {there.kind}")
        flags.append(model_flag("kind", there.kind))
    for name in (field.name for field in fields(there) if field.name not in _FREE):
        mine, its = getattr(asked, name, None), getattr(there, name)
        if name == "block_size" and (mine <= its or not has_position_table(there)):
            continue  # the first positions of a table are learned as if there were no others; angles need no learning
        if mine not in (its, None):
            faults.append(f"model.{name} is {mine} and its {its}")
            flags.append(model_flag(name, its))
    if tokenizer.fingerprint != loaded.tokenizer.fingerprint:
        faults.append(
            f"the data's tokenizer ({tokenizer.vocab_size} ids) is not the one it learned with ({there.vocab_size} ids)"
        )
        flags.append(f"--data.tokenizer {loaded.path / TOKENIZER}")
    return faults, flags
