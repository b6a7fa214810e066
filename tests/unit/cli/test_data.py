import json
import random
from pathlib import Path

import numpy as np
import pytest

import needs
from groundup.cli.main import main
from groundup.data.dataset import TokenDataset
from groundup.data.sample import sample_documents
from groundup.tokenizer.base import END_OF_TEXT


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
        documents, ending = {"train": 240, "val": 60}[split], "s" * (shards != 1)
        assert f"{split:<6}{many:,} tokens, {documents} documents, {shards} shard{ending}, 0.97 bytes per token" in out
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
    needs.gpt2_vocabulary()
    monkeypatch.chdir(tmp_path)
    texts = [f"document {k} " + "word " * (200 * (k % 2)) for k in range(40)]
    Path("t.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    assert main(["prepare", "t.jsonl", "set", "--shard-tokens=1500", "--val-rule=head", "--workers=1"]) == 0
    opened = TokenDataset(Path("set"))
    drawn = [list(sample_documents(opened, "train", count=20, max_tokens=10_000, seed=seed)) for seed in range(5)]
    got = [passage for passages in drawn for passage in passages]
    parts = {(passage.file, passage.start) for passage in got if passage.text not in texts}
    assert parts <= {("train-000000.bin", 0)}  # which the head of validation cut; what two shards share is whole
    long = np.mean([passage.text.count("word") > 0 for passage in got])
    assert 0.4 < long < 0.6  # of 20 of 40, five times: a standard deviation is 0.04
    assert len({passage.text for passage in got}) >= 38
    everything = list(sample_documents(opened, "train", count=400, max_tokens=10_000, seed=1))
    for passages in (*drawn, everything):
        assert len({(passage.file, passage.start) for passage in passages}) == len(passages)
    assert len(everything) == sum(info.n_documents for info in opened.index.shards if info.split == "train")


@pytest.mark.parametrize("shard_tokens", [300, 10_000])
def test_what_is_left_of_a_document_whose_end_is_held_out_is_counted_and_drawn(
    tmp_path, monkeypatch, capsys, shard_tokens
):
    monkeypatch.chdir(tmp_path)
    Path("texts").mkdir()
    texts = [
        "".join(f"{name} of line {k}.\n" for k in range(n)) for name, n in (("essay", 90), ("poem", 30), ("tale", 25))
    ]
    for number, text in enumerate(texts):
        Path("texts", f"{number}.txt").write_text(text)
    words = ["prepare", "texts", "set", "--tokenizer=char", f"--shard-tokens={shard_tokens}", "--workers=1"]
    assert main(words) == 0
    assert "tokens, 3 documents, " in capsys.readouterr().out
    opened = TokenDataset(Path("set"))
    essay, *others = sorted(p.text for p in sample_documents(opened, "train", count=9, max_tokens=10_000, seed=1))
    assert others == texts[1:]
    assert essay + opened.tokenizer().decode(opened.split("val").read_all().tolist()) == f"{texts[0]}{END_OF_TEXT}"


@pytest.mark.parametrize("prepared", [True, False])
def test_text_is_exactly_as_it_is_and_cannot_command_a_terminal(prepared, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = "\x1b[2J\x07\t:smile: [bold]\u200b\x85\u2028" * 20
    Path("t.txt").write_text(text)
    assert main(["prepare", "t.txt", "set", "--tokenizer=char", "--workers=1"]) == 0
    capsys.readouterr()
    words = ["data", "sample", "set" if prepared else "t.txt", "--num=1", "--max-tokens=9000"]
    assert main(words) == 0
    shown = capsys.readouterr().out.partition("\n")[2].removesuffix("\n")
    assert len(shown) > 20
    assert shown in text
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert main(words) == 0
    out = capsys.readouterr().out
    assert not set(out) & {"\x1b", "\x07", "\x85"}
    assert "\\x1b[2J\\x07\t:smile: [bold]\u200b\\x85" in out


def test_sample_of_text_shows_what_the_reader_finds(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("s.txt").write_text("".join(f"story {k}\r\nits end\n<|endoftext|>\n" for k in range(50)))
    Path("b.txt").write_bytes(b"\xff\xfe")

    def sample(*words, code=0):
        capsys.readouterr()
        assert main(["data", "sample", *words]) == code
        return capsys.readouterr()

    assert "--- document 0: 1,540 characters\nstory 0\n" in sample("s.txt").out
    cut = sample("s.txt", "--separator=<|endoftext|>", "--num=60").out
    assert cut == "".join(f"--- document {k}: {len(str(k)) + 14} characters\nstory {k}\nits end\n" for k in range(50))
    few = sample("s.txt", "--separator=<|endoftext|>", "--num=4").out
    assert few == sample("s.txt", "--separator=<|endoftext|>", "--num=4").out
    assert few != sample("s.txt", "--separator=<|endoftext|>", "--num=4", "--seed=2").out
    assert few.count("--- document") == 4
    assert "b.txt" in sample("*.txt", code=1).err
    skipped = sample("*.txt", "--bad-files=skip")
    assert "b.txt" in skipped.err
    assert "story 0" in skipped.out


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
