"""The whole way, as a user walks it: train, stop, resume, refuse, generate, all through the command line."""

import copy
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from forked import ForkedPopen
from groundup.checkpoint.model_folder import load_model
from groundup.cli.main import main
from groundup.config.io import load_json
from groundup.records import report
from groundup.records.plot import plot_loss
from groundup.records.results import read_results
from small_runs import checkpoints, column, plays, rows, until

FLAGS = [
    "--data.source=text", "--model.n-layer=2", "--model.n-head=2", "--model.n-embd=32", "--model.block-size=16",
    "--model.dropout=0.1", "--tokens-per-step=128", "--runtime.micro-batch-size=4", "--runtime.threads=1",
    "--runtime.compile=off",
    "--runtime.matmul=default", "--eval.every=10", "--eval.sample-every=10", "--eval.sample-tokens=10",
    "--checkpoint.every=10", "--log-every=5",
]  # fmt: skip
SMALL_DATA = [
    "--optim.name=muon", "--optim.average=0.9", "--optim.schedule=linear", "--optim.muon-cooldown=0.8",
    "--optim.muon-momentum-warmup=15", "--optim.cautious-decay", "--optim.beta2-half-life=5000", "--replace-tokens=0.1",
    "--model.stream-scales", "--model.value-residual", "--model.norm=rms", "--model.no-tied-head",
]  # fmt: skip
PLAIN = [["--optim.name=adamw"], ["--optim.name=muon"]]


@pytest.fixture
def place(tmp_path, monkeypatch, short_ends) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(plays(200))
    return tmp_path


def train(*words: str) -> int:
    return main(["train", *words])


def start(name: str, *words: str) -> int:
    return train("shakespeare", "--data.path=text.txt", *FLAGS, f"--name={name}", *words)


def in_new_process(*words: str, wait: bool = True):
    command = [sys.executable, "-m", "groundup", "train", *words]
    process = ForkedPopen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if not wait:
        return process
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    return output


def last_checkpoint(name: str) -> Path:
    return checkpoints(name)[-1]


class Seen(torch.nn.Module):
    """Stands for a compiled module, and notes the numbers it is compiled for."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.numbers = inner, []

    def forward(self, *given):
        if torch.is_grad_enabled():
            self.numbers += given[2:]
        return self.inner(*given)


def test_what_is_compiled_before_the_first_step_is_what_the_steps_use(place, monkeypatch):
    compiled = []

    def compile_module(module, **_):
        compiled.append(Seen(module))
        return compiled[-1]

    monkeypatch.setattr(torch, "compile", compile_module)
    assert start("seen", "--max-steps=2", "--runtime.compile=on") == 0
    assert [part.numbers for part in compiled] == [[128] * 5]  # a trial, and two micro-steps of each step


@pytest.mark.fault(
    "D1",
    "a new process goes on from a checkpoint that was written in the background, with AdamW or Muon, with dropout",
    "weights, moments, generators and losses bitwise those of the unbroken run",
)
@pytest.mark.parametrize("more", [*PLAIN, SMALL_DATA], ids=["adamw", "muon", "small data"])
def test_resume_is_bitwise(place, more):
    """20 steps in one go, against 10, a new process, and 10: weights, moments, generators and losses are the same.

    The second run writes its checkpoints in the background, while training changes what they hold.
    """
    options = [*more, "--optim.warmup-steps=3"]
    assert start("whole", *options, "--max-steps=20") == 0
    assert start("split", *options, "--max-steps=20", "--checkpoint.background=on") == 0
    # Take the second run back to step 10 by removing what came after.
    for path in Path("runs/split/checkpoints").glob("step-*20"):
        shutil.rmtree(path)
    output = in_new_process("--resume", "runs/split")
    assert "resumed at step 10" in output

    whole, split = last_checkpoint("whole"), last_checkpoint("split")
    assert whole.name == split.name == "step-0000020"
    for name in ("model.safetensors", "training.safetensors"):
        assert (whole / name).read_bytes() == (split / name).read_bytes(), name
    losses = [column(name, "train/loss") for name in ("whole", "split")]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 5
    vals = [
        [(r["val/loss"], r.get("val/loss_raw")) for r in rows(name) if "val/loss" in r] for name in ("whole", "split")
    ]
    assert vals[0] == vals[1]
    assert len(vals[0]) == 3
    if more is SMALL_DATA:
        shown, raw = vals[0][-1]
        assert shown != raw
        assert main(["eval", "runs/whole", "--tasks", "val"]) == 0  # what is kept is the average
        assert json.loads(Path("runs/whole/eval.json").read_text())["tasks"]["val"]["loss"] == pytest.approx(
            shown, rel=1e-6
        )


def test_a_run_leaves_all_that_is_promised(place, capsys, monkeypatch):
    monkeypatch.setattr(report, "plot_loss", plot_loss)  # the real one
    assert start("all", "--max-steps=20") == 0
    printed = capsys.readouterr().out
    run = Path("runs/all")
    for name in ("config.json", "run.json", "metrics.jsonl", "loss.png", "portrait.json", "report.html"):
        assert (run / name).stat().st_size > 0
    assert {p.name for p in (run / "model").iterdir()} == {
        "config.json", "manifest.json", "model.safetensors", "tokenizer.json",
    }  # fmt: skip
    assert len((run / "loss.png").read_bytes()) > 10_000
    page = (run / "report.html").read_text()
    assert "<svg" in page
    assert "Where a head looks" in page
    assert "the stronger the color of another, the more it takes from that one" in page
    assert "http://" not in page
    assert "https://" not in page
    assert "groundup train shakespeare" in page
    assert "bigram" in printed
    assert "what to try next" in printed
    assert "  groundup train --config runs/all/config.json --name longer --max-steps 40\n" in printed
    assert "JULIET" not in printed  # this text is not Shakespeare's
    first = rows("all")[0]
    assert first["step"] == 0
    assert first["val/loss"] == pytest.approx(3.5, abs=0.5)  # ln of about 35 symbols
    assert main(["generate", "runs/all", "--prompt=SPEAKER", "--max-new-tokens=8", "--seed=1"]) == 0
    spoken = capsys.readouterr().out
    assert spoken.startswith("SPEAKER")
    assert len(spoken) == len("SPEAKER") + 8 + 1


def test_a_context_of_one_token_has_no_portrait(place):
    assert start("one", "--model.block-size=1", "--tokens-per-step=16", "--max-steps=3", "--eval.max-tokens=64") == 0
    assert Path("runs/one/report.html").exists()
    assert not Path("runs/one/portrait.json").exists()


def test_what_to_try_next_can_be_tried(place, capsys):
    """The model of a text without line breaks cannot begin at one: the suggestion names a prompt."""
    Path("text.txt").write_text("foxes jump over lazy dogs " * 400)
    assert start("line", "--max-steps=1", "--eval.sample-every=0") == 0
    suggested = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  groundup generate")]
    words = shlex.split(suggested[0])[1:]
    assert "--prompt" in words
    assert main([*words, "--max-new-tokens=4"]) == 0


def test_learns_more_than_a_bigram(place):
    assert start("learns", "--max-steps=120", "--optim.name=muon", "--optim.lr=0.01", "--eval.every=120",
                 "--model.dropout=0", "--eval.sample-every=0") == 0  # fmt: skip
    run = json.loads(Path("runs/learns/run.json").read_text())
    best = min(column("learns", "val/loss"))
    assert best < run["bigram_loss"] - 0.2


def test_an_earlier_run_is_set_aside(place, capsys):
    assert start("twice", "--max-steps=10") == 0
    marker = Path("runs/twice/marker")
    marker.write_text("kept")
    assert start("twice", "--max-steps=10") == 0
    assert "an earlier run was here; it is in runs/twice.1 now" in capsys.readouterr().out
    assert Path("runs/twice.1/marker").read_text() == "kept"
    assert not marker.exists()


def test_a_run_that_cannot_start_leaves_the_earlier_one_where_it_is(place):
    assert start("kept", "--max-steps=2") == 0
    before = {path: path.read_bytes() for path in Path("runs/kept").rglob("*") if path.is_file()}
    Path("binary.txt").write_bytes(b"abc\0" * 100)
    for wrong in (
        ["--data.path=gone.txt"],
        ["--data.path=binary.txt"],
        ["--data.tokenizer=gone"],
        ["--init-from=gone"],
        ["--eval.hellaswag-every=1", "--eval.hellaswag-path=gone"],
    ):
        for name in ("kept", "new"):
            assert start(name, "--max-steps=2", *wrong) == 1
    assert {path: path.read_bytes() for path in Path("runs/kept").rglob("*") if path.is_file()} == before
    assert [path.name for path in Path("runs").iterdir() if not path.name.startswith(".")] == ["kept"]


def test_a_run_that_went_further_is_not_resumed_to_an_earlier_end(place, capsys):
    assert start("far", "--max-steps=4") == 0
    before = Path("runs/far/config.json").read_bytes()
    capsys.readouterr()
    assert train("--resume", "runs/far", "--max-steps=3") == 2
    assert capsys.readouterr().err == "groundup: runs/far is at step 4, beyond max_steps 3\n"
    assert Path("runs/far/config.json").read_bytes() == before


def test_a_run_that_had_ended_says_nothing_twice(place):
    assert start("over", "--max-steps=4") == 0
    before = rows("over")
    assert sum("sample" in row for row in before) == 1
    assert train("--resume", "runs/over") == 0
    assert rows("over") == before


def test_a_run_that_had_ended_and_went_on_is_what_it_is_now(place):
    """`--max-hours` stops it after two steps: what is measured is step 6, until its end is reached and model/ made."""
    assert start("more", "--max-steps=4") == 0
    assert train("--resume", "runs/more", "--max-steps=8", "--max-hours=1e-7") == 0
    assert load_model("runs/more").info == {"step": 6}
    assert main(["eval", "runs/more", "--tasks", "val"]) == 0
    assert read_results(Path("runs/more"))["val"]["step"] == 6
    assert train("--resume", "runs/more", "--max-hours=0") == 0
    loaded = load_model("runs/more")
    assert loaded.path == Path("runs/more/model")
    assert loaded.info["run_step"] == 8


def test_a_run_that_began_on_a_busy_machine_may_have_more_threads_later(place):
    def threads():
        return load_json(last_checkpoint("a") / "training.json")["state"]["resolved"]["threads"]

    assert start("a", "--max-steps=10") == 0
    assert threads() == 1
    assert train("--resume", "runs/a", "--max-steps=20", "--runtime.threads=2") == 0
    assert threads() == 2
    torch.set_num_threads(1)
    assert train("--resume", "runs/a", "--max-steps=30") == 0
    assert threads() == 2


@pytest.mark.fault(
    "D4", "the same run twice on a CPU, one thread each", "weights, moments and generators: the same bytes"
)
def test_saved_config_starts_the_same_run_again(place):
    assert start("first", "--max-steps=10") == 0
    assert train("--config", "runs/first/config.json", "--name=second") == 0
    for name in ("model.safetensors", "training.safetensors"):
        ends = [last_checkpoint(run) / name for run in ("first", "second")]
        assert ends[0].read_bytes() == ends[1].read_bytes(), name


@pytest.mark.fault(
    "E1",
    "SIGINT or SIGTERM to a run in a process of its own",
    "the step where it stops is saved; exit code 130 or 143; --resume goes on",
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_run_goes_on(place, number):
    arguments = ["shakespeare", "--data.path=text.txt", *FLAGS, "--name=stopped", "--max-steps=100000"]
    process = in_new_process(*arguments, wait=False)
    until(lambda: len(rows("stopped")) > 3 if Path("runs/stopped/metrics.jsonl").exists() else False)
    process.send_signal(number)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 128 + number, output
    assert "continue with: groundup train --resume runs/stopped" in output
    step = int(last_checkpoint("stopped").name.removeprefix("step-"))
    assert f"stopped at step {step} of 100000, saved" in output
    assert train("--resume", "runs/stopped", f"--max-steps={step + 3}") == 0
    assert last_checkpoint("stopped").name == f"step-{step + 3:07d}"


@pytest.mark.fault(
    "A12",
    "groundup train in the folder of a run that goes on",
    "exit code 1, with the process that holds it",
)
def test_a_second_run_in_the_folder_is_refused(place, capsys):
    arguments = ["shakespeare", "--data.path=text.txt", *FLAGS, "--name=busy", "--max-steps=100000"]
    process = in_new_process(*arguments, wait=False)
    try:
        until(lambda: Path("runs/busy/run.json").exists())
        assert start("busy", "--max-steps=10") == 1
        assert f"runs/busy is in use by another run (process {process.pid} on" in capsys.readouterr().err
        assert train("--resume", "runs/busy") == 1
    finally:
        process.kill()
        process.communicate()
    # The lock of a killed process is free at once.
    assert start("busy", "--max-steps=10") == 0


@pytest.mark.fault("D1", "SIGKILL of a run", "it resumes from its last checkpoint, and no step is logged twice")
def test_a_killed_run_resumes_from_its_last_checkpoint(place, capsys):
    arguments = ["shakespeare", "--data.path=text.txt", *FLAGS, "--name=killed", "--max-steps=100000"]
    process = in_new_process(*arguments, wait=False)
    until(lambda: len(checkpoints("killed")) >= 2)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    step = int(last_checkpoint("killed").name.removeprefix("step-"))
    assert train("--resume", "runs/killed", f"--max-steps={step + 5}") == 0
    assert f"resumed at step {step} " in capsys.readouterr().out
    steps = [r["step"] for r in rows("killed") if "train/loss" in r]
    assert steps == sorted(set(steps))


@pytest.mark.fault("E3", "a learning rate that makes NaN", "one line names the step and says what to do")
@pytest.mark.parametrize(
    ("flags", "rates"),
    [
        (["--optim.name=adamw", "--optim.lr=1e30"], "--optim.lr"),
        (["--optim.name=muon", "--optim.muon-lr-ratio=1e30"], "--optim.lr or --optim.muon-lr-ratio"),
    ],
)
def test_nan_stops_before_the_weights(flags, rates, place, capsys):
    assert start("nan", "--max-steps=50", *flags, "--optim.grad-clip=0", "--optim.warmup-steps=0") == 1
    error = capsys.readouterr().err
    assert error.startswith("groundup: step ")
    assert f"a lower {rates} or more --optim.warmup-steps; or, where a checkpoint was saved, go on" in error
    assert "--resume and --guard.nonfinite skip" in error
    assert error.count("\n") == 1


@pytest.mark.fault(
    "E3",
    "weights that give NaN at the end, under guard.nonfinite skip",
    "no sample between and at the end, a report, and one line that says what to do; code 1",
)
def test_a_run_that_ends_with_nan_says_so_and_leaves_its_report(place, capsys):
    flags = ["--max-steps=6", "--optim.lr=1e30", "--guard.nonfinite=skip", "--eval.every=6", "--eval.sample-every=3"]
    assert start("nan", *flags) == 1
    printed, error = capsys.readouterr()
    assert "step 3: no sample: the model's logits are not numbers" in printed
    assert " none" in printed
    assert "what to try next" not in printed
    assert error.splitlines()[-1].startswith("groundup: no last sample, and runs/nan/model is of no use: the model's")
    assert "Begin again with a lower --optim.lr" in error
    assert Path("runs/nan/report.html").is_file()
    assert rows("nan")[-1]["val/loss"] is None


@pytest.mark.fault(
    "D5", "another learning rate or other data at --resume; no run to resume", "refused in words that name it"
)
def test_resume_refuses_another_run(place, capsys):
    assert start("kept", "--max-steps=10") == 0
    assert train("--resume", "runs/kept", "--optim.lr=0.5") == 2
    assert "optim.lr cannot change" in capsys.readouterr().err
    assert train("--resume", "runs/none") == 1
    assert "holds no run to resume" in capsys.readouterr().err
    (place / "text.txt").write_text("other words entirely, again and again\n" * 300)
    assert train("--resume", "runs/kept", "--max-steps=12") == 1
    assert "the data is not what this run was trained on" in capsys.readouterr().err


EDITS = [
    ("optim", "lr", 0.1), ("optim", "average", 0.5), ("optim", "warmup_steps", 7), ("model", "n_head", 4),
    ("model", "activation", "relu"), ("model", "rope_base", 500.0), ("model", "dropout", 0.3),
    ("runtime", "precision", "bf16"), ("seed", 5),
]  # fmt: skip


@pytest.mark.fault(
    "D5",
    "config.json of a run is edited, and the run resumed; also with run.json edited alike",
    "refused in one line with both values; what a checkpoint holds (shape, seed, rate) is compared with it, too",
)
def test_resume_refuses_an_edited_config(place, capsys):
    assert start("kept", "--max-steps=4") == 0
    before = {name: load_json(Path(f"runs/kept/{name}.json")) for name in ("config", "run")}

    def edit(values, *way_and_value):
        *way, key, value = way_and_value
        place = values
        for name in way:
            place = place[name]
        old, place[key] = place[key], value
        return old

    def refused(edited, old):
        *way, value = edited
        capsys.readouterr()
        assert train("--resume", "runs/kept", "--max-steps=6") == 2
        line = capsys.readouterr().err
        key = ".".join(way)
        assert line.startswith(
            f"groundup: a resumed run keeps its settings: {key} is {value} in runs/kept/config.json and"
        )
        assert f" {old} in runs/kept/" in line
        assert line.endswith("; set it back, or start a new run with --config runs/kept/config.json --name NEW\n")
        assert line.count("\n") == 1
        assert [row["step"] for row in rows("kept")][-1] == 4

    for edited in EDITS:
        config, facts = copy.deepcopy(before["config"]), copy.deepcopy(before["run"])
        old = edit(config, *edited)
        Path("runs/kept/config.json").write_text(json.dumps(config))
        refused(edited, old)
        if edited[0] == "model" or edited[-2] in ("lr", "seed"):
            edit(facts["config"], *edited)
            Path("runs/kept/run.json").write_text(json.dumps(facts))
            refused(edited, old)
            Path("runs/kept/run.json").write_text(json.dumps(before["run"]))
    before["config"]["eval"]["every"] = 2
    Path("runs/kept/config.json").write_text(json.dumps(before["config"]))
    assert train("--resume", "runs/kept", "--max-steps=6") == 0


@pytest.mark.fault(
    "A4",
    "groundup train --resume with a damaged newest checkpoint",
    "says which it skips and why, and goes on from the one before",
)
def test_a_damaged_newest_checkpoint_is_skipped_by_name(place, capsys):
    assert start("hurt", "--max-steps=20") == 0
    newest = last_checkpoint("hurt") / "training.safetensors"
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    assert train("--resume", "runs/hurt", "--max-steps=25") == 0
    printed = capsys.readouterr().out
    assert re.search(r"skipped step-0000020: .*training\.safetensors is damaged: its SHA-256", printed)
    assert "resumed at step 10" in printed


@pytest.mark.fault(
    "D6",
    "the file that a run's tokenizer came from is gone, or the run has been moved",
    "evaluation, --dry-run and --resume use the run's own; config.json names what was asked for",
)
def test_a_run_is_whole_in_its_folder(place, capsys):
    assert main(["tokenizer", "train", "text.txt", "--vocab-size=300", "--out=b.json"]) == 0
    assert start("whole", "--max-steps=4", "--data.tokenizer=b.json") == 0
    assert main(["eval", "runs/whole"]) == 0
    measured = read_results(Path("runs/whole"))["val"]
    datasets = sorted(path.name for path in Path("data").iterdir())
    Path("b.json").unlink()
    assert main(["eval", "runs/whole"]) == 0
    assert train("--resume", "runs/whole", "--max-steps=6") == 0
    assert load_json(Path("runs/whole/config.json"))["data"]["tokenizer"] == "b.json"
    Path("runs/whole").rename("elsewhere")
    Path("b.json").write_text("another file by now")
    assert main(["eval", "elsewhere"]) == 0
    assert read_results(Path("elsewhere"))["val"]["data"] == measured["data"]
    capsys.readouterr()
    assert train("--resume", "elsewhere", "--max-steps=8", "--dry-run") == 0
    assert "300" in capsys.readouterr().out
    assert train("--resume", "elsewhere", "--max-steps=8") == 0
    assert main(["export", "elsewhere", "exported", "--format=groundup"]) == 0
    assert sorted(path.name for path in Path("data").iterdir()) == datasets


def test_a_session_that_the_clock_ends_is_gone_on_with_by_the_same_words(place, capsys):
    """As a notebook's one cell does it in session after session."""
    words = ["--resume-or-start", "--max-hours=1e-7", "--max-steps=5"]
    for step in (2, 4):  # the clock is heard after a step, and the next one is the last
        assert start("sessions", *words) == 0
        assert f"stopped at step {step} of 5 (--max-hours 1e-07), saved" in capsys.readouterr().out
        assert Path("runs/sessions/report.html").is_file()
        assert not Path("runs/sessions/model").exists()
    assert start("sessions", *words) == 0
    assert "resumed at step 4" in capsys.readouterr().out
    assert Path("runs/sessions/model/config.json").is_file()
    assert [path.name for path in Path("runs").iterdir() if path.is_dir()] == ["sessions"]
    assert start("whole", "--max-steps=5") == 0
    losses = {name: column(name, "train/loss") for name in ("sessions", "whole")}
    assert losses["sessions"][-1] == losses["whole"][-1]
