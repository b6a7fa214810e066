"""--init-from: begin with the weights of a model folder in place of random ones (fine-tuning)."""

from pathlib import Path

from groundup.checkpoint.model_folder import LoadedModel, find_model, load_model, read_config
from groundup.config.errors import UsageError
from groundup.config.model import GPTConfig
from groundup.files.layout import CONFIG
from groundup.model.gpt import GPT
from groundup.tokenizer.base import Tokenizer
from groundup.tokenizer.io import FILE

_SHAPE = ("n_layer", "n_head", "n_embd", "block_size", "position", "rope_base", "bias")
"""What decides the function of the weights. Dropout does not: fine-tuning may want more of it."""
_BIAS = {True: "--model.bias", False: "--model.no-bias"}


def flags_of(path: Path) -> list[str]:
    """The flags of `groundup train` that ask for the shape and the tokenizer of a model folder.

    Raises:
        UserError: There is no model there.
    """
    folder = find_model(path)
    config, _ = read_config(folder / CONFIG)
    if not isinstance(config, GPTConfig):
        return []  # `init_from` says so
    shape = [word for name in _SHAPE for word in _flag(name, config)]
    return [*shape, "--model.vocab-size", "0", "--data.tokenizer", str(folder / FILE)]


def _flag(name: str, config: GPTConfig) -> list[str]:
    value = getattr(config, name)
    return [_BIAS[value]] if name == "bias" else [f"--model.{name.replace('_', '-')}", str(value)]


def init_from(model: GPT, tokenizer: Tokenizer, path: Path) -> None:
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
    if not isinstance(loaded.config, GPTConfig):
        raise UsageError(f"cannot start from {path}: it is a bigram")
    faults, flags = _mismatches(model.config, loaded.config, tokenizer, loaded)
    if faults:
        raise UsageError(f"cannot start from {path}: {'; '.join(faults)}; give {' '.join(flags)}")
    model.load_state_dict(loaded.model.state_dict())


def _mismatches(
    asked: GPTConfig, there: GPTConfig, tokenizer: Tokenizer, loaded: LoadedModel
) -> tuple[list[str], list[str]]:
    """What differs, and the flags that would make it the same."""
    faults, flags = [], []
    for name in _SHAPE:
        mine, its = getattr(asked, name), getattr(there, name)
        if mine == its or (name == "rope_base" and there.position != "rope"):
            continue
        faults.append(f"model.{name} is {mine} and its {its}")
        flags += _flag(name, there)
    if tokenizer.fingerprint != loaded.tokenizer.fingerprint:
        faults.append(
            f"the data's tokenizer ({tokenizer.vocab_size} ids) is not the one it learned with ({there.vocab_size} ids)"
        )
        flags.append(f"--data.tokenizer {loaded.path / FILE}")
    return faults, flags
