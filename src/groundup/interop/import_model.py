"""Models from elsewhere into our model folder."""

import dataclasses
from pathlib import Path

import torch

from groundup.checkpoint.model_folder import check_state, write_model_files
from groundup.config.errors import UsageError, UserError
from groundup.config.presets import GPT2_VOCAB
from groundup.files.atomic import Facts, new_folder
from groundup.files.layout import CONFIG, TOKENIZER
from groundup.files.new import refuse_existing
from groundup.interop import hub
from groundup.interop.byte_bpe import from_published, published
from groundup.interop.hf_tokenizer import char_tokenizer, read_byte_bpe, read_vocab
from groundup.interop.imported import Foreign
from groundup.interop.names import without_padding
from groundup.interop.read_hf import read_hf_folder
from groundup.interop.read_llmc import MAGIC, read_llmc
from groundup.interop.read_nanogpt import read_nanogpt
from groundup.model.build import build_model
from groundup.tokenizer.base import Tokenizer
from groundup.tokenizer.gpt2 import load_gpt2
from groundup.tokenizer.io import resolve_tokenizer

HUB = "hf:"


def import_model(source: str, out: Path, *, tokenizer: str | None = None, endpoint: str | None = None) -> Foreign:
    """Read a model of another program and write it as a model folder of ours.

    Args:
        source: `hf:NAME`, a Hugging Face folder, or a file: nanoGPT's ckpt.pt or llm.c's .bin.
        out: The folder to make.
        tokenizer: As `resolve_tokenizer` takes it; None takes what comes with the model, or GPT-2's where the model has
            as many ids.
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
    foreign = _read(path)
    chosen = _tokenizer(tokenizer, path, foreign.config.vocab_size)
    state = without_padding(foreign.state, chosen.vocab_size)
    config = dataclasses.replace(foreign.config, vocab_size=chosen.vocab_size)
    with torch.device("meta"):
        model = build_model(config)
    check_state(model, state, path)
    info = {"source": source, **({"revision": revision} if revision else {}), **foreign.info}
    known: dict[str, Facts] = {}
    with new_folder(out, known) as folder:
        known |= write_model_files(folder, config, state, chosen, info)
    return dataclasses.replace(foreign, config=config, state=state, info=info)


def _read(path: Path) -> Foreign:
    """Tell by its looks who wrote a file or folder, and read it.

    Raises:
        UsageError: Nothing is there, or nobody we know wrote it.
    """
    if path.is_dir():
        if not (path / CONFIG).is_file():
            raise UsageError(f"{path} holds no {CONFIG}: of Hugging Face's models, name the folder that does")
        return read_hf_folder(path)
    if not path.is_file():
        raise UsageError(f"{path} does not exist; name a folder, a file or {HUB}NAME")
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    if int.from_bytes(start, "little") == MAGIC:
        return read_llmc(path)
    if path.suffix == ".pt":
        return read_nanogpt(path)
    raise UsageError(
        f"{path} is no model file that groundup knows: nanoGPT's end in .pt, llm.c's begin with {MAGIC};"
        " of Hugging Face's, name the folder"
    )


def _tokenizer(name: str | None, path: Path, vocab_size: int) -> Tokenizer:
    """The tokenizer of a model: the one asked for, or the one beside it, or GPT-2's.

    Raises:
        UserError: There is none that groundup knows.
    """
    if name is not None:
        return resolve_tokenizer(name)
    beside = read_vocab(path) if path.is_dir() else None
    if beside is not None:
        kind, words = beside
        if kind == "WordLevel" and (found := char_tokenizer(words)):
            return found
        if kind == "BPE" and len(words) == GPT2_VOCAB:
            gpt2 = published(load_gpt2())
            if words == gpt2.vocab | gpt2.specials:
                return load_gpt2()
        if kind == "BPE" and (path / TOKENIZER).is_file():
            bpe = read_byte_bpe(path / TOKENIZER)
            if bpe is not None and (ours := from_published(bpe)):
                return ours
        raise UserError(f"{path} has a tokenizer that groundup cannot be; name one of ours with --tokenizer")
    if 0 <= vocab_size - GPT2_VOCAB < 128:
        return load_gpt2()
    raise UserError(f"nothing says which tokenizer the {vocab_size} ids of {path} are of; name it with --tokenizer")
