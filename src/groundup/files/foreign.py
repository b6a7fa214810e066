"""What a path holds where a model of ours was looked for, by its files: models of other programs, prepared shards."""

import shlex
from pathlib import Path

from groundup.config.io import load_object
from groundup.files.layout import CHECKPOINTS, CONFIG, INDEX, MODEL, RUN, WEIGHTS

TENSORS = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")
"""Endings of files of tensors that are imported."""
_THEIRS = (WEIGHTS, "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""Weights beside a config.json of transformers."""
_FROM_TF = "GPT2LMHeadModel.from_pretrained(FOLDER, from_tf=True).save_pretrained(NEW)"
_WRITTEN = "which groundup writes and does not read; import the model that it was made from: groundup import MODEL OUT"
_OTHERS = (
    (("*.gguf",), "a model of llama.cpp (GGUF)", _WRITTEN),
    (("*.onnx",), "a model of onnxruntime (ONNX)", _WRITTEN),
    (("model.bin", "*vocabulary.*"), "a model of CTranslate2", _WRITTEN),
    (
        ("adapter_config.json",),
        "a LoRA of PEFT and not a whole model",
        "add it to its model with merge_and_unload(), save that with save_pretrained(NEW), and import NEW",
    ),
    *(
        (
            (f"*.ckpt.{part}",),
            "a model in TensorFlow's format",
            "OpenAI's own are here: groundup import hf:gpt2, or hf:gpt2-medium, hf:gpt2-large, hf:gpt2-xl",
        )
        for part in ("index", "data-*", "meta")
    ),
    (("tf_model.h5",), "a model in TensorFlow's format", f"transformers 4 reads it: {_FROM_TF}"),
    (
        ("flax_model.msgpack",),
        "a model of Flax",
        f"transformers 4 reads it: {_FROM_TF.replace('from_tf', 'from_flax')}",
    ),
)
"""Names of files that are all there, what they are, and what to do."""


def other_programs(path: Path) -> str:
    """What a file or folder of another program is, or one of shards, in a line that says what to do; else nothing."""
    if path.is_file():
        return _file(path)
    if not path.is_dir() or any((path / name).exists() for name in (RUN, MODEL, CHECKPOINTS)):
        return ""
    if (path / INDEX).is_file() and not (path / CONFIG).exists():
        return (
            f"{path} holds prepared shards and no model; to make one of them: groundup train {shlex.quote(str(path))}"
        )
    if any((path / name).is_file() for name in _THEIRS) and _is_theirs(path / CONFIG):
        return f"{path} is a model of transformers; bring it in first: groundup import {shlex.quote(str(path))} OUT"
    for names, what, advice in _OTHERS:
        if all(any(path.glob(name)) for name in names):
            return f"{path} holds {what}, {advice}" if advice is _WRITTEN else f"{path} holds {what}; {advice}"
    files = sorted(file for file in path.glob("*") if file.suffix in TENSORS and file.is_file())
    if files and not (path / CONFIG).exists():
        more = f", one of {len(files)} files of tensors" if len(files) > 1 else ", a file of tensors"
        return (
            f"{path} holds {files[0].name}{more}; bring it in first: groundup import {shlex.quote(str(files[0]))} OUT"
        )
    return ""


def _file(path: Path) -> str:
    """The same of a file, unless it is one of a model folder of ours."""
    for names, what, advice in _OTHERS:
        if len(names) == 1 and path.match(names[0]):
            return f"{path} is {what}, {advice}" if advice is _WRITTEN else f"{path} is of {what}; {advice}"
    if path.suffix in TENSORS and not _is_ours(path.parent / CONFIG):
        source = folder_of(path) or path
        return f"{path} is a file of tensors; bring it in first: groundup import {shlex.quote(str(source))} OUT"
    return ""


def folder_of(weights: Path) -> Path | None:
    """The folder of transformers that holds a file of weights beside its config.json, which says more than they do."""
    return weights.parent if weights.name in _THEIRS and _is_theirs(weights.parent / CONFIG) else None


def _is_theirs(config: Path) -> bool:
    values = load_object(config)
    return "model_type" in values and "format" not in values


def _is_ours(config: Path) -> bool:
    return "format" in load_object(config)
