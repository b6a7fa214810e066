import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from groundup.checkpoint.model_folder import load_model, save_model
from groundup.checkpoint.tensor_file import save_tensors
from groundup.config.errors import UserError
from groundup.files import atomic as files
from groundup.model.bigram import fit_bigram


@pytest.fixture
def folder(tmp_path, tiny_model, alphabet):
    save_model(tmp_path / "model", tiny_model, alphabet, {"step": 7, "val_loss": 1.5})
    return tmp_path / "model"


def rewrite(folder, **changes):
    """Change config.json and vouch for it again."""
    path = folder / "config.json"
    values = json.loads(path.read_text())
    values.update(changes)
    path.write_text(json.dumps(values))
    (folder / "manifest.json").unlink()
    files._seal(folder, {})


def test_round_trip_is_bitwise(folder, tiny_model, alphabet):
    loaded = load_model(folder)
    assert loaded.config == tiny_model.config
    assert loaded.info == {"step": 7, "val_loss": 1.5}
    assert loaded.tokenizer.fingerprint == alphabet.fingerprint
    assert not loaded.model.training
    for name, p in tiny_model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], p)


def test_a_folder_may_be_named_by_a_string(folder, tiny_model):
    named = load_model(str(folder)).model.state_dict()
    assert all(torch.equal(named[name], p) for name, p in tiny_model.state_dict().items())


def test_plain_safetensors_reads_the_weights(folder, tiny_model):
    assert load_file(folder / "model.safetensors").keys() == tiny_model.state_dict().keys()


def test_a_bigram_is_a_model_too(tmp_path, alphabet):
    model = fit_bigram(torch.randint(27, (500,)).numpy(), 27)
    save_model(tmp_path / "bigram", model, alphabet, {})
    idx = torch.randint(27, (1, 5))
    assert torch.equal(load_model(tmp_path / "bigram").model(idx), model(idx))


def test_a_run_folder_is_opened_by_its_model(tmp_path, folder):
    assert load_model(tmp_path).path == folder


@pytest.mark.fault(
    "A11",
    "a model folder of another format, a newer version, an unknown kind or setting",
    "refused in one line that says which and what this version reads",
)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, "is not a groundup model"),
        ({"version": 2}, "format version 2; this groundup reads version 1"),
        ({"kind": "mamba"}, 'kind must be one of gpt, modern, bigram, got "mamba"'),
        ({"model": {"n_layers": 2}}, "unknown config key model.n_layers; did you mean model.n_layer?"),
        ({"model": {"n_layer": "2"}}, 'model.n_layer must be int, got "2"'),
    ],
)
def test_a_config_that_is_not_ours(folder, changes, message):
    rewrite(folder, **changes)
    with pytest.raises(UserError) as error:
        load_model(folder)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.fault(
    "A10",
    "weights of another architecture: missing, foreign, of another shape and type",
    "refused; one message lists all of it",
)
def test_all_mismatches_in_one_message(folder, tiny_model):
    state = dict(tiny_model.state_dict())
    del state["ln_f.bias"]
    state["wpe.weight"] = state["wpe.weight"][:5].clone()
    state["extra"] = torch.zeros(1)
    state["ln_f.weight"] = state["ln_f.weight"].long()
    save_tensors(folder / "model.safetensors", state)
    (folder / "manifest.json").unlink()
    files._seal(folder, {})
    with pytest.raises(UserError) as error:
        load_model(folder)
    for fault in (
        "ln_f.bias is missing",
        "extra is not part of the model",
        "wpe.weight is (5, 32) instead of (16, 32)",
        "ln_f.weight is torch.int64 instead of float32, float16, bfloat16 or float64",
    ):
        assert fault in str(error.value)


@pytest.mark.fault(
    "A10",
    "a tokenizer of another vocabulary beside the model",
    "refused with both sizes",
)
def test_another_tokenizer(folder):
    path = folder / "tokenizer.json"
    values = json.loads(path.read_text())
    values["symbols"].append("z")
    path.write_text(json.dumps(values))
    (folder / "manifest.json").unlink()
    files._seal(folder, {})
    with pytest.raises(UserError, match="the model has 27 ids, its tokenizer 28"):
        load_model(folder)


def test_a_run_whose_checkpoints_are_all_damaged_says_how(folder, tmp_path):
    for step in (1, 2):
        shutil.copytree(folder, to := tmp_path / f"run/checkpoints/step-{step:07d}")
        (to / "tokenizer.json").write_bytes(b"{")
    with pytest.raises(UserError, match=r"no model/ yet and no whole checkpoint: .*2/tokenizer.json is damaged"):
        load_model(tmp_path / "run")


def test_no_model_here(tmp_path):
    with pytest.raises(UserError, match="holds no model: neither"):
        load_model(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        load_model(tmp_path / "nowhere")
