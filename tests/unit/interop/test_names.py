import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.config.errors import UserError
from groundup.config.model import GPTConfig
from groundup.interop.names import names, to_gguf, to_hf, to_ours, with_biases, without_padding
from groundup.model.build import build_model


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype
        assert torch.equal(a[name].view(torch.uint8), b[name].view(torch.uint8)), name


def hf_state(model):
    """What transformers saves: everything but the tied copy of the embedding."""
    return {name: p.clone() for name, p in model.state_dict().items() if name != "lm_head.weight"}


def test_there_and_back_is_bitwise(make_hf, shape):
    state = hf_state(make_hf(**shape))
    same(to_hf(to_ours(state, "it"), shape["n_layer"]), state)


@settings(deadline=None, max_examples=25)
@given(n_layer=st.integers(1, 3), dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]), data=st.data())
def test_back_and_there_is_bitwise_for_any_bits(n_layer, dtype, data):
    """NaNs, infinities and signed zeros included."""
    seed = data.draw(st.integers(0, 2**32))
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        shapes = build_model(GPTConfig(n_layer=n_layer, n_head=1, n_embd=4, block_size=3, vocab_size=5)).state_dict()
    state = {
        name: torch.randint(256, (t.numel() * dtype.itemsize,), generator=generator, dtype=torch.uint8)
        .view(dtype)
        .view(t.shape)
        for name, t in shapes.items()
    }
    same(to_ours(to_hf(state, n_layer), "it"), state)


def test_the_table_has_every_parameter_once(make_model):
    table = [name.ours for name in names(2)]
    assert sorted(table) == sorted(make_model(n_layer=2).state_dict())
    assert len({name.gguf for name in names(2)}) == len(table)


def test_gguf_names_are_the_packages_own():
    gguf = pytest.importorskip("gguf")
    theirs = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPT2, 3)
    for name in names(3):
        assert theirs.get_name(name.hf, try_suffixes=(".weight", ".bias")) == name.gguf


def test_gguf_keeps_our_layout(make_model):
    state = make_model(n_layer=1).state_dict()
    assert torch.equal(to_gguf(state, 1)["blk.0.ffn_up.weight"], state["h.0.mlp.c_fc.weight"])


def test_old_files_without_prefix_and_with_masks(make_hf):
    state = hf_state(make_hf(n_layer=2))
    old = {name.removeprefix("transformer."): p for name, p in state.items()}
    old |= {f"h.{i}.attn.bias": torch.ones(1, 1, 32, 32).tril() for i in range(2)}
    old |= {f"h.{i}.attn.masked_bias": torch.tensor(-1e4) for i in range(2)}
    old["lm_head.weight"] = state["transformer.wte.weight"].clone()
    same(to_ours(old, "it"), to_ours(state, "it"))


def test_a_head_of_its_own_is_kept(make_hf):
    state = make_hf(tie_word_embeddings=False).state_dict()
    ours = to_ours(state, "it")
    assert torch.equal(ours["unembed.weight"], state["lm_head.weight"])
    same(to_hf(ours, 2), dict(state))


@pytest.mark.parametrize("left", ["lm_head.weight", "transformer.wte.weight"])
def test_a_tied_head_may_be_named_by_either_name(make_hf, left):
    """As safetensors leaves out one of two names that share memory."""
    state = dict(make_hf().state_dict())
    whole = to_ours(state, "it")
    assert "unembed.weight" not in whole
    del state[left]
    same(to_ours(state, "it"), whole)


WRAPPED = {
    "DistributedDataParallel of torch.compile": "module._orig_mod.transformer.{}",
    "torch.compile of DistributedDataParallel": "_orig_mod.module.transformer.{}",
    "Lightning": "model.{}",
    "Lightning of torch.compile": "model._orig_mod.transformer.{}",
    "a class that calls it net": "net.transformer.{}",
    "a class of another name around that": "lit_module.gpt.{}",
    "PEFT": "base_model.model.transformer.{}",
    "FSDP": "_fsdp_wrapped_module.transformer._fsdp_wrapped_module.{}",
    "Fabric": "_forward_module.module.transformer.{}",
}


@pytest.mark.parametrize("form", WRAPPED)
def test_words_of_wrappers_go(make_model, form):
    state = dict(make_model().state_dict())
    same(to_ours({WRAPPED[form].format(name): p for name, p in state.items()}, "it"), state)


@pytest.mark.parametrize("word", ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"])
def test_words_of_wrappers_around_blocks_go(make_model, word):
    state = dict(make_model().state_dict())
    wrapped = {re.sub(r"^h\.(\d+)\.", rf"transformer.h.\1.{word}.", name): p for name, p in state.items()}
    assert wrapped.keys() != state.keys()
    same(to_ours(wrapped, "it"), state)


def test_unknown_names_are_passed_on_to_be_reported(make_model):
    state = {**make_model().state_dict(), "transformer.score.weight": torch.ones(1)}
    assert "score.weight" in to_ours(state, "it")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (
            lambda s: {name.replace("wte", "word_embeddings"): p for name, p in s.items()},
            "its 28 names begin with word_embeddings.weight",
        ),
        (
            lambda s: {f"{role}.{name}": p for name, p in s.items() for role in ("student", "teacher")},
            r"it holds 2 models, student\. and teacher\.; save the one",
        ),
        (lambda s: {**s, "wte.weight": torch.ones(())}, "it has no matrix wte.weight"),
        (lambda s: {**s, 1: torch.ones(1)}, "must hold tensors by name, and one of its names is 1"),
        (
            lambda s: {**s, "model.ln_f.bias": torch.ones(1)},
            "two tensors that are ln_f.bias",
        ),
        (lambda s: {**s, "h.0.attn.c_attn.lora_A.default.weight": torch.ones(1)}, r"a LoRA .*merge_and_unload\(\)"),
    ],
)
def test_what_is_no_gpt2_is_refused_by_name(make_model, change, fault):
    with pytest.raises(UserError, match=fault):
        to_ours(change(dict(make_model().state_dict())), "it")


def test_zero_biases_are_the_same_function(make_model):
    plain = make_model(bias=False)
    full = build_model(GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=32, vocab_size=27)).eval()
    full.load_state_dict(with_biases(plain.state_dict(), plain.config))
    idx = torch.randint(27, (2, 32))
    with torch.no_grad():
        assert torch.equal(full(idx), plain(idx))


def test_padding_is_cut():
    state = {"wte.weight": torch.randn(128, 4)}
    assert torch.equal(without_padding(state, 65)["wte.weight"], state["wte.weight"][:65])
    assert without_padding(state, 128) is state
    untied = without_padding(state | {"unembed.weight": torch.randn(128, 4)}, 65)
    assert {tensor.shape for tensor in untied.values()} == {(65, 4)}


@pytest.mark.parametrize(("rows", "vocab_size"), [(40, 35), (40, 33), (48, 33), (96, 65), (192, 65)])
def test_padding_to_any_power_of_two_from_8_on_is_cut(rows, vocab_size):
    assert without_padding({"wte.weight": torch.randn(rows, 4)}, vocab_size)["wte.weight"].shape == (vocab_size, 4)


@pytest.mark.parametrize(
    ("rows", "vocab_size"), [(128, 129), (192, 64), (100, 90), (36, 35), (40, 32), (48, 32), (96, 64)]
)
def test_what_padding_does_not_explain(rows, vocab_size):
    with pytest.raises(UserError, match=f"the weights have {rows} ids and the tokenizer {vocab_size};") as caught:
        without_padding({"wte.weight": torch.randn(rows, 4)}, vocab_size)
    assert (f"resize_token_embeddings({vocab_size})" in str(caught.value)) == (rows > vocab_size)
