"""A run whose data is not what it was: refused, unless the user says otherwise; never with another tokenizer."""

from pathlib import Path

import pytest

from groundup.cli.main import main

FLAGS = [
    "--data.source=text", "--data.path=text.txt", "--model.n-layer=1", "--model.n-head=1", "--model.n-embd=8",
    "--model.block-size=16", "--tokens-per-step=64", "--runtime.micro-batch-size=4", "--runtime.threads=1",
    "--runtime.compile=off",
    "--runtime.matmul=default", "--eval.every=2", "--eval.sample-every=0", "--max-steps=4", "--name=run",
]  # fmt: skip


@pytest.fixture
def run(tmp_path, monkeypatch, short_ends):
    monkeypatch.chdir(tmp_path)
    text = "".join(f"SPEAKER {i % 7}:\nthe {i} quick brown foxes\n\n" for i in range(100))
    Path("text.txt").write_text(text)
    assert main(["train", "shakespeare", *FLAGS]) == 0
    Path("text.txt").write_text(text + "SPEAKER 1:\nfoxes\n\n")
    Path("foreign.txt").write_text(text + "Zounds!\n")
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

    assert main([*words, "--allow-data-change"]) == 0
    assert (run / "checkpoints" / "step-0000006").is_dir()
    # From here on this is the run's data.
    assert main(["train", "--resume", str(run), "--max-steps=8"]) == 0


def test_the_flag_needs_a_run_to_resume(run, capsys):
    assert main(["train", "shakespeare", *FLAGS, "--allow-data-change"]) == 2
    assert "--allow-data-change only means something with --resume" in capsys.readouterr().err
