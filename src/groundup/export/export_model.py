"""A model folder of ours in the formats of other programs."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import torch

from groundup.checkpoint.model_folder import LoadedModel, load_model, write_model_files
from groundup.config.errors import UserError
from groundup.config.io import dump_json, load_json
from groundup.config.model import GPTConfig, ModernConfig
from groundup.config.printable import printable
from groundup.export.card import model_card
from groundup.export.formats import ExportFormat
from groundup.export.hf_tokenizer import tokenizer_files
from groundup.export.onnx_graph import write_onnx
from groundup.export.write_gguf import write_gguf
from groundup.export.write_hf import write_hf
from groundup.files.atomic import new_folder, write_synced
from groundup.files.layout import CONFIG, LOSS_PICTURE, TOKENIZER, folders_around
from groundup.files.leftovers import remove_leftover, temporary_name
from groundup.files.manifest import Facts
from groundup.files.new import refuse_existing
from groundup.inference.weights import stored_tensors, use_weights
from groundup.interop.hf_config import fitting
from groundup.model.bigram import Bigram
from groundup.model.build import Transformer, empty_model
from groundup.runtime.stored import PlainKernels, Weights


def export_model(
    path: Path,
    out: Path,
    kind: ExportFormat,
    *,
    weights: Weights | None = None,
    scores: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write a model in another format into a new folder, with a model card.

    Args:
        path: A run, checkpoint or model folder.
        out: The folder to make.
        kind: groundup for a model folder of ours, hf for transformers, gguf for llama.cpp, onnx for onnxruntime, ct2
            for CTranslate2.
        weights: How a model folder of ours stores the matrices; None is as they are.
        scores: For the card: task, and what was measured.

    Raises:
        UsageError: `out` is there already.
        UserError: The model has no form in this format, a package is missing, or the disk refuses.
    """
    refuse_existing(out)
    if kind in ("gguf", "ct2") and str(out).encode(errors="replace").decode() != str(out):
        raise UserError(f"the libraries of {kind} open files by names in UTF-8 alone, and {out} is none; name another")
    loaded = load_model(path, dtype=None)
    model = loaded.model
    if isinstance(model, Bigram):
        raise UserError(f"{path} is a bigram: only GPTs have a form in other programs")
    config = model.config
    known: dict[str, Facts] = {}
    name = printable(out.name)  # which may be no UTF-8, in which cards are written
    with new_folder(out, known) as folder:
        if kind == "groundup":
            known |= _write_stored(folder, loaded, config, weights)
        else:
            _write(kind, folder, loaded, model, name)
        pictures = (around / LOSS_PICTURE for around in folders_around(loaded.path))
        curve = next((picture for picture in pictures if picture.is_file()), None)
        if curve:
            write_synced(folder / curve.name, curve.read_bytes())
        shown = curve.name if curve else None
        card = model_card(loaded, config, name=name, kind=kind, scores=scores, curve=shown)
        write_synced(folder / "README.md", card.encode())


def _write_stored(
    folder: Path, loaded: LoadedModel, config: GPTConfig | ModernConfig, weights: Weights | None
) -> dict[str, Facts]:
    """The files of a model folder whose matrices are stored in another type than training left them in."""
    state, info = loaded.model.state_dict(), loaded.info
    if weights is not None:
        model = empty_model(config)
        use_weights(model, weights, PlainKernels())
        state = {k: v for name, t in state.items() for k, v in stored_tensors(name, [t], model, weights)}
        info = info | {"weights": weights}
    return write_model_files(folder, config, state, loaded.tokenizer, info)


def _write(kind: ExportFormat, folder: Path, loaded: LoadedModel, model: Transformer, name: str) -> None:
    config = model.config
    match kind:
        case "hf":
            write_hf(folder, loaded, config)
        case "gguf":
            write_gguf(folder / "model.gguf", loaded, config, name)
        case "onnx":
            write_onnx(folder / "model.onnx", model)
            write_synced(folder / TOKENIZER, tokenizer_files(loaded.tokenizer, config.block_size)[TOKENIZER].encode())
        case "ct2":
            _write_ct2(folder, loaded, config)


def _write_ct2(folder: Path, loaded: LoadedModel, config: GPTConfig | ModernConfig) -> None:
    """CTranslate2's own converter reads a Hugging Face folder; it gets one and makes its own from it.

    Raises:
        UserError: The model is not a plain GPT-2, or a package is missing.
    """
    activation = () if ModernConfig.of(config).activation == "relu2" else ("activation",)
    config = fitting(config, "the GPT-2 of CTranslate2", ("n_inner", "tied_head", *activation))
    try:
        from ctranslate2.converters import TransformersConverter
        from transformers.utils.logging import disable_progress_bar
    except ImportError:
        raise UserError("--format ct2 needs ctranslate2 and transformers: pip install 'groundup[export]'") from None
    disable_progress_bar()  # one for a copy that takes a moment
    # Under a name that the next export sweeps where this process is killed.
    temporary = temporary_name(folder.with_name(f"{folder.name}-hf"))
    temporary.mkdir()
    try:
        source, made = temporary / "hf", temporary / "ct2"
        source.mkdir()
        if loaded.model.state_dict()["wte.weight"].dtype == torch.float64:
            loaded.model.float()  # CTranslate2 has no 64 bits
        write_hf(source, loaded, config)
        TransformersConverter(str(source)).convert(str(made))
        # A character model has no special tokens; CTranslate2 wants names for them all the same, and never draws them.
        values = load_json(made / CONFIG)
        values |= {key: "<unk>" for key in ("bos_token", "eos_token", "unk_token") if values.get(key) is None}
        (made / CONFIG).write_text(dump_json(values), "utf-8")
        shutil.move(source / TOKENIZER, folder / TOKENIZER)
        for file in made.iterdir():
            shutil.move(file, folder / file.name)
    finally:
        remove_leftover(temporary)
