import dataclasses
import json

import pytest

from groundup.config.errors import UserError
from groundup.data.index import DatasetIndex, ShardInfo, load_index


@pytest.fixture
def index():
    def info(k, digest):
        return ShardInfo(
            file=f"train-{k:06d}.bin",
            split="train",
            n_tokens=10,
            n_bytes=40,
            n_documents=1,
            max_id=7,
            sha256=digest * 64,
        )

    return DatasetIndex(
        source="text",
        settings={"source": "text", "shard_tokens": 10, "val_fraction": 0.1},
        tokenizer_fingerprint="ab" * 32,
        vocab_size=65,
        shards=(info(0, "1"), info(1, "2")),
        skipped={"empty document": 3, "façade": 1},
    )


def test_round_trip(tmp_path, index):
    index.save(tmp_path)
    assert load_index(tmp_path) == index
    assert load_index(tmp_path).fingerprint == index.fingerprint


def test_the_fingerprint_is_that_of_the_shards_in_order(index):
    a, b = index.shards
    same = dataclasses.replace(index, skipped={}, settings={})
    assert same.fingerprint == index.fingerprint
    for shards in ((b, a), (a,), (a, b, b), ()):
        assert dataclasses.replace(index, shards=shards).fingerprint != index.fingerprint


@pytest.mark.fault(
    "C2",
    "a bit of index.json is flipped",
    "refused by name",
)
def test_every_flipped_bit_is_refused(tmp_path, index, record_property):
    index.save(tmp_path)
    path = tmp_path / "index.json"
    original = path.read_bytes()
    bits = range(0, 8 * len(original), 37)
    for bit in bits:
        damaged = bytearray(original)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"index\.json"):
            load_index(tmp_path)
    record_property("figure", f"{len(bits)} of {len(bits)} bits")


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", "{", '{"version": 1}', '{"version": 2}'])
def test_what_is_no_index_is_refused(tmp_path, text):
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(UserError, match=r"index\.json"):
        load_index(tmp_path)


def test_a_folder_without_one_is_told(tmp_path):
    with pytest.raises(UserError, match="holds no prepared data"):
        load_index(tmp_path)


@pytest.mark.parametrize("name", ["../train.bin", "/etc/passwd", "a/b.bin", "", ".hidden"])
def test_shards_lie_in_the_folder(tmp_path, index, name):
    """Even where the checksum vouches for the name."""
    outside = dataclasses.replace(index, shards=(dataclasses.replace(index.shards[0], file=name),))
    outside.save(tmp_path)
    with pytest.raises(UserError, match="not the name of a shard"):
        load_index(tmp_path)


def test_it_is_json_that_others_can_read(tmp_path, index):
    index.save(tmp_path)
    values = json.loads((tmp_path / "index.json").read_text())
    assert [s["file"] for s in values["shards"]] == ["train-000000.bin", "train-000001.bin"]
