"""Files of tensors as people save them, with the weights of a model of ours inside."""

import argparse
import contextlib
import dataclasses
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from groundup.checkpoint.model_folder import load_model
from groundup.config.errors import UserError
from groundup.config.model import ModernConfig
from groundup.interop.import_model import import_model
from groundup.interop.read_meta import read_meta

SHAPE = {"n_layer": 2, "n_head": 4, "n_embd": 16, "block_size": 32, "vocab_size": 27}


@dataclasses.dataclass
class NetConfig:
    n_layer: int = 2
    n_head: int = 4
    n_embd: int = 16
    block_size: int = 32
    vocab_size: int = 27


class Slotted:
    __slots__ = tuple(SHAPE)

    def __init__(self):
        for name, value in SHAPE.items():
            setattr(self, name, value)


@pytest.fixture
def model(make_model):
    return make_model(n_head=4)


def bring(file, **options):
    import_model(file, Path("ours"), **{"tokenizer": "letters.json", **options})
    return load_model(Path("ours"))


def state_of(model, form="{}"):
    return {form.format(name): p.clone() for name, p in model.state_dict().items()}


CHECKPOINTS = {
    "nanoGPT": lambda m: {"model": state_of(m, "_orig_mod.transformer.{}"), "model_args": {**SHAPE, "bias": True}},
    "a dataclass": lambda m: {"model": state_of(m, "transformer.{}"), "config": NetConfig(), "step": 3},
    "a class with slots": lambda m: {"model": state_of(m), "config": Slotted()},
    "a namespace": lambda m: {"model_state_dict": state_of(m), "args": argparse.Namespace(lr=1e-3, **SHAPE)},
    "a path": lambda m: {"model": state_of(m), "config": SHAPE, "out": Path("out")},
    "Lightning": lambda m: {"state_dict": state_of(m, "model.{}"), "hyper_parameters": {"lr": 1e-3, **SHAPE}},
    "Lightning with a config": lambda m: {
        "state_dict": state_of(m, "model.transformer.{}"),
        "hyper_parameters": {"config": NetConfig()},
    },
}


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_checkpoints_that_tell_their_shape(place, model, kind):
    torch.save(CHECKPOINTS[kind](model), "ckpt.pt")
    loaded = bring("ckpt.pt")
    exact = {"activation": "gelu"} if kind == "nanoGPT" else {}
    assert ModernConfig.of(loaded.config) == dataclasses.replace(ModernConfig.of(model.config), **exact)
    for name, p in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], p)


HEADS = {
    "n_heads": {"n_heads": 4},
    "num_heads": {"num_heads": 4, "num_layers": 2},
    "num_attention_heads": {"num_attention_heads": 4},
    "head_dim": {"head_dim": 4},
    "both": {"n_head": 4, "head_size": 4},
}


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("place_of", ["config", "model_args", "top", "object"])
def test_heads_by_another_name(place, model, name, place_of):
    said = HEADS[name]
    if place_of == "model_args" and name in ("num_heads", "head_dim", "both"):
        said = {"num_heads": 4}
    held = {"config": {"config": said}, "model_args": {"model_args": said}, "top": said}
    held["object"] = {"hparams": argparse.Namespace(lr=1e-3, **said)}
    torch.save({"model": state_of(model), **held[place_of]}, "ckpt.pt")
    assert bring("ckpt.pt").config.n_head == 4


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ({"n_heads": 4, "num_heads": 2}, "says different numbers of heads: n_heads 4, num_heads 2; --n-head decides"),
        ({"n_heads": 4, "head_dim": 8}, "says different numbers of heads: n_heads 4, head_dim 8"),
        ({"head_count": 4}, "has head_count 4, which is no name for attention heads that groundup knows; .* --n-head"),
        ({"n_heads": "4"}, 'n_head must be int, got "4"'),
    ],
)
def test_heads_that_are_not_clear_are_refused_by_name(place, model, said, fault):
    torch.save({"model": state_of(model), "config": said}, "ckpt.pt")
    with pytest.raises(UserError, match=fault):
        bring("ckpt.pt")
    if "4" not in said.values():
        assert bring("ckpt.pt", n_head=4).config.n_head == 4


@pytest.mark.parametrize("file", ["state.pt", "state.pth", "state.ckpt", "pytorch_model.bin", "model.safetensors"])
@pytest.mark.parametrize("bias", [True, False])
def test_a_bare_state_dict(place, make_model, file, bias):
    model = make_model(n_head=4, bias=bias)
    (save_file if file.endswith("safetensors") else torch.save)(state_of(model, "transformer.{}"), file)
    with pytest.raises(UserError, match=r"nothing in .* says how many heads its 16 columns are; .* --n-head"):
        bring(file)
    loaded = bring(file, n_head=4)
    assert loaded.config == model.config
    for name, p in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], p)


def test_the_usual_heads_are_taken_and_told(place, make_model):
    model = make_model(n_head=2, n_embd=128)
    torch.save(state_of(model), "state.pt")
    foreign = import_model("state.pt", Path("ours"), tokenizer="letters.json")
    assert foreign.config == model.config
    assert "how many heads it has; 2 were taken" in foreign.note


def test_the_width_of_the_mlp_is_seen(place, make_hf):
    theirs = make_hf(n_inner=40)
    torch.save(theirs.state_dict(), "state.bin")
    loaded = bring("state.bin", n_head=2)
    assert loaded.config.n_inner == 40
    idx = torch.randint(27, (2, 32))
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(idx), theirs(idx).logits, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("tied", [True, False])
def test_a_bare_state_dict_of_transformers(place, make_hf, tied):
    theirs = make_hf(tie_word_embeddings=tied)
    torch.save(theirs.state_dict(), "state.bin")
    idx = torch.randint(27, (2, 32))
    with torch.no_grad():
        torch.testing.assert_close(bring("state.bin", n_head=2).model(idx), theirs(idx).logits, atol=1e-5, rtol=1e-4)


@pytest.mark.fault(
    "B8", "a .pt whose parts are deflated, or overlap, to fill the memory", "refused before it is unpacked"
)
def test_a_compressed_file_is_refused(place, model):
    torch.save(state_of(model), "state.pt")
    with zipfile.ZipFile("state.pt") as there, zipfile.ZipFile("small.pt", "w", zipfile.ZIP_DEFLATED) as file:
        for name in there.namelist():
            file.writestr(name, there.read(name))
    with pytest.raises(UserError, match=r"small.pt is compressed, which PyTorch's own files never are"):
        bring("small.pt", n_head=4)


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_file_that_is_cut_off_is_told_wherever_it_is_cut(place, model, is_zip):
    torch.save(state_of(model), "state.pt", _use_new_zipfile_serialization=is_zip)
    assert bring("state.pt", n_head=4).config == model.config
    data = Path("state.pt").read_bytes()
    for size in (1, 3, 10, 20, 30, 60, 500, 1000, 3000, *range(5000, len(data), len(data) // 20), len(data) - 1):
        Path("cut.pt").write_bytes(data[:size])
        with pytest.raises(UserError) as caught:
            import_model("cut.pt", Path("another"), tokenizer="letters.json", n_head=4)
        assert str(caught.value) == "cut.pt is cut off or damaged; fetch or copy it again", size


def test_a_damaged_table_of_contents_is_told(place, model):
    torch.save(state_of(model), "state.pt")
    data = bytearray(Path("state.pt").read_bytes())
    data[data.rindex(b"PK\x01\x02")] ^= 0xFF
    Path("state.pt").write_bytes(data)
    with pytest.raises(UserError, match=r"^state\.pt is cut off or damaged; fetch or copy it again$"):
        bring("state.pt", n_head=4)


@pytest.mark.parametrize("protocol", [2, 4])
def test_what_is_no_file_of_pytorch_is_not_called_cut_off(place, protocol):
    data = pickle.dumps({"weights": [1.0] * 999}, protocol)
    for size in (len(data), len(data) // 2, 20):
        Path("other.pt").write_bytes(data[:size])
        with pytest.raises(UserError, match=r"^other\.pt is not a (plain PyTorch file of tensors|model)"):
            bring("other.pt")
    with zipfile.ZipFile("other.pt", "w") as file:
        file.writestr("other.txt", "text")
    with pytest.raises(UserError, match=r"^other\.pt is not a plain PyTorch file of tensors"):
        bring("other.pt")


ODD = {
    "sparse": lambda: torch.eye(32, 16).to_sparse(),
    "on meta": lambda: torch.empty(32, 16, device="meta"),
    "negative by a bit": lambda: torch._neg_view(torch.ones(32, 16)),
    "conjugate by a bit": lambda: torch.ones(32, 16, dtype=torch.complex64).conj(),
    "wide": lambda: torch.ones(1).expand(10**6, 16),
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_tensors_are_refused_by_name(place, model, kind):
    torch.save({**state_of(model), "wpe.weight": ODD[kind]()}, "state.pt")
    with pytest.raises(UserError, match=r"state.pt: 'wpe.weight' is"):
        bring("state.pt", n_head=4)


def test_a_model_that_was_saved_whole(place, model):
    torch.save(model, "whole.pt")
    with pytest.raises(UserError, match=r"save its (model's )?state_dict\(\)"):
        bring("whole.pt")


INF, NAN = float("inf"), float("nan")
UNMEASURED = [("iter_num", value) for value in (NAN, INF, torch.tensor(NAN), -1, 10**400)]
UNMEASURED += [("best_val_loss", value) for value in (NAN, INF, -INF, torch.tensor(1e9), 1e9, 10**400)]


@pytest.mark.parametrize(("name", "value"), UNMEASURED, ids=range(len(UNMEASURED)))
def test_what_was_never_measured_is_left_out_and_told(place, model, name, value):
    """Weights are sound beside any note: until a loss is measured, nanoGPT's best one is 1e9."""
    known = {"iter_num": 7, "best_val_loss": 1.5, name: value}
    torch.save({**CHECKPOINTS["nanoGPT"](model), **known}, "ckpt.pt")
    foreign = import_model("ckpt.pt", Path("ours"), tokenizer="letters.json")
    assert foreign.info == {"source": "ckpt.pt", **({"val_loss": 1.5} if name == "iter_num" else {"step": 7})}
    assert f"{name} was left out: it is no number from 0 to below 1e+" in foreign.note
    assert load_model(Path("ours")).info == foreign.info


def test_numbers_of_numpy_are_left_out_and_told(place, model):
    known = {"iter_num": np.int64(7), "best_val_loss": np.float64(1.5)}
    torch.save({**CHECKPOINTS["nanoGPT"](model), **known}, "ckpt.pt")
    foreign = import_model("ckpt.pt", Path("ours"), tokenizer="letters.json")
    assert foreign.info == {"source": "ckpt.pt"}
    left_out = [line.partition(":")[0] for line in foreign.note.splitlines() if "was left out" in line]
    assert left_out == [f"{name} was left out" for name in known]


def test_a_shape_beyond_the_tensors_is_refused_before_it_is_built(place, model):
    checkpoint = CHECKPOINTS["nanoGPT"](model)
    torch.save({**checkpoint, "model_args": {**SHAPE, "n_embd": 1_000_000}}, "ckpt.pt")
    with pytest.raises(UserError, match=r"ckpt.pt does not fit its config: [0-9,]+ parameters cannot be in"):
        bring("ckpt.pt")


def meta(symbols, **more):
    itos = dict(enumerate(symbols))
    return {"vocab_size": len(symbols), "itos": itos, "stoi": {s: i for i, s in itos.items()}, **more}


@pytest.mark.parametrize("where", ["out", "data/poems", "../data/poems"])
def test_the_alphabet_of_a_character_model_of_nanogpt(place, model, letters, where):
    Path("out").mkdir()
    folder = Path("out") / where if where.startswith("..") else Path(where)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "meta.pkl").write_bytes(pickle.dumps(meta(letters.symbols)))
    torch.save({**CHECKPOINTS["nanoGPT"](model), "config": {"dataset": "poems"}}, "out/ckpt.pt")
    assert bring("out/ckpt.pt", tokenizer=None).tokenizer.fingerprint == letters.fingerprint


def test_the_alphabet_by_its_path(place, model, letters):
    Path("letters.pkl").write_bytes(pickle.dumps(meta(letters.symbols)))
    torch.save(CHECKPOINTS["nanoGPT"](model), "ckpt.pt")
    assert bring("ckpt.pt", tokenizer="letters.pkl").tokenizer.fingerprint == letters.fingerprint


@settings(deadline=None, max_examples=30)
@given(
    symbols=st.lists(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=400, unique=True),
    protocol=st.integers(2, 5),
)
def test_any_alphabet_is_read_as_pickle_reads_it(tmp_path_factory, symbols, protocol):
    path = tmp_path_factory.mktemp("meta") / "meta.pkl"
    path.write_bytes(pickle.dumps(meta(symbols), protocol))
    assert read_meta(path).symbols == symbols


class Canary:
    def __reduce__(self):
        return (open, ("canary", "w"))


def test_code_in_an_alphabet_never_runs(place):
    Path("meta.pkl").write_bytes(pickle.dumps(meta("ab", more=Canary())))
    with pytest.raises(UserError, match="only text, numbers and dictionaries are read"):
        read_meta(Path("meta.pkl"))
    assert not Path("canary").exists()


@settings(deadline=None, max_examples=200)
@given(data=st.binary(max_size=200) | st.integers(0, 10**9).map(lambda n: _cut(n)))
def test_a_damaged_alphabet_makes_no_other_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("meta") / "meta.pkl"
    path.write_bytes(data)
    with contextlib.suppress(UserError):
        read_meta(path)


def _cut(n):
    """The pickle of an alphabet with one byte changed."""
    data = bytearray(pickle.dumps(meta("abc")))
    data[n % len(data)] = n // len(data) % 256
    return bytes(data)
