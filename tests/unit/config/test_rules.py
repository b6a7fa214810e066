"""The rules every config checks when it is made."""

import dataclasses
import math

import pytest

from groundup.config import data, generate, model, train
from groundup.config.data import DataConfig, ReadConfig, ShardConfig
from groundup.config.errors import UsageError, UserError
from groundup.config.generate import SamplingConfig
from groundup.config.model import BigramConfig, GPTConfig, ModernConfig
from groundup.config.train import CheckpointConfig, EvalConfig, LoRAConfig, OptimConfig, RuntimeConfig, TrainConfig

CONFIGS = [
    cls
    for module in (data, generate, model, train)
    for cls in vars(module).values()
    if isinstance(cls, type) and dataclasses.is_dataclass(cls) and cls.__module__ == module.__name__
]
"""Every dataclass of the room."""
NEEDED = {TrainConfig: {"model": GPTConfig(block_size=64)}, BigramConfig: {"vocab_size": 9}}
"""Fields that have no default."""
FLOATS = [(cls, f.name) for cls in CONFIGS for f in dataclasses.fields(cls) if f.type is float]


def test_the_exit_codes_are_the_shells():
    assert (UserError.exit_code, UsageError.exit_code) == (1, 2)
    assert issubclass(UsageError, UserError)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("cls", "name"), FLOATS)
def test_no_config_takes_what_json_cannot_hold(cls, name, value):
    """It could be neither saved nor resumed."""
    with pytest.raises(UsageError):
        cls(**NEEDED.get(cls, {}), **{name: value})


@pytest.mark.parametrize("cls", CONFIGS)
def test_configs_are_frozen(cls):
    config = cls(**NEEDED.get(cls, {}))
    for f in dataclasses.fields(cls):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(config, f.name, None)


def broken_rules():
    yield from ((GPTConfig, {name: 0}) for name in ("n_layer", "n_head", "n_embd", "block_size"))
    yield GPTConfig, {"vocab_size": -1}
    yield GPTConfig, {"n_embd": 770}
    yield ModernConfig, {"n_embd": 36, "n_head": 12, "position": "rope"}
    yield ModernConfig, {"rope_base": 1.0}
    yield ModernConfig, {"rope_share": 0.0}
    yield ModernConfig, {"norm_eps": 0.0}
    yield from ((ModernConfig, {"ngram": n}) for n in (0, 17))
    yield ModernConfig, {"ngram_rows": 0}
    yield ModernConfig, {"n_inner": -1}
    yield ModernConfig, {"n_kv_head": 5}
    yield from ((ModernConfig, {"logit_softcap": cap}) for cap in (-1.0, 1e39, 1e-50))
    yield ModernConfig, {"n_layer": 0}
    yield OptimConfig, {"cooldown": 0.0}
    yield OptimConfig, {"muon_cooldown": 1.1}
    yield OptimConfig, {"muon_decay_ratio": -1.0}
    yield OptimConfig, {"muon_momentum": 1.0}
    yield OptimConfig, {"average": 1.0}
    yield OptimConfig, {"beta2_half_life": -1}
    yield OptimConfig, {"muon_momentum_warmup": -1}
    yield from ((GPTConfig, {"dropout": share}) for share in (1.0, 0.99999999999))
    yield LoRAConfig, {"alpha": 1e39}
    yield GPTConfig, {"dropout": -0.1}
    yield from ((OptimConfig, {name: 0.0}) for name in ("lr", "muon_lr_ratio"))
    yield OptimConfig, {"min_lr_ratio": 1.5}
    yield from ((OptimConfig, {name: 1.0}) for name in ("beta1", "beta2"))
    yield from ((OptimConfig, {name: -1}) for name in ("min_lr_ratio", "warmup_steps", "weight_decay", "grad_clip"))
    yield EvalConfig, {"every": 0}
    yield from ((EvalConfig, {name: -1}) for name in ("max_tokens", "sample_every"))
    yield EvalConfig, {"sample_tokens": 0}
    yield CheckpointConfig, {"every": 0}
    yield CheckpointConfig, {"keep_last": 1}
    yield RuntimeConfig, {"micro_batch_size": 0}
    yield RuntimeConfig, {"threads": -1}
    yield RuntimeConfig, {"threads": 1025}
    yield from ((DataConfig, {"source": source}) for source in ("text", "shards"))
    yield from ((DataConfig, {"val_fraction": value}) for value in (0.0, 1.0))
    yield from ((ShardConfig, {"val_fraction": value}) for value in (0.0, 1.0))
    yield ShardConfig, {"shard_tokens": 0}
    yield from ((SamplingConfig, {name: -1}) for name in ("temperature", "top_k", "top_p", "repetition_penalty"))
    yield from ((SamplingConfig, {name: 0}) for name in ("top_p", "repetition_penalty"))
    yield from ((SamplingConfig, {"repetition_penalty": value}) for value in (1e-300, 100.1))
    yield from ((SamplingConfig, {name: 1e7}) for name in ("presence_penalty", "frequency_penalty"))
    yield SamplingConfig, {"top_p": 1.5}


@pytest.mark.parametrize(("cls", "values"), list(broken_rules()))
def test_a_broken_rule_is_one_line_with_the_value(cls, values):
    with pytest.raises(UsageError) as caught:
        cls(**values)
    line = str(caught.value)
    assert "\n" not in line
    rope = values.get("position") == "rope"
    assert any(str(value) in line for value in values.values()) or rope
    assert any(name in line or name.replace("_", "-") in line for name in values)


@pytest.mark.parametrize("values", [
    {"max_steps": 0}, {"log_every": 0}, {"seed": -1}, {"seed": 2**63}, {"tokens_per_step": 0}, {"tokens_per_step": 769},
    {"name": ""}, {"name": ".."}, {"name": "a/b"}, {"name": "a\\b"}, {"name": "a\nb"}, {"name": "a\0b"},
    {"name": "\udcff"},
])  # fmt: skip
def test_a_run_is_checked_as_a_whole(values):
    with pytest.raises(UsageError, match=next(iter(values))) as caught:
        TrainConfig(model=GPTConfig(block_size=64), **values)
    assert "\n" not in str(caught.value)


def test_accumulation_is_derived():
    model, runtime = GPTConfig(block_size=64), RuntimeConfig(micro_batch_size=3)
    assert TrainConfig(model=model, runtime=runtime, tokens_per_step=64 * 3 * 5).grad_accum_steps == 5


def test_shakespeare_takes_no_path_and_text_needs_one(tmp_path):
    with pytest.raises(UsageError, match="shakespeare takes no path"):
        DataConfig(path=tmp_path)
    with pytest.raises(UsageError, match=r"data\.source text needs --data\.path"):
        DataConfig(source="text")


def test_texts_of_files_are_utf8_in_any_locale():
    typed = "é".encode().decode("ascii", "surrogateescape")
    config = ReadConfig(separator=typed, text_column=typed)
    assert (config.separator, config.text_column) == ("é", "é")
    with pytest.raises(UsageError, match=r"separator must be valid UTF-8, got '\\udcff'"):
        ReadConfig(separator="\udcff")


def test_a_bias_that_no_logit_can_take():
    with pytest.raises(UsageError, match=r"a number within -1,000,000 and 1,000,000, got 1 1e\+39"):
        SamplingConfig(logit_bias=((1, 1e39),))
