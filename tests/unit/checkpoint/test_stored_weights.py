"""Model folders opened with, and saved with, fewer bits per weight."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from groundup.checkpoint import model_folder
from groundup.checkpoint.model_folder import load_model, save_model
from groundup.cli.main import main
from groundup.config.errors import UserError
from groundup.config.model import BigramConfig, GPTConfig
from groundup.export.export_model import export_model
from groundup.files.layout import CONFIG as CONFIG_FILE
from groundup.files.layout import WEIGHTS
from groundup.files.manifest import MANIFEST, file_facts, manifest_json, verify_folder
from groundup.inference.weights import weights_of
from groundup.model.bigram import Bigram
from groundup.model.gpt import GPT
from groundup.model.init import init_weights
from groundup.runtime.stored import PlainKernels

CONFIG = GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=16, vocab_size=27)


@pytest.fixture
def folder(tmp_path, alphabet):
    save_model(tmp_path / "model", init_weights(GPT(CONFIG), seed=0), alphabet, {"step": 7})
    return tmp_path / "model"


@torch.inference_mode()
def logits(loaded):
    return loaded.model(torch.arange(12).view(1, -1))


@pytest.mark.parametrize("weights", ["fp32", "fp16", "bf16", "int8"])
def test_saved_weights_are_those_of_opening_the_ordinary_folder_with_them(folder, tmp_path, weights):
    export_model(folder, tmp_path / "out", "groundup", weights=weights)
    verify_folder(tmp_path / "out")
    opened, saved = load_model(folder, weights=weights), load_model(tmp_path / "out", weights="saved")
    assert weights_of(opened.model) == weights_of(saved.model) == weights
    assert torch.equal(logits(opened), logits(saved))
    assert saved.info["step"] == 7
    torch.testing.assert_close(logits(opened), logits(load_model(folder)), rtol=0, atol=0.02)


def test_int8_files_are_a_fourth(folder, tmp_path):
    config = GPTConfig(n_layer=1, n_head=2, n_embd=128, block_size=16, vocab_size=27)
    save_model(tmp_path / "wide", init_weights(GPT(config), seed=0), load_model(folder).tokenizer, {})
    export_model(tmp_path / "wide", tmp_path / "out", "groundup", weights="int8")
    sizes = [(tmp_path / name / WEIGHTS).stat().st_size for name in ("wide", "out")]
    assert sizes[1] < 0.3 * sizes[0]


@pytest.mark.parametrize("call", [load_model, lambda path: load_model(path, weights="fp32")])
def test_what_was_rounded_away_cannot_be_had_back(folder, tmp_path, call):
    export_model(folder, tmp_path / "out", "groundup", weights="int8")
    with pytest.raises(UserError, match="holds int8 weights"):
        call(tmp_path / "out")
    with pytest.raises(UserError, match="holds int8 weights"):
        export_model(tmp_path / "out", tmp_path / "again", "hf")


def test_narrow_models_keep_ordinary_parameters_unless_asked(folder):
    assert weights_of(load_model(folder, weights="saved", rows=1).model) is None
    assert weights_of(load_model(folder, weights="fp32", rows=1).model) == "fp32"


def test_a_bigram_has_no_matrix_to_store(tmp_path, alphabet):

    save_model(tmp_path / "bigram", Bigram(BigramConfig(vocab_size=27)), alphabet, {})
    with pytest.raises(UserError, match="is a bigram, which has no matrices to store in int8"):
        load_model(tmp_path / "bigram", weights="int8")
    assert weights_of(load_model(tmp_path / "bigram", weights="auto").model) is None


def test_generate_and_eval_take_them_and_tell_results_apart(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["generate", str(folder), "--max-new-tokens", "5", "--weights", "int8"]) == 0
    Path("examples.jsonl").write_text('{"text": "abc abc abc"}\n')
    for weights in ("saved", "int8"):
        command = ["eval", str(folder), "--tasks", "examples.jsonl", "--weights", weights]
        assert main(command) == 0
    assert capsys.readouterr().err.count("\n") <= 1  # that kernels are compiled, once
    text = (folder / "eval.json").read_text()
    assert '"examples.jsonl"' in text
    assert '"examples.jsonl (int8)"' in text


def test_other_formats_have_no_such_flag(folder, tmp_path, capsys):
    assert main(["export", str(folder), str(tmp_path / "out"), "--format", "gguf", "--weights", "int8"]) == 2
    assert "--weights is for --format groundup" in capsys.readouterr().err


@pytest.fixture
def stored(folder, tmp_path) -> Path:
    """A folder of int8 weights."""
    export_model(folder, tmp_path / "stored", "groundup", weights="int8")
    return tmp_path / "stored"


def seal(folder):
    """Vouch for whatever stands there, as somebody can who writes all of a folder."""
    files = {file.name: file_facts(file) for file in folder.iterdir() if file.name != MANIFEST}
    (folder / MANIFEST).write_text(manifest_json(files))


@pytest.mark.parametrize("compiler", [True, False])
@pytest.mark.parametrize("weights", ["saved", "fp32", "fp16", "int8", "exported", "bigram"])
def test_whoever_overwrites_the_file_changes_nothing(folder, stored, alphabet, monkeypatch, weights, compiler):
    if not compiler:
        monkeypatch.setattr(model_folder, "load_kernels", lambda _say: PlainKernels())
    if weights == "bigram":
        save_model(folder, Bigram(BigramConfig(vocab_size=27)), alphabet, {})
    folder = stored if weights == "exported" else folder
    as_told = "saved" if weights in ("exported", "bigram") else weights
    loaded, expected = load_model(folder, rows=1, weights=as_told), logits(load_model(folder, rows=1, weights=as_told))
    with (folder / WEIGHTS).open("r+b") as file:  # in place, as cp does it
        file.write(b"\x7f" * (folder / WEIGHTS).stat().st_size)
    assert torch.equal(logits(loaded), expected)


SCALE = "h.1.mlp.c_fc.scale"


@pytest.mark.fault(
    "B5",
    "tensors of a folder of int8 weights that are of another type, so that compiled kernels would read past their end,"
    " of another shape, missing, or scales that are not finite and above 0",
    "refused in one line that names the tensor, before anything is computed",
)
@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        (SCALE, torch.Tensor.half, "is torch.float16 instead of torch.float32"),
        (SCALE, torch.Tensor.double, "is torch.float64 instead of torch.float32"),
        (SCALE, torch.Tensor.char, "is torch.int8 instead of torch.float32"),
        (SCALE, lambda scale: scale[:3].clone(), "is (3,) instead of (128,)"),
        (SCALE, lambda scale: scale[:, None].clone(), "is (128, 1) instead of (128,)"),
        (SCALE, lambda scale: None, "is missing"),
        (SCALE, torch.Tensor.neg, "is not finite and above 0"),
        (SCALE, torch.zeros_like, "is not finite and above 0"),
        (SCALE, lambda scale: scale * torch.nan, "is not finite and above 0"),
        (SCALE, lambda scale: scale * torch.inf, "is not finite and above 0"),
        ("h.1.mlp.c_fc.bias", torch.Tensor.half, "is torch.float16 instead of torch.float32"),
        ("h.1.mlp.c_fc.bias", torch.Tensor.double, "is torch.float64 instead of torch.float32"),
        ("wpe.weight", torch.Tensor.double, "is torch.float64 instead of torch.float32"),
        ("wte.weight", torch.Tensor.float, "is torch.float32 instead of torch.int8"),
    ],
)
def test_a_stored_tensor_is_of_its_own_type(stored, name, change, says):
    state = load_file(stored / WEIGHTS)
    changed = change(state.pop(name))
    save_file(state | ({} if changed is None else {name: changed}), stored / WEIGHTS)
    seal(stored)
    with pytest.raises(UserError, match=re.escape(f"does not fit its config: {name} {says}")):
        load_model(stored, weights="saved")


@pytest.mark.fault("A5", "a bit of int8 weights is flipped, or they are cut", "refused; the message names the file")
@pytest.mark.parametrize("spoil", [lambda data: data[:-1], lambda data: data[:-40] + b"\x55" + data[-39:]])
def test_damaged_int8_weights(stored, spoil):
    data = (stored / WEIGHTS).read_bytes()
    (stored / WEIGHTS).write_bytes(spoil(data))
    with pytest.raises(UserError, match=rf"{WEIGHTS} is damaged"):
        load_model(stored, weights="saved")


@pytest.mark.fault(
    "A11",
    "a folder that says it holds weights of a kind that there is not",
    "refused in one line with the kinds there are",
)
@pytest.mark.parametrize("kind", ["int4", "saved", "auto", 7, True, ["int8"], {"int8": 1}])
def test_weights_of_an_unknown_kind(folder, kind):
    values = json.loads((folder / CONFIG_FILE).read_text())
    (folder / CONFIG_FILE).write_text(json.dumps(values | {"info": {"weights": kind}}))
    seal(folder)
    with pytest.raises(UserError, match=r"info.weights must be one of fp32, fp16, bf16, int8, got "):
        load_model(folder, weights="saved")
