"""A run whose data is not what it was: refused, unless the user says otherwise; never with another tokenizer."""

import json
from pathlib import Path

import pytest

from groundup.checkpoint.model_folder import load_model
from groundup.cli.main import main
from groundup.config.io import dump_json
from groundup.files.manifest import file_facts, manifest_json
from groundup.records.history import read_run
from groundup.records.measured import of_last_text

FLAGS = [
    "--data.source=text", "--data.path=text.txt", "--model.n-layer=1", "--model.n-head=1", "--model.n-embd=8",
    "--model.block-size=16", "--tokens-per-step=64", "--runtime.micro-batch-size=4", "--runtime.threads=1",
    "--runtime.compile=off",
    "--runtime.matmul=default", "--eval.every=2", "--eval.sample-every=0", "--max-steps=4", "--name=run",
]  # fmt: skip
TEXT = "".join(f"SPEAKER {i % 7}:\nthe {i} quick brown foxes\n\n" for i in range(100))


@pytest.fixture
def run(tmp_path, monkeypatch, short_ends):
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(TEXT)
    assert main(["train", "shakespeare", *FLAGS]) == 0
    Path("text.txt").write_text(TEXT + "SPEAKER 1:\nfoxes\n\n")
    Path("foreign.txt").write_text(TEXT + "Zounds!\n")
    return Path("runs/run")


@pytest.mark.fault(
    "C9",
    "the text of a run changes between stop and resume",
    "refused by name unless --allow-data-change says so",
)
def test_resume_on_other_data(run, capsys):
    capsys.readouterr()
    words = ["train", "--resume", str(run), "--max-steps=6"]
    assert main(words) == 1
    error = capsys.readouterr().err
    assert "the data is not what this run was trained on" in error
    assert error.count("\n") == 1

    assert main([*words, "--data.path=foreign.txt", "--allow-data-change"]) == 1
    error = capsys.readouterr().err
    assert "the data was made with another tokenizer" in error
    assert error.count("\n") == 1

    saved = json.loads((run / "run.json").read_text())
    assert main([*words, "--allow-data-change"]) == 0
    now = json.loads((run / "run.json").read_text())
    assert now["data_fingerprint"] != saved["data_fingerprint"]
    assert now["bigram_loss"] != saved["bigram_loss"]
    assert (run / "checkpoints" / "step-0000006").is_dir()
    # From here on this is the run's data.
    assert main(["train", "--resume", str(run), "--max-steps=8"]) == 0


def test_the_flag_needs_a_run_to_resume(run, capsys):
    assert main(["train", "shakespeare", *FLAGS, "--allow-data-change"]) == 2
    assert "--allow-data-change only means something with --resume" in capsys.readouterr().err


def forgets(run, capsys, words, steps=(4, 6)):
    """Go on, and see that all numbers are of the text that is measured then; returns those of the whole record."""
    before = read_run(run)
    capsys.readouterr()
    assert main(["train", "--resume", str(run), f"--max-steps={steps[-1]}", *words]) == 0
    output = capsys.readouterr().out
    assert "validation reads another text than before" in output
    now = read_run(run)
    losses = {row["step"]: row["val/loss"] for row in of_last_text(now.rows) if "val/loss" in row}
    assert list(losses) == list(steps)
    assert now.series("val/loss", "steps")[0] == list(steps)
    assert now.best["val/loss"] == min(losses.values())
    info = load_model(run / "model").info
    assert (info["step"], info["val_loss"]) == (now.best["step"], now.best["val/loss"])
    assert f"{now.facts['bigram_loss']:.4f}" in output
    assert f"{now.best['val/loss']:.4f}" in output.split("validation loss, nats per token")[1]
    assert now.facts["bigram_loss"] != before.facts["bigram_loss"]
    return losses


def test_losses_on_another_part_of_the_split_are_not_compared(run, tmp_path, capsys):
    """A lower loss on an easy part does not stay the best, nor does the bigram's on it."""
    Path("text.txt").write_text(TEXT)
    whole = read_run(run).best["val/loss"]
    part = forgets(run, capsys, ["--eval.max-tokens=32"])
    assert part[4] != whole
    # The same part is no change, nor is a limit beyond the end; the record goes on.
    assert main(["train", "--resume", str(run), "--max-steps=8", "--eval.max-tokens=32"]) == 0
    assert "another text" not in capsys.readouterr().out
    again = forgets(run, capsys, ["--eval.max-tokens=0"], steps=(8, 10))
    assert main(["train", "--resume", str(run), "--max-steps=12", "--eval.max-tokens=1000000"]) == 0
    assert "another text" not in capsys.readouterr().out
    assert read_run(run).best["val/loss"] <= min(again.values())


def test_losses_on_another_text_are_not_compared(run, capsys):
    Path("text.txt").write_text(TEXT + "KSPA" * 200)
    forgets(run, capsys, ["--allow-data-change"])


def test_a_run_of_an_older_groundup_says_what_it_measured_by_its_config(run, capsys):
    Path("text.txt").write_text(TEXT)
    facts = json.loads((run / "run.json").read_text())
    del facts["val_text"]
    (run / "run.json").write_text(dump_json(facts))
    for folder in (run / "checkpoints").iterdir():
        values = json.loads((folder / "training.json").read_text())
        del values["state"]["train"]["val_text"], values["state"]["train"]["val_texts"]
        (folder / "training.json").write_text(dump_json(values))
        (folder / "manifest.json").unlink()
        (folder / "manifest.json").write_text(manifest_json({p.name: file_facts(p) for p in folder.iterdir()}))
    forgets(run, capsys, ["--eval.max-tokens=32"])
