"""Models from elsewhere into our model folder."""

import dataclasses
import shlex
from pathlib import Path

from groundup.checkpoint.model_folder import check_tensors, write_model_files
from groundup.config.errors import UsageError, UserError, reading
from groundup.config.io import load_object
from groundup.config.presets import GPT2_VOCAB
from groundup.config.printable import listed
from groundup.files.atomic import new_folder
from groundup.files.foreign import TENSORS, folder_of, other_programs
from groundup.files.hub_listing import HUB
from groundup.files.layout import CONFIG
from groundup.files.manifest import Facts
from groundup.files.new import refuse_existing
from groundup.interop import hub
from groundup.interop.imported import Imported
from groundup.interop.names import without_padding
from groundup.interop.read_hf import read_hf_folder
from groundup.interop.read_llmc import MAGIC, read_llmc
from groundup.interop.read_meta import read_meta
from groundup.interop.read_tokenizer import VOCAB, WHOLE, framing, read_tokenizer
from groundup.interop.read_torch import read_torch
from groundup.interop.source import check_source
from groundup.model.build import empty_model
from groundup.planner.params import count_parameters
from groundup.tokenizer.added import ALWAYS
from groundup.tokenizer.base import END_OF_TEXT, Tokenizer
from groundup.tokenizer.gpt2 import load_gpt2
from groundup.tokenizer.io import resolve_tokenizer


def import_model(
    source: str,
    out: Path,
    *,
    tokenizer: str | None = None,
    n_head: int | None = None,
    endpoint: str | None = None,
) -> Imported:
    """Read a model of another program and write it as a model folder of ours.

    Args:
        source: `hf:NAME`, a Hugging Face folder, or a file: of tensors (nanoGPT's ckpt.pt, ...) or llm.c's .bin.
        out: The folder to make.
        tokenizer: As `resolve_tokenizer` takes it, a Hugging Face folder or its tokenizer.json, or nanoGPT's meta.pkl;
            None takes what comes with the model, or GPT-2's where the model has as many ids.
        n_head: Attention heads, where a file of tensors does not say.
        endpoint: Another Hugging Face hub than the public one.

    Returns:
        What was written.

    Raises:
        UsageError: `out` is there already, or the source is nothing we know.
        UserError: The source cannot be read, or is not a GPT-2 as we build it; one message lists every mismatch.
    """
    refuse_existing(out)
    revision = None
    if source.startswith(HUB):
        path, revision = hub.fetch(source.removeprefix(HUB), endpoint=endpoint)
    else:
        path = Path(source)
    if tokenizer is not None and Path(tokenizer).name == WHOLE and _is_theirs(Path(tokenizer)):
        tokenizer = str(Path(tokenizer).parent)  # other files there belong to it
    foreign = _read(path, n_head)
    _refuse_too_large(foreign, path)
    chosen = _tokenizer(tokenizer, path, foreign)
    state = without_padding(foreign.state, chosen.vocab_size)
    config = dataclasses.replace(foreign.config, vocab_size=chosen.vocab_size)
    check_tensors(empty_model(config), state, path)
    info = {"source": source, **({"revision": revision} if revision else {}), **foreign.info}
    known: dict[str, Facts] = {}
    with new_folder(out, known) as folder:
        known |= write_model_files(folder, config, state, chosen, info)
    notes = [foreign.note]
    if cut := foreign.state["wte.weight"].shape[0] - chosen.vocab_size:
        notes.append(
            f"{cut} rows that pad the embedding were cut: no token has their ids; where some are tokens, name another"
            " tokenizer with --tokenizer"
        )
    notes += _notes(chosen)
    if (words := path if tokenizer is None else Path(tokenizer)).is_dir():
        notes.append(framing(words))
    return dataclasses.replace(foreign, config=config, state=state, info=info, note="\n".join(filter(None, notes)))


def _notes(tokenizer: Tokenizer) -> list[str]:
    """What to know of tokens that were added to a vocabulary."""
    found = getattr(tokenizer, "matching", {})
    always = [token for token, flags in found.items() if ALWAYS in flags]
    special = [t for t in getattr(tokenizer, "specials", []) if t != END_OF_TEXT and t not in always]
    notes = [f"added tokens are found in every text, as in transformers: {listed(always)}"] if always else []
    if special:
        notes.append(
            f"special tokens are kept: {listed(special)}; written in a prompt or a text they are plain characters, and"
            " in Python tokenizer.encode(text, allow_special=True) gives their ids"
        )
    return notes


def _refuse_too_large(foreign: Imported, path: Path) -> None:
    """A config that asks for far more than the tensors are must not be built to find that out."""
    wanted, there = count_parameters(foreign.config), sum(tensor.numel() for tensor in foreign.state.values())
    if wanted > 2 * there:
        raise UserError(f"{path} does not fit its config: {wanted:,} parameters cannot be in {there:,} numbers")


def _read(path: Path, n_head: int | None) -> Imported:
    """Find out from its contents which program wrote a file or folder, and read it.

    Raises:
        UsageError: Nothing is there, or no program that we know wrote it.
    """
    check_source(path)
    if path.is_dir():
        if not (path / CONFIG).is_file():
            if theirs := other_programs(path):
                raise UserError(theirs)
            raise UsageError(f"{path} holds no {CONFIG}: of Hugging Face's models, name the folder that does")
        return read_hf_folder(path)
    with reading(path), path.open("rb") as file:
        start = file.read(4)
    if int.from_bytes(start, "little") == MAGIC:
        return read_llmc(path)
    if folder := folder_of(path):
        raise UsageError(
            f"{path} is the weights of a model of transformers, and its {CONFIG} says what they lack; name the folder:"
            f" groundup import {shlex.quote(str(folder))} OUT"
        )
    if path.suffix in TENSORS:
        return read_torch(path, n_head=n_head)
    if theirs := other_programs(path):
        raise UserError(theirs)
    raise UsageError(
        f"{path} is no model file that groundup knows: files of tensors end in {', '.join(TENSORS)}, llm.c's begin"
        f" with {MAGIC}; of Hugging Face's, name the folder"
    )


def _tokenizer(name: str | None, path: Path, foreign: Imported) -> Tokenizer:
    """The tokenizer of a model: the one asked for, or the one beside it, or GPT-2's.

    Raises:
        UserError: There is none that groundup knows.
    """
    if name is not None:
        return _named(name)
    if path.is_dir() and (beside := read_tokenizer(path)):
        return beside
    if foreign.tokenizer is not None:
        return foreign.tokenizer
    vocab_size = foreign.config.vocab_size
    if 0 <= vocab_size - GPT2_VOCAB < 128:
        return load_gpt2()
    raise UserError(
        f"nothing says which tokenizer the {vocab_size} ids of {path} are of; name it with --tokenizer: a"
        " tokenizer.json, a Hugging Face folder, or the meta.pkl of nanoGPT's data, also found beside the model"
    )


def _named(name: str) -> Tokenizer:
    """The tokenizer that --tokenizer names, which may be another program's."""
    path = Path(name)
    if path.suffix == ".pkl":
        return read_meta(path)
    found = read_tokenizer(path) if (path / VOCAB).is_file() or _is_theirs(path / WHOLE) else None
    return found or resolve_tokenizer(name)


def _is_theirs(whole: Path) -> bool:
    """Whether a tokenizer.json is one of transformers."""
    return "model" in load_object(whole)
