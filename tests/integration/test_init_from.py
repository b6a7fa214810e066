"""groundup train --init-from: fine-tuning starts where the weights are, and refuses what does not fit."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from groundup.checkpoint.model_folder import load_model, save_model
from groundup.cli.main import main
from groundup.config.model import GPTConfig
from groundup.model.bigram import fit_bigram
from groundup.model.gpt import GPT
from groundup.model.init import init_weights
from groundup.records.metrics import read_metrics
from groundup.tokenizer.char import CharTokenizer
from small_runs import column, plays

FLAGS = [
    "--data.source=text", "--data.path=text.txt", "--model.n-layer=2", "--model.n-head=2", "--model.n-embd=32",
    "--model.block-size=16", "--model.dropout=0", "--tokens-per-step=128", "--runtime.micro-batch-size=4",
    "--runtime.threads=1", "--runtime.compile=off",
    "--runtime.matmul=default", "--runtime.precision=fp32", "--eval.every=20",
    "--eval.sample-every=0", "--checkpoint.every=20", "--log-every=5", "--optim.name=adamw", "--optim.warmup-steps=0",
]  # fmt: skip


@pytest.fixture
def place(tmp_path, monkeypatch, short_ends) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(plays(200))
    return tmp_path


def start(name: str, *words: str) -> int:
    return main(["train", "shakespeare", *FLAGS, f"--name={name}", *words])


def first_loss(name: str) -> float:
    return column(name, "val/loss")[0]


def test_starts_where_the_weights_are(place):
    """The first loss is the one that the earlier run ended with; resuming does not read the weights again."""
    assert start("first", "--max-steps=20", "--optim.lr=0.01") == 0
    info = load_model(Path("runs/first")).info
    best = info["val_loss"]
    assert (info["data"], info.get("init_from")) == ("text: text.txt", None)
    assert start("second", "--init-from=runs/first", "--max-steps=20", "--optim.lr=1e-9") == 0
    assert first_loss("second") == pytest.approx(best, abs=1e-5)
    assert first_loss("first") > best + 0.1
    assert main(["export", "runs/second", "out", "--format=groundup"]) == 0
    card = Path("out/README.md").read_text()
    assert "| data | text: text.txt |\n| went on from | runs/first |\n" in card

    shutil.rmtree("runs/first")
    assert main(["train", "--resume", "runs/second", "--max-steps=25"]) == 0
    weights = load_file(next(Path("runs/second/checkpoints").glob("*25")) / "model.safetensors")
    torch.testing.assert_close(weights["wte.weight"], load_model(Path("runs/second")).model.state_dict()["wte.weight"])


def test_dropout_may_differ(place):
    assert start("first", "--max-steps=1") == 0
    assert start("second", "--init-from=runs/first", "--max-steps=1", "--model.dropout=0.2") == 0


def test_every_mismatch_in_one_line(place, capsys):
    config = GPTConfig(n_layer=3, n_head=4, n_embd=32, block_size=8, vocab_size=4, bias=False)
    save_model(place / "other", init_weights(GPT(config), seed=1), CharTokenizer("abcd"), {})
    typed = ["--model.bias", "--data.tokenizer=char"]
    assert start("run", "--init-from=other", "--max-steps=1", *typed) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for fault in (
        "model.n_layer is 2 and its 3",
        "model.n_head is 2 and its 4",
        "model.block_size is 16 and its 8",
        "model.bias is True and its False",
        "is not the one it learned with (4 ids)",
        "give --model.n-layer 3 --model.n-head 4 --model.block-size 8 --model.no-bias",
        "--data.tokenizer other/tokenizer.json",
    ):
        assert fault in error


def test_the_flags_of_the_message_help(place, capsys):
    assert start("first", "--max-steps=1", "--model.n-layer=3", "--model.no-bias") == 0
    Path("text.txt").write_text("over and over and over\n" * 300)
    capsys.readouterr()
    assert start("second", "--init-from=runs/first", "--max-steps=1", "--data.tokenizer=char") == 2
    flags = capsys.readouterr().err.strip().split("; give ")[1].split()
    assert start("second", "--init-from=runs/first", "--max-steps=1", *flags) == 0


@pytest.mark.parametrize("preset", ["shakespeare", "gpt2-fineweb"])  # the second asks for GPT-2's vocabulary
def test_shape_and_tokenizer_are_the_models_unless_typed(place, capsys, preset):
    assert start("first", "--max-steps=1", "--model.n-layer=3", "--model.no-bias") == 0
    Path("text.txt").write_text("over and over and over\n" * 300)
    words = [flag for flag in FLAGS if not flag.startswith("--model.")]
    assert main(["train", preset, "--name=second", *words, "--init-from", "runs/first", "--max-steps=1"]) == 0
    first, second = (load_model(Path("runs", name)) for name in ("first", "second"))
    assert second.config == first.config
    assert second.tokenizer.fingerprint == first.tokenizer.fingerprint
    assert main(["train", "--resume", "runs/second", "--max-steps=2"]) == 0


def test_no_model_there(place, capsys):
    assert start("run", "--init-from=nowhere", "--max-steps=1") == 1
    assert "nowhere does not exist" in capsys.readouterr().err
    save_model(place / "bigram", fit_bigram(torch.randint(4, (50,)).numpy(), 4), CharTokenizer("abcd"), {})
    assert start("run", "--init-from=bigram", "--max-steps=1") == 2
    assert "cannot start from bigram: it is a bigram" in capsys.readouterr().err


LORA = ("--lora.rank=4", "--optim.lr=0.02", "--optim.min-lr-ratio=0.5")


def test_lora_changes_only_the_blocks_and_leaves_an_ordinary_model(place):
    assert start("first", "--max-steps=20", "--optim.lr=0.01") == 0
    assert start("second", "--init-from=runs/first", "--max-steps=20", *LORA) == 0
    before, after = (load_model(Path("runs") / name).model.state_dict() for name in ("first", "second"))
    assert before.keys() == after.keys()
    for name in before:
        inside = name.startswith("h.") and name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight"))
        assert torch.equal(before[name], after[name]) is not inside
        if inside:
            assert torch.linalg.matrix_rank(after[name] - before[name], rtol=1e-3) <= 4
    info = load_model(Path("runs/second")).info
    assert info["val_loss"] < load_model(Path("runs/first")).info["val_loss"]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])  # muon takes all there is to train, and leaves adamw nothing
def test_lora_resumes_bit_for_bit(place, optimizer):
    assert start("first", "--max-steps=3") == 0
    words = ("--init-from=runs/first", "--max-steps=20", "--checkpoint.every=10", *LORA, f"--optim.name={optimizer}")
    assert start("again", *words) == 0
    shutil.copytree("runs/again", "runs/cut")
    shutil.rmtree("runs/cut/checkpoints/step-0000020")
    shutil.rmtree("runs/first")
    assert main(["train", "--resume", "runs/cut"]) == 0
    for file in ("model.safetensors", "training.safetensors"):
        one, other = (load_file(f"runs/{name}/checkpoints/step-0000020/{file}") for name in ("again", "cut"))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_lora_needs_a_model(place, capsys):
    assert start("run", "--lora.rank=4") == 2
    assert "name one with --init-from" in capsys.readouterr().err


HARMFUL = ["--optim.lr=0.3", "--optim.min-lr-ratio=1", "--eval.every=4", "--checkpoint.every=4", "--max-steps=8"]


def measured(name: str, capsys) -> float:
    capsys.readouterr()
    assert main(["eval", f"runs/{name}"]) == 0
    return float(capsys.readouterr().out.split("loss ")[1].split()[0])


@pytest.mark.fault(
    "E14",
    "fine-tuning only makes the model worse",
    "model/ is the model of the start, under its own loss; one line says so",
)
def test_the_model_of_the_start_may_stay_the_best(place, capsys):
    assert start("first", "--max-steps=40", "--optim.lr=0.01") == 0
    assert start("worse", "--init-from=runs/first", *HARMFUL) == 0
    assert "warning: no step reached a lower validation loss" in capsys.readouterr().out
    first, worse = (load_model(Path("runs") / name) for name in ("first", "worse"))
    assert worse.info["step"] == 0
    assert worse.info["val_loss"] == pytest.approx(measured("worse", capsys), abs=1e-4)
    torch.testing.assert_close(worse.model.state_dict(), first.model.state_dict())

    # What these weights write is theirs, also where the run that had ended is resumed.
    for _ in range(2):
        written = [row for row in read_metrics(Path("runs/worse/metrics.jsonl")) if "sample" in row]
        assert [row.get("kept_step") for row in written] == [None] * (len(written) - 1) + [0]
        assert written[-1]["step"] == max(row["step"] for row in written)
        page = Path("runs/worse/report.html").read_text()
        assert "<p class=quiet>the weights that were kept, before the first step, validation loss" in page
        assert main(["train", "--resume", "runs/worse"]) == 0
    capsys.readouterr()

    # A run that is killed before its next checkpoint goes on from the start, and ends the same.
    for later in Path("runs/worse/checkpoints").glob("step-*[48]"):
        shutil.rmtree(later)
    assert main(["train", "--resume", "runs/worse"]) == 0
    assert "resumed at step 0 " in capsys.readouterr().out
    assert load_model(Path("runs/worse")).info == worse.info


@pytest.mark.fault(
    "E14", "training from random weights only makes them worse", "model/ is labeled with the loss its weights have"
)
def test_a_label_is_that_of_its_weights(place, capsys):
    assert start("lost", *HARMFUL, "--optim.lr=3", "--model.n-layer=1") == 0
    said = capsys.readouterr().out
    info = load_model(Path("runs/lost")).info
    assert info["step"] in (4, 8)
    assert f"of step 0; model/ has the weights of step {info['step']}." in " ".join(said.split())
    assert info["val_loss"] == pytest.approx(measured("lost", capsys), rel=1e-4)
    assert f"{info['val_loss']:.4f} at step {info['step']}" in Path("runs/lost/report.html").read_text()
