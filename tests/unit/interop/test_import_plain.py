"""Checkpoints of nanoGPT and llm.c, which say little of themselves."""

import struct
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import needs
from folders_of_models import assert_same_function, bring, nanogpt_checkpoint
from groundup.checkpoint.model_folder import load_model
from groundup.config.errors import UserError
from groundup.config.model import ModernConfig
from groundup.interop.import_model import import_model


@pytest.mark.parametrize("bias", [True, False])
def test_nanogpt(place, make_model, bias):
    theirs = make_model(bias=bias)
    torch.save(nanogpt_checkpoint(theirs), "ckpt.pt")
    loaded = bring("ckpt.pt")
    for name, p in theirs.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], p)
    assert loaded.config == replace(ModernConfig.of(theirs.config), activation="gelu")
    assert loaded.info == {"source": "ckpt.pt", "step": 12, "val_loss": 3.25}


def test_nanogpts_gelu_is_the_exact_one(place, make_model):
    """nanoGPT's MLP is nn.GELU(); GPT-2's in transformers, told so, is the other side."""
    theirs = make_model()
    torch.save(nanogpt_checkpoint(theirs), "ckpt.pt")
    note = import_model("ckpt.pt", Path("ours"), tokenizer="letters.json").note
    assert "before June 2023 nanoGPT computed tanh" in note
    exec(note.partition("in Python: ")[2])
    assert import_model("tanh.pt", Path("tanh"), tokenizer="letters.json").note == ""
    assert load_model(Path("tanh")).config == theirs.config
    for block in theirs.h:
        block.mlp.act = torch.nn.GELU()
    assert_same_function(load_model(Path("ours")).model, theirs, atol=1e-6)


@pytest.mark.parametrize("bias", [True, False])
def test_the_gelu_of_a_nanogpt_from_before_it_had_bias_is_tanh(place, make_model, bias):
    """January 2023; what its note says of later ones leads here."""
    theirs = make_model(bias=bias)
    checkpoint = nanogpt_checkpoint(theirs)
    del checkpoint["model_args"]["bias"]
    torch.save(checkpoint, "ckpt.pt")
    assert import_model("ckpt.pt", Path("ours"), tokenizer="letters.json").note == ""
    loaded = load_model(Path("ours"))
    assert loaded.config == theirs.config
    assert_same_function(loaded.model, theirs, atol=1e-6)


def test_the_padded_vocabulary_of_nanogpt(place, make_model, gpt2):
    theirs = make_model(n_layer=1, n_embd=2, vocab_size=50257)
    torch.save(nanogpt_checkpoint(theirs, rows=50304), "ckpt.pt")
    loaded = bring("ckpt.pt", tokenizer=None)
    assert loaded.config.vocab_size == loaded.tokenizer.vocab_size == 50257
    assert loaded.tokenizer.fingerprint == gpt2.fingerprint
    for block in theirs.h:
        block.mlp.act = torch.nn.GELU()
    assert_same_function(loaded.model, theirs, vocab_size=50257)


def test_a_character_model_of_nanogpt_needs_its_tokenizer(place, make_model):
    torch.save(nanogpt_checkpoint(make_model()), "ckpt.pt")
    with pytest.raises(UserError, match=r"nothing says which tokenizer the 27 ids of ckpt.pt are of"):
        bring("ckpt.pt", tokenizer=None)
    needs.gpt2_vocabulary()
    with pytest.raises(UserError, match="the weights have 27 ids and the tokenizer 50257"):
        bring("ckpt.pt", tokenizer="gpt2")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_kv_head": 2}, "model_args has n_kv_head"),
        ({"n_layer": 2.5}, "model.n_layer must be int, got 2.5"),
        ({"n_layer": torch.tensor(2)}, "model_args must hold numbers by name"),
        ({"n_layer": 3}, "h.2.ln_1.weight is missing"),
    ],
)
def test_what_is_not_nanogpts_shape(place, make_model, change, message):
    torch.save(nanogpt_checkpoint(make_model(), **change), "ckpt.pt")
    with pytest.raises(UserError, match=message):
        bring("ckpt.pt")


def test_other_dictionaries(place):
    torch.save({"state_dict": {}}, "ckpt.pt")
    with pytest.raises(UserError, match="it must hold tensors by name"):
        bring("ckpt.pt")


def write_llmc(path, hf, version, **header):
    """As llm.c's train_gpt2.py lays it out, from a model of transformers: by kind, all layers of a kind together."""
    state, c = hf.state_dict(), hf.config
    padded = -(-c.vocab_size // 128) * 128
    values = {0: 20240326, 1: version, 2: c.n_positions, 3: c.vocab_size, 4: c.n_layer, 5: c.n_head, 6: c.n_embd}
    values |= {7: padded} | {int(k[1:]): v for k, v in header.items()}
    kinds = ["ln_1.weight", "ln_1.bias", "attn.c_attn.weight", "attn.c_attn.bias", "attn.c_proj.weight"]
    kinds += ["attn.c_proj.bias", "ln_2.weight", "ln_2.bias", "mlp.c_fc.weight", "mlp.c_fc.bias", "mlp.c_proj.weight"]
    kinds += ["mlp.c_proj.bias"]
    wte = torch.cat([state["transformer.wte.weight"], torch.zeros(padded - c.vocab_size, c.n_embd)])
    tensors = [wte, state["transformer.wpe.weight"]]
    for kind in kinds:
        for i in range(c.n_layer):
            p = state[f"transformer.h.{i}.{kind}"]
            tensors.append(p.T if p.dim() == 2 else p)
    tensors += [state["transformer.ln_f.weight"], state["transformer.ln_f.bias"]]
    with Path(path).open("wb") as file:
        file.write(struct.pack("<256i", *[values.get(i, 0) for i in range(256)]))
        for p in tensors:
            if version == 5:
                file.write(p.to(torch.bfloat16).contiguous().view(torch.int16).numpy().tobytes())
            else:
                file.write(p.contiguous().numpy().astype("<f4").tobytes())


@pytest.mark.parametrize("version", [3, 5])
def test_llmc(place, make_hf, shape, version):
    theirs = make_hf(**shape)
    if version == 5:
        theirs = theirs.to(torch.bfloat16).float()
    write_llmc("model.bin", theirs, version)
    loaded = bring("model.bin")
    assert loaded.config.vocab_size == 27
    assert_same_function(loaded.model, theirs)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"_1": 1}, "has version 1 of llm.c's format; 3"),
        ({"_4": 2**31 - 1}, "header of model.bin is damaged: model.n_layer must be at most"),
        ({"_4": 9_999}, "is damaged: .* bytes of weights, its header describes"),
        ({"_4": -1}, "n_layer must be at least 1"),
        ({"_3": 300}, "is damaged: 300 ids in 128 rows"),
        ({"_2": 31}, "is damaged"),
    ],
)
def test_a_damaged_header_of_llmc(place, make_hf, header, message):
    write_llmc("model.bin", make_hf(), 3, **header)
    with pytest.raises(UserError, match=message):
        bring("model.bin")


def test_a_cut_file_of_llmc(place, make_hf):
    write_llmc("model.bin", make_hf(), 3)
    data = Path("model.bin").read_bytes()
    for length in (4, 1000, 1024, len(data) - 1):
        Path("model.bin").write_bytes(data[:length])
        with pytest.raises(UserError):
            bring("model.bin")
