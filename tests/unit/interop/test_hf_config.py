import dataclasses

import pytest

from groundup.config.errors import UsageError, UserError
from groundup.config.model import GPTConfig, ModernConfig
from groundup.config.presets import MODELS
from groundup.interop.hf_config import SWITCHES as SAID
from groundup.interop.hf_config import fitting, hf_config, read_hf_config

transformers = pytest.importorskip("transformers")


@pytest.mark.parametrize("name", ["gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"])
def test_published_shapes_are_our_presets(name):
    preset = MODELS[name]
    theirs = transformers.GPT2Config(n_layer=preset.n_layer, n_head=preset.n_head, n_embd=preset.n_embd)
    assert read_hf_config(theirs.to_dict(), "config.json") == preset


def test_there_and_back():
    config = GPTConfig(n_layer=3, n_head=5, n_embd=40, block_size=77, vocab_size=99)
    assert read_hf_config(hf_config(config, dtype="float32", eot_id=None), "config.json") == config


def test_transformers_reads_what_we_write():
    config = GPTConfig(n_layer=3, n_head=5, n_embd=40, block_size=77, vocab_size=99, dropout=0.25)
    values = hf_config(config, dtype="bfloat16", eot_id=7)
    theirs = transformers.GPT2Config(**values)
    assert (theirs.n_layer, theirs.n_head, theirs.n_embd, theirs.n_positions, theirs.vocab_size) == (3, 5, 40, 77, 99)
    assert (theirs.resid_pdrop, theirs.embd_pdrop, theirs.attn_pdrop) == (0.25, 0.25, 0.25)
    assert (theirs.bos_token_id, theirs.eos_token_id) == (7, 7)
    # Everything else is what transformers takes by itself.
    default = transformers.GPT2Config()
    for key in ("activation_function", "layer_norm_epsilon", "scale_attn_weights", "n_inner", "tie_word_embeddings"):
        assert getattr(theirs, key) == getattr(default, key)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"model_type": "llama"}, "model_type is 'llama', only 'gpt2' is supported"),
        ({"activation_function": "silu"}, "activation_function is 'silu', only 'gelu_new' or"),
        ({"n_inner": "64"}, r"n_inner is '64', not a number"),
        ({"n_inner": -1}, r"n_inner must be 0 \(4 \* n_embd\) to"),
        ({"layer_norm_epsilon": None}, "layer_norm_epsilon is None, not a number"),
        ({"layer_norm_epsilon": 2}, "norm_eps must be above 0 and below 1, got 2"),
        ({"scale_attn_weights": "no"}, "scale_attn_weights is 'no', only True or False"),
        ({"scale_attn_by_inverse_layer_idx": None}, "scale_attn_by_inverse_layer_idx is None, only True or False"),
        ({"n_heads": 4}, "n_heads is no key of GPT-2's config, where heads are n_head"),
        ({"n_head": 4, "num_attention_heads": 2}, "it says both n_head 4 and num_attention_heads 2"),
        ({"add_cross_attention": True}, "add_cross_attention is True"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is"),
        ({"n_layer": "12"}, "n_layer is '12', not a number"),
        ({"vocab_size": 0}, "vocab_size must be at least 1, got 0"),
    ],
)
def test_what_makes_another_function_is_refused_by_name(change, fault):
    with pytest.raises(UserError, match=fault):
        read_hf_config({"model_type": "gpt2", **change}, "config.json")


def test_all_faults_in_one_line():
    values = {"model_type": "opt", "activation_function": "silu", "n_inner": "1"}
    with pytest.raises(UserError, match=r"config.json is not a GPT-2 that groundup can build: ") as error:
        read_hf_config(values, "config.json")
    assert str(error.value).count(";") == 2
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("values", [[], None, "gpt2"])
def test_not_a_config(values):
    with pytest.raises(UserError, match="it must be an object"):
        read_hf_config(values, "config.json")


def test_a_shape_that_cannot_be():
    with pytest.raises(UsageError, match="n_embd must be a multiple"):
        read_hf_config({"n_embd": 10, "n_head": 3}, "config.json")


def test_n_inner_written_out_and_old_names():
    config = read_hf_config({"n_inner": 3072, "n_ctx": 512}, "config.json")
    assert config.block_size == 512


def test_the_names_that_all_models_of_transformers_have():
    values = {"num_attention_heads": 2, "num_hidden_layers": 3, "hidden_size": 8, "max_position_embeddings": 16}
    config = read_hf_config(values, "config.json")
    theirs = transformers.GPT2Config(**values)
    assert (config.n_head, config.n_layer, config.n_embd, config.block_size) == (2, 3, 8, 16)
    assert (theirs.n_head, theirs.n_layer, theirs.n_embd, theirs.n_positions) == (2, 3, 8, 16)


SWITCHES = {
    "smear": True,
    "position": "rope",
    "norm": "rms",
    "norm_eps": 1e-6,
    "n_inner": 8,
    "activation": "relu2",
    "n_kv_head": 4,
    "qk_norm": True,
    "value_residual": True,
    "stream_scales": True,
    "tied_head": False,
    "logit_softcap": 30.0,
    "ngram": 3,
}


@pytest.mark.parametrize("name", SWITCHES)
def test_what_gpt2_has_no_place_for_is_refused_with_the_reason(name):
    assert set(SWITCHES) == set(ModernConfig.AS_GPT2) - {"proj_init"}
    config = ModernConfig(**ModernConfig.AS_GPT2 | {name: SWITCHES[name]}, vocab_size=5)
    with pytest.raises(UserError, match=rf"no place for model\.{name} {SWITCHES[name]}, only for GPT-2's"):
        fitting(config, "it")
    if name in SAID:
        assert fitting(config, "it", SAID) == config


def test_all_that_it_has_no_place_for_is_named_at_once():
    shape = ModernConfig(**ModernConfig.AS_GPT2 | {"position": "rope", "ngram": 4}, vocab_size=5)
    with pytest.raises(UserError) as error:
        fitting(shape, "it")
    assert "model.position rope and model.ngram 4, only for GPT-2's learned and 1" in str(error.value)
    assert str(error.value).endswith(
        "--format onnx takes them, or train one with --model.position learned --model.ngram 1"
    )


def test_switches_are_told_as_the_flags_that_they_are():
    shape = ModernConfig(**ModernConfig.AS_GPT2 | {"smear": True, "tied_head": False}, vocab_size=5)
    with pytest.raises(UserError, match=r"train one with --model.no-smear --model.tied-head$"):
        fitting(shape, "it")


def test_keys_for_every_head_are_those_of_gpt2():
    shape = ModernConfig(**ModernConfig.AS_GPT2 | {"n_kv_head": 3}, n_head=3, n_embd=36, vocab_size=5)
    assert fitting(shape, "it") == dataclasses.replace(shape, n_kv_head=0)


def test_how_weights_began_does_not_matter_to_an_export():
    fitting(ModernConfig(**ModernConfig.AS_GPT2 | {"proj_init": "zero"}, vocab_size=5), "it")


def test_a_modern_model_with_every_switch_at_gpt2s_value_is_a_gpt2():
    shape = {"n_layer": 3, "n_embd": 36, "bias": False, "vocab_size": 7}
    modern = ModernConfig(**shape, **ModernConfig.AS_GPT2)
    assert fitting(modern, "it") == fitting(GPTConfig(**shape), "it") == modern


@pytest.mark.parametrize("name", ["gelu", "relu", "relu2", "gelu_python"])
def test_what_the_modern_page_can_say_is_kept(name):
    values = {"activation_function": name, "n_inner": 64, "layer_norm_epsilon": 1e-6, "n_layer": 2}
    config = read_hf_config(values, "config.json")
    assert isinstance(config, ModernConfig)
    assert (config.activation, config.n_inner, config.norm_eps) == (name.removesuffix("_python"), 64, 1e-6)
    assert (config.position, config.norm) == ("learned", "layer")
    assert read_hf_config(hf_config(config, dtype="float32", eot_id=None), "config.json") == config
