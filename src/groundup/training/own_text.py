"""A text in place of a preset: `groundup train notes/`, and `groundup finetune MODEL TEXT`."""

import difflib
import glob
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from groundup.checkpoint.folders import config_of
from groundup.config.data import DataConfig
from groundup.config.errors import UsageError, UserError
from groundup.config.model import ModernConfig
from groundup.config.presets import GPT2, GPT2_VOCAB, RECIPES
from groundup.config.printable import counted
from groundup.config.train import TrainConfig
from groundup.corpora.patterns import near_file, not_there, nothing_there
from groundup.files.layout import CONFIG, INDEX, WEIGHTS
from groundup.planner.own_text import Text, finetune_recipe, steps_of_a_pass, text_recipe
from groundup.records.models_here import check_model
from groundup.terminal.waiting import before_torch
from groundup.terminal.words import plain_places, switches

TEXT, FINETUNE = "text", "finetune"
"""Presets whose values follow from a text."""
PIPE = "-"
"""What other programs call standard input."""


def plain(words: Sequence[str]) -> list[int]:
    """Where words of `groundup train` stand that are neither flags nor values of flags."""
    known = switches(RECIPES["shakespeare"])  # whose kind of model has the most
    return plain_places(words, known | {"--dry-run", "--allow-data-change", "--resume-or-start"})


def take_named(words: list[str], *, first: bool) -> str | None:
    """Take the preset or the text out of words; of several behind flags, one that is there.

    Args:
        words: Those after `groundup train`.
        first: Take the first word or none: what to train is named by a flag.
    """
    places = plain(words)
    if first or 0 in places:
        return words.pop(0) if 0 in places else None
    known = [at for at in places if words[at] in (*RECIPES, TEXT, FINETUNE) or is_text(words[at])]
    return words.pop((known or places)[0]) if places else None


def is_text(word: str) -> bool:
    """Whether a word names a text, and not a preset."""
    if word in ("", *RECIPES, TEXT, FINETUNE):
        return False
    return glob.has_magic(word) or Path(word).exists()


def recipe_of(word: str, words: list[str], read: Callable[[TrainConfig], object]) -> TrainConfig | None:
    """The run that a word means, where it means a text; None where it is a preset's name, or nothing.

    Args:
        word: A file, a folder or a glob, or `text` or `finetune`, which take theirs from `--data.path`.
        words: The flags that follow. `--init-from` is taken out of them where it is used up here.
        read: Reads the flags, with the values of a recipe where there are none.

    Raises:
        UserError: There is no such text, or no such model; or a flag is none, which is told before PyTorch is loaded.
    """
    if word not in (TEXT, FINETUNE) and not is_text(word):
        return None
    path = word if is_text(word) else next(iter(_values(words, "--data.path")), None)
    models, helps = _values(words, "--init-from"), bool({"-h", "--help"} & set(words))
    if helps and (path is None or (word == FINETUNE and not models)):
        return _example(word)
    if path is None:
        given = "groundup train notes/" if word == TEXT else "groundup finetune models/gpt2 notes/"
        raise UsageError(f"{word} needs a file or folder of text: {given}")
    if (Path(path) / CONFIG).is_file():
        raise _is_no_text(path)
    recipe: Callable[[Text], TrainConfig] = text_recipe
    if word == FINETUNE and not models:
        raise UsageError("finetune needs a model: groundup finetune models/gpt2 notes/")
    text = _measured(path, words)
    if word == FINETUNE:
        del words[_place(words, "--init-from")]
        recipe = _finetune(Path(models[0]))
    if not helps:
        try:
            read(recipe(text))
        except UsageError as error:  # whether values fit together depends on the machine, a flag does not
            if str(error).startswith(("unrecognized options", "--")):
                raise
    return _with_context(recipe(replace(text, gpu=_has_gpu(words))), words)


def _example(word: str) -> TrainConfig:
    """For help where no text, or no model, is named: what suits a text of a megabyte, and GPT-2."""
    text = Text(Path("TEXT"), 1_000_000, gpu=False)
    if word == TEXT:
        return text_recipe(text)
    return finetune_recipe(
        text, replace(GPT2, vocab_size=0), init_from=Path("MODEL"), tokenizer="gpt2", vocab=GPT2_VOCAB
    )


def _with_context(recipe: TrainConfig, words: list[str]) -> TrainConfig:
    """With --model.block-size alone, steps of as many sequences as before."""
    asked = next(iter(_values(words, "--model.block-size")), "")
    if not (asked.isascii() and asked.isdigit()) or int(asked) < 1 or _values(words, "--tokens-per-step"):
        return recipe
    samples = recipe.tokens_per_step // recipe.model.block_size
    model = replace(recipe.model, block_size=int(asked))
    return replace(recipe, model=model, tokens_per_step=samples * int(asked))


def meant(word: str, words: list[str]) -> str:
    """The command that `groundup train WORD` with these flags is, for messages that send to its --help."""
    models, texts = _values(words, "--init-from")[:1], _values(words, "--data.path")[:1]
    if word == FINETUNE and models and texts:
        return f"groundup finetune {shlex.join(models + texts)}"
    return f"groundup train {shlex.join(texts if word == TEXT and texts else [word])}"


def passes(config: TrainConfig, words: list[str]) -> str:
    """How many steps are one pass over the text of a config."""
    path = config.data.path
    if path is None or not is_text(str(path)):
        return f"one pass over a text of 1,000,000 tokens is {1_000_000 // config.tokens_per_step:,}"
    steps = steps_of_a_pass(_measured(str(path), words), config)
    return f"one pass over {path} is about {steps:,}"


def choices(config: TrainConfig) -> str:
    """What was chosen for a text, in lines that fit a terminal."""
    model, data = config.model, config.data
    begin = f"from the weights of {config.init_from}" if config.init_from else "from random weights"
    learn = f", learning a change of rank {config.lora.rank} (LoRA)" if config.lora.rank else ""
    rotary = config.init_from is None and isinstance(model, ModernConfig) and model.position == "rope"
    exports = "\n  to export to transformers or llama.cpp, train with --model.position learned" if rotary else ""
    on = "prepared shards" if data.source == "shards" else _spelled(data.tokenizer)
    return (
        f"{config.run_dir}: {counted(config.max_steps, 'step')} on {data.path} {begin}{learn}\n"
        f"  {counted(model.n_layer, 'layer')}, {model.n_embd} wide, context {model.block_size}, on {on}\n"
        "  chosen by the size of the text and by this machine; --help has every value's\n"
        "  flag, --dry-run shows the plan"
        f"{exports}"
    )


def _spelled(tokenizer: str) -> str:
    known = {"char": "single characters", "gpt2": "GPT-2's tokens"}
    return known.get(tokenizer, f"the tokens of {tokenizer}")


def _finetune(model: Path) -> Callable[[Text], TrainConfig]:
    """The recipes that go on from a model.

    Raises:
        UserError: There is none.
    """
    check_model(model)
    from groundup.tokenizer.io import load_tokenizer

    found = config_of(model)
    if found is None:
        raise UserError(f"{model} is a bigram, which is counted and not trained")
    shape, tokenizer = found
    vocab = load_tokenizer(tokenizer).vocab_size
    return lambda text: finetune_recipe(text, shape, init_from=model, tokenizer=str(tokenizer), vocab=vocab)


def _measured(path: str, words: list[str]) -> Text:
    """How large a text is, as its files tell.

    Raises:
        UserError: There are no files of text.
    """
    if (Path(path) / INDEX).is_file():
        from groundup.data.index import load_index

        index = load_index(Path(path))
        n_tokens, n_bytes = (sum(getattr(info, name) for info in index.shards) for name in ("n_tokens", "n_bytes"))
        return Text(Path(path), n_bytes, gpu=False, shards=True, n_tokens=n_tokens, vocab_size=index.vocab_size)
    from groundup.corpora.local_files import LocalFiles
    from groundup.prepare.report import Spoken, listing
    from groundup.terminal.say import warn

    files = LocalFiles(path, _reading(path, words), listing(Spoken(warn, path)))
    return Text(Path(path), files.text_bytes(), gpu=False)


def _reading(path: str, words: list[str]) -> DataConfig:
    """The flags that decide which files are read, and what advice calls them."""
    suffixes = tuple(_values(words, "--data.text-suffixes"))
    config = DataConfig(source="text", path=Path(path), text_suffixes=suffixes)
    column = _values(words, "--data.text-column")
    return replace(config, text_column=column[0]) if column else config


def _has_gpu(words: list[str]) -> bool:
    from groundup.terminal.working import Working

    device = next(iter(_values(words, "--runtime.device")), "auto")
    before_torch(device, fewer=not _values(words, "--runtime.threads"))
    with Working("loading PyTorch"):
        from groundup.runtime.device import pick_device
    return pick_device(device).type != "cpu"


def _is_no_text(path: str) -> UsageError:
    """What to say of a run, or a model, where a text was to be."""
    quoted = shlex.quote(path)
    if (Path(path) / WEIGHTS).is_file():
        return UsageError(f"{path} is a model; to go on from its weights: groundup finetune {quoted} TEXT")
    return UsageError(f"{path} is a run, not a preset; to go on with it: groundup train --resume {quoted}")


def piped(command: str) -> UsageError:
    """What to say where a text was to come from a pipe: it is read more than once."""
    return UsageError(f"a text is read from a file, not from a pipe: ... > notes.txt, then {command} notes.txt")


def unknown_preset(name: str) -> UserError:
    """What to say of a word that is neither a preset nor a text."""
    if name == PIPE:
        return piped("groundup train")
    presets_like = [preset for preset in RECIPES if name and preset.startswith(name)]
    presets_like = presets_like or difflib.get_close_matches(name, RECIPES, n=1)
    presets = f"the presets are {', '.join(RECIPES)}; or name a file or folder of text"
    hint = f"did you mean {presets_like[0]}?" if presets_like else presets
    texts = f"name a file, folder or glob of text, or one of {', '.join(RECIPES)}"
    return nothing_there(name, texts, no_name=f"unknown preset {name!r}; {hint}", then="groundup train")


def no_text(name: str, otherwise: UsageError) -> UsageError:
    """What to say of a value of --data.source that is none: a text takes the place of a preset.

    Args:
        name: The value.
        otherwise: What to say where no text is meant.
    """
    if is_text(name) and next(glob.iglob(name, recursive=True), None) is not None:  # noqa: PTH207
        return UsageError(f"{name} is a text: groundup train {shlex.quote(name)}")
    if Path(name).is_symlink():
        return UsageError(not_there(name))
    if near := near_file(Path(name)):
        return UsageError(f"{name} does not exist; did you mean groundup train {shlex.quote(str(near))}?")
    if not (is_text(name) or "/" in name or Path(name).suffix):
        return otherwise
    return UsageError(f"{name} does not exist; a text takes the place of a preset: groundup train notes/")


def _values(words: list[str], flag: str) -> list[str]:
    """What follows a flag, up to the next one."""
    place = _place(words, flag)
    values = [part for word in words[place] for part in (word.split("=", 1) if word.startswith(flag) else [word])]
    return values[1:]


def _place(words: list[str], flag: str) -> slice:
    """Where a flag and its values stand."""
    start = next((k for k, word in enumerate(words) if word == flag or word.startswith(f"{flag}=")), len(words))
    end = next((k for k, word in enumerate(words) if k > start and word.startswith("-")), len(words))
    return slice(start, end)
