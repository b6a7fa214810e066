import dataclasses
import json
import math
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.config.data import DataConfig
from groundup.config.errors import UsageError, UserError
from groundup.config.io import differing_keys, dump_json, from_dict, load_json, read_json, to_dict
from groundup.config.model import GPTConfig, ModernConfig
from groundup.config.presets import RECIPES
from groundup.config.printable import printable as shown
from groundup.config.train import CheckpointConfig, EvalConfig, OptimConfig, RuntimeConfig, TrainConfig

positive = st.floats(min_value=1e-300, max_value=1e300)
share = st.floats(min_value=0, max_value=1, exclude_max=True)
count = st.integers(1, 10**12)
size = st.integers(1, 10_000)
text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
printable = text.filter(lambda s: s.isprintable() and s not in (".", "..") and not {"/", "\\"} & set(s))


@st.composite
def train_configs(draw):
    head_dim, n_head = 2 * draw(st.integers(1, 64)), draw(st.integers(1, 32))
    switches = {"position": st.sampled_from(["learned", "rope"]), "rope_base": st.floats(1.5, 1e300)}
    cls = draw(st.sampled_from([GPTConfig, ModernConfig]))
    model = cls(
        n_layer=draw(size), n_head=n_head, n_embd=n_head * head_dim, block_size=draw(size),
        vocab_size=draw(st.integers(0, 10**9)), dropout=draw(st.floats(0, 0.999)), bias=draw(st.booleans()),
        **({} if cls is GPTConfig else {name: draw(values) for name, values in switches.items()}),
    )  # fmt: skip
    micro_batch_size = draw(size)
    lr = draw(positive)
    return TrainConfig(
        name=draw(printable), out_dir=Path(draw(text)), seed=draw(st.integers(0, 2**63 - 1)), max_steps=draw(count),
        tokens_per_step=model.block_size * micro_batch_size * draw(st.integers(1, 100)), log_every=draw(count),
        model=model,
        data=DataConfig(source=draw(st.sampled_from(["text", "shards"])), path=Path(draw(text)), tokenizer=draw(text),
                        val_fraction=draw(st.floats(0.001, 0.999))),
        optim=OptimConfig(name=draw(st.sampled_from(["adamw", "muon"])), lr=lr, min_lr_ratio=draw(share),
                          warmup_steps=draw(count), weight_decay=draw(positive), beta1=draw(share), beta2=draw(share),
                          grad_clip=draw(positive), muon_lr_ratio=draw(positive)),
        eval=EvalConfig(every=draw(count), max_tokens=draw(count), sample_every=draw(count)),
        checkpoint=CheckpointConfig(every=draw(count), keep_last=1 + draw(count), growth=draw(st.booleans())),
        runtime=RuntimeConfig(device=draw(st.sampled_from(["auto", "cpu", "cuda", "mps"])),
                              micro_batch_size=micro_batch_size, threads=min(draw(count), 1024)),
    )  # fmt: skip


def through_a_file(config, folder: Path):
    path = folder / "config.json"
    path.write_bytes(dump_json(to_dict(config)).encode())
    return from_dict(type(config), load_json(path))


@given(config=train_configs())
def test_round_trip_is_exact(config, tmp_path_factory):
    again = through_a_file(config, tmp_path_factory.getbasetemp())
    assert again == config
    assert repr(again) == repr(config)  # the same types too: 1 is not 1.0, a string is no path
    assert differing_keys(config, again) == []


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_go_to_json_and_back(name, tmp_path):
    assert through_a_file(RECIPES[name], tmp_path) == RECIPES[name]


def test_what_is_left_out_takes_its_default():
    config = from_dict(TrainConfig, {"model": {"block_size": 64}})
    assert config == TrainConfig(model=GPTConfig(block_size=64))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optm": {}}, "unknown config key optm; did you mean optim?"),
        ({"model": {"n_layre": 3}}, "unknown config key model.n_layre; did you mean model.n_layer?"),
        ({"data": {"zzzzzz": 3}}, "unknown config key data.zzzzzz"),
        ({"model": 3}, "model must be an object, got 3"),
        ({"out_dir": "a\0b"}, 'out_dir must be a path, got "a\\u0000b"'),
        (None, "config must be an object, got null"),
        ([], "config must be an object, got []"),
        ({"model": {"n_layer": "4"}}, 'model.n_layer must be int, got "4"'),
        ({"model": {"n_layer": 4.0}}, "model.n_layer must be int, got 4.0"),
        ({"model": {"n_layer": True}}, "model.n_layer must be int, got true"),
        ({"model": {"bias": 1}}, "model.bias must be bool, got 1"),
        ({"model": {"dropout": False}}, "model.dropout must be float, got false"),
        ({"optim": {"lr": "1e-3"}}, 'optim.lr must be float, got "1e-3"'),
        ({"optim": {"lr": None}}, "optim.lr must be float, got null"),
        ({"optim": {"lr": 10**400}}, f"optim.lr must be float, got {10**99}..."),
        ({"optim": {"lr": math.inf}}, "optim.lr must be float, got Infinity"),
        ({"optim": {"name": "sgd"}}, 'optim.name must be one of adamw, muon, got "sgd"'),
        ({"optim": {"name": ["adamw"]}}, 'optim.name must be one of adamw, muon, got ["adamw"]'),
        ({"data": {"path": 3}}, "data.path must be a path or null, got 3"),
        ({"out_dir": None}, "out_dir must be a path, got null"),
        ({"name": 7}, "name must be str, got 7"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named_by_its_dotted_path(values, message):
    with pytest.raises(UserError) as caught:
        from_dict(TrainConfig, values)
    assert str(caught.value) == message


def test_an_integer_is_a_good_float_and_becomes_one():
    lr = from_dict(OptimConfig, {"lr": 1, "min_lr_ratio": 0}).lr
    assert lr == 1
    assert type(lr) is float


def test_rates_of_older_runs_are_shares_of_their_lr():
    optim = from_dict(OptimConfig, {"name": "muon", "lr": 3e-3, "min_lr": 1e-3, "muon_lr": 0.02})
    assert optim == OptimConfig(name="muon", lr=3e-3, min_lr_ratio=1e-3 / 3e-3, muon_lr_ratio=0.02 / 3e-3)
    with pytest.raises(UserError, match="min_lr_ratio must be float, got"):
        from_dict(OptimConfig, {"lr": 3e-3, "min_lr": "low"})


def test_a_missing_key_is_named():
    @dataclasses.dataclass(frozen=True)
    class Inner:
        size: int

    @dataclasses.dataclass(frozen=True)
    class Outer:
        inner: Inner

    with pytest.raises(UserError, match=r"^missing config key inner$"):
        from_dict(Outer, {})
    with pytest.raises(UserError, match=r"^missing config key inner\.size$"):
        from_dict(Outer, {"inner": {}})


@dataclasses.dataclass(frozen=True)
class Collections:
    numbers: tuple[int, ...] = ()
    names: dict[str, str] = dataclasses.field(default_factory=dict)


def test_collections_are_checked_item_by_item():
    values = {"numbers": [1, 2], "names": {"a": "b"}}
    assert from_dict(Collections, values) == Collections((1, 2), {"a": "b"})
    assert to_dict(from_dict(Collections, values)) == values
    with pytest.raises(UserError, match=r"^numbers\[1\] must be int, got null$"):
        from_dict(Collections, {"numbers": [1, None]})
    with pytest.raises(UserError, match=r"^names\.a must be str, got 1$"):
        from_dict(Collections, {"names": {"a": 1}})


def test_a_broken_rule_is_a_usage_error():
    with pytest.raises(UsageError, match=r"model\.n_embd must be a multiple of model\.n_head, got 768 and 5"):
        from_dict(TrainConfig, {"model": {"n_head": 5}})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["lr", "n_layer", "path"]), inner),
    max_leaves=6,
)
paths = [(f.name, g.name) for f in dataclasses.fields(TrainConfig) if dataclasses.is_dataclass(f.type)
         for g in dataclasses.fields(f.type)] + [(f.name,) for f in dataclasses.fields(TrainConfig)]  # fmt: skip


@given(path=st.sampled_from(paths), value=json_values)
def test_any_value_anywhere_makes_a_config_or_one_clear_line(path, value):
    values = {path[0]: {path[1]: value} if len(path) == 2 else value}
    line = ""
    try:
        config = from_dict(TrainConfig, {"model": {"block_size": 64}, **values})
        assert from_dict(TrainConfig, to_dict(config)) == config
    except UserError as error:
        line = str(error)
    assert "\n" not in line


def test_differing_keys_are_dotted():
    old = TrainConfig(model=GPTConfig(block_size=64))
    new = dataclasses.replace(old, seed=1, model=dataclasses.replace(old.model, n_layer=3, dropout=0.5))
    assert differing_keys(old, new) == ["seed", "model.n_layer", "model.dropout"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not valid JSON: Expecting property name"),
        (b"", "is not valid JSON: Expecting value"),
        (b'{"a": NaN}', "is not valid JSON: NaN is not a JSON number"),
        (b'{"a": -Infinity}', "is not valid JSON: -Infinity is not a JSON number"),
        (b'{"a": 1, "b": {"lr": 1, "lr": 2}}', "is not valid JSON: the key 'lr' is given twice"),
        (b'"\xff"', "is not valid JSON: 'utf-8' codec can't decode"),
        (b"[" * 100_000, "is not valid JSON: maximum recursion depth"),
    ],
)
def test_a_broken_file_is_named_in_one_line(content, message, tmp_path):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_json(path)
    assert str(caught.value).startswith(f"{path} {message}")
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*gone\.json: No such file"):
        load_json(tmp_path / "gone.json")
    with pytest.raises(UserError, match=r"cannot read .*: it is not a file"):
        load_json(tmp_path)


def test_json_is_written_for_people_and_strict():
    assert dump_json({"a": "é"}) == '{\n  "a": "é"\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        dump_json({"a": math.nan})
    assert json.loads(dump_json(to_dict(RECIPES["gpt2-fineweb"])))["data"]["path"] == "data/fineweb-edu"


def test_older_names_of_keys_are_read():
    values = to_dict(RECIPES["shakespeare"])
    values["runtime"]["products"] = values["runtime"].pop("matmul")
    values["runtime"]["compare_every"] = values["runtime"].pop("check_replicas_every")
    assert from_dict(TrainConfig, values) == RECIPES["shakespeare"]
    values["runtime"] |= {"matmul": "auto"}
    with pytest.raises(UserError, match=r"unknown config key runtime\.products|given twice"):
        from_dict(TrainConfig, values)


@dataclasses.dataclass(frozen=True)
class _Inner:
    kind: str
    sizes: list[int]


@dataclasses.dataclass(frozen=True)
class _Outer:
    parts: dict[str, _Inner]
    extra: Any = None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"parts": {"a": {"kind": "x", "sizes": [1, "2"]}}}', 'parts.a.sizes[1] must be int, got "2"'),
        ('{"parts": {"a": {"kind": ["x"], "sizes": []}}}', 'parts.a.kind must be str, got ["x"]'),
        ('{"parts": {"a": "x"}}', 'parts.a must be an object, got "x"'),
        ('{"parts": []}', "parts must be an object, got []"),
        ('{"parts": {"a": {"kind": "x"}}}', "missing config key parts.a.sizes"),
        ('{"parts": {"a": {"kind": "x", "sizes": {}}}}', "parts.a.sizes must be a list, got {}"),
        ("[]", "config must be an object, got []"),
        ('{"parts": {}, "extra": "\\ud800"}', "not valid JSON"),
    ],
)
def test_a_file_is_read_into_its_form(tmp_path, text, message):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        read_json(path, _Outer)
    assert str(path) in str(caught.value)


def test_files_of_others_may_say_more(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"parts": {"a": {"kind": "x", "sizes": [1], "odd": 1}}, "extra": {"b": []}, "more": null}')
    assert read_json(path, _Outer, more=True) == _Outer({"a": _Inner("x", [1])}, {"b": []})
    with pytest.raises(UserError, match="unknown config key more"):
        read_json(path, _Outer)


@pytest.mark.fault(
    "B6",
    "a FIFO, a device, a folder or far too much stands where a JSON file is read",
    "one line that names it, at once; nothing waits and no memory is taken",
)
def test_what_is_no_file_is_not_waited_for(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    for name in ("fifo", "zero", "folder"):
        with pytest.raises(UserError, match=f"cannot read .*{name}: it is not a file"):
            load_json(tmp_path / name)
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(65 * 2**20)  # a sparse file: as large as it says, without a byte of it on the disk
    with pytest.raises(UserError, match=r"large.json takes more than 67,108,864 bytes.* GROUNDUP_MAX_JSON_BYTES"):
        load_json(tmp_path / "large.json")


@pytest.mark.parametrize("name", ["n_layer", "n_embd", "block_size", "vocab_size"])
@pytest.mark.parametrize("power", [10, 18, 30])
def test_a_size_that_no_machine_holds_is_refused_by_name(name, power):
    with pytest.raises(UsageError, match=f"model.{name} must be at most"):
        GPTConfig(**{"n_head": 1, name: 10**power})


def test_control_characters_are_shown_as_escapes():
    assert shown("a\x1b[31mb\r\x07\x9b\u202ec\n\td é 世") == "a\\x1b[31mb\\r\\x07\\x9b\\u202ec\n\td é 世"


def test_a_name_that_is_no_text_is_refused_before_a_file_is_written():
    with pytest.raises(UserError, match=re.escape('"path": "/a/\udcff.txt" is not UTF-8, in which files are written')):
        dump_json({"data": {"path": "/a/\udcff.txt"}, "seed": 1})
    assert shown("a\udcffb") == "a\\udcffb"
