"""GPT-2 on FineWeb-Edu, at the size of a toy: parquet files, shards, the preset, text. Nothing is downloaded."""

import math
from pathlib import Path

import pytest

import needs
from groundup.cli.main import main
from groundup.data.dataset import TokenDataset
from small_runs import column, rows

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
needs.gpt2_vocabulary()

TOPICS = ["Water boils at 100 degrees", "Łódź is a city in Poland", "Cells divide 🧬 in four phases", "水は液体である"]
TOY = [
    "--model.n-layer=2", "--model.n-head=2", "--model.n-embd=32", "--model.block-size=64", "--tokens-per-step=256",
    "--runtime.micro-batch-size=4", "--runtime.threads=1", "--runtime.compile=off",
    "--runtime.matmul=default", "--runtime.device=cpu",
    "--max-steps=6", "--optim.warmup-steps=2", "--optim.lr=3e-3", "--log-every=1", "--eval.every=3",
    "--eval.max-tokens=512", "--eval.sample-every=6", "--eval.sample-tokens=8", "--checkpoint.every=3",
]  # fmt: skip


def document(k: int) -> str:
    return f"{TOPICS[k % 4]}, as lesson {k} says.\n" * (1 + k % 23)


@pytest.fixture
def parquet_files(tmp_path, monkeypatch, short_ends) -> Path:
    """Files in the form of FineWeb-Edu's: more columns than text, some rows a group, here one null."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "sample" / "10BT"
    folder.mkdir(parents=True)
    for k in range(3):
        numbers = range(k * 120, (k + 1) * 120)
        texts = [None if n == 130 else document(n) for n in numbers]
        facts = {"text": texts, "id": [f"<urn:{n}>" for n in numbers], "score": [3.0 + n % 2 for n in numbers]}
        pq.write_table(pa.table(facts), folder / f"{k:03d}_00000.parquet", row_group_size=50)
    return tmp_path / "sample"


def test_from_parquet_files_to_text(parquet_files, capsys):
    words = ["prepare", "sample", "data/fineweb-edu", "--shard-tokens=12000", "--val-fraction=0.2", "--workers=1"]
    assert main([*words, "--val-rule=head"]) == 0
    printed = capsys.readouterr().out
    assert "skipped 1: text that is null in 001_00000.parquet" in printed
    assert "vocabulary 50,257" in printed

    dataset = TokenDataset(Path("data/fineweb-edu"))
    ids = [*dataset.split("val").read_all().tolist(), *dataset.split("train").read_all().tolist()]
    texts = dataset.tokenizer().decode(ids).split("<|endoftext|>")
    assert texts == [*(document(n) for n in range(360) if n != 130), ""]
    assert len(dataset.split("train").shards) > 1

    assert main(["train", "gpt2-fineweb", *TOY]) == 0
    losses = column("gpt2-fineweb", "train/loss")
    assert losses[0] == pytest.approx(math.log(50257), abs=0.1)
    assert losses[-1] < losses[0] - 0.1
    vals = [row for row in rows("gpt2-fineweb") if "val/loss" in row]
    per_token = dataset.split("val").n_bytes / dataset.split("val").n_tokens
    assert vals[-1]["val/bpb"] == pytest.approx(vals[-1]["val/loss"] / math.log(2) / per_token)

    capsys.readouterr()
    assert main(["generate", "runs/gpt2-fineweb", "--prompt=Łódź is", "--max-new-tokens=12"]) == 0
    assert capsys.readouterr().out.startswith("Łódź is")
    assert main(["train", "--resume", "runs/gpt2-fineweb", "--max-steps=8"]) == 0


def test_without_shards_one_line_says_how_to_make_them(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "gpt2-fineweb", *TOY]) == 1
    error = capsys.readouterr().err
    assert "data/fineweb-edu holds no prepared data" in error
    assert "groundup prepare" in error
    assert error.count("\n") == 1


def test_shards_of_another_tokenizer_are_refused(parquet_files, capsys):
    assert main(["prepare", "sample", "chars", "--tokenizer=char", "--workers=1"]) == 0
    capsys.readouterr()
    assert main(["train", "gpt2-fineweb", *TOY, "--data.path=chars"]) == 1
    error = capsys.readouterr().err
    assert "model.vocab_size is 50257" in error
    assert error.count("\n") == 1
