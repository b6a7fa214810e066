"""What looks on at a run, through the command line: it changes nothing, and shows what happened."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from forked import ForkedPopen
from groundup.cli.main import main
from small_runs import rows

FLAGS = [
    "--data.source=text", "--data.path=text.txt", "--model.n-layer=1", "--model.n-head=2", "--model.n-embd=16",
    "--model.block-size=16", "--model.dropout=0.1", "--tokens-per-step=128", "--runtime.micro-batch-size=4",
    "--runtime.threads=1", "--runtime.compile=off", "--eval.every=10", "--eval.sample-every=10",
    "--eval.sample-tokens=10", "--checkpoint.every=10", "--log-every=5",
]  # fmt: skip


@pytest.fixture
def place(tmp_path, monkeypatch, short_ends) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("".join(f"the {i} foxes jump over {i * i} dogs\n" for i in range(500)))
    return tmp_path


def test_looking_on_changes_nothing_and_shows_everything(place, capsys):
    pytest.importorskip("tensorboard")
    assert main(["train", "shakespeare", *FLAGS, "--name=plain", "--max-steps=20"]) == 0
    assert main(["train", "shakespeare", *FLAGS, "--name=watched", "--max-steps=20", "--profile",
                 "--log.tensorboard"]) == 0  # fmt: skip
    printed = capsys.readouterr().out
    plain, watched = (Path("runs") / name / "checkpoints" / "step-0000020" for name in ("plain", "watched"))
    for file in ("model.safetensors", "training.safetensors"):
        assert (plain / file).read_bytes() == (watched / file).read_bytes()

    assert "profiled 5 steps" in printed
    assert "time: forward and backward" in printed
    page = Path("runs/watched/report.html").read_text()
    assert "Where the time went" in page
    trace = json.loads(Path("runs/watched/profile/trace.json").read_text())
    steps = {event["name"] for event in trace["traceEvents"] if str(event.get("name")).startswith("ProfilerStep#")}
    assert len(steps) == 5
    assert any(event.get("name") == "aten::mm" for event in trace["traceEvents"])
    # Which operations are the largest depends on the load.
    assert "5 steps of " in Path("runs/watched/profile/summary.txt").read_text()
    assert list(Path("runs/watched/tensorboard").glob("events.out.tfevents.*"))
    for name in ("data_ms", "forward_backward_ms", "optimizer_ms"):
        assert all(row[f"perf/{name}"] > 0 for row in rows("watched") if "train/loss" in row)

    assert main(["runs", "compare", "runs/plain", "runs/watched"]) == 0
    settings = capsys.readouterr().out.split("settings that differ")[1].split("machines that differ")[0]
    assert [line.split()[0] for line in settings.splitlines() if line.strip()] == ["profile", "log.tensorboard"]
    assert main(["runs", "plot", "runs/plain", "runs/watched", "--x=flops"]) == 0
    assert Path("runs.png").is_file()


@pytest.mark.parametrize(
    ("number", "state"), [(signal.SIGTERM, "stopped"), pytest.param(signal.SIGKILL, "crashed", marks=pytest.mark.slow)]
)
def test_the_list_says_how_a_run_ended(place, capsys, number, state):
    words = ["train", "shakespeare", *FLAGS, "--name=it", "--max-steps=100000"]
    process = ForkedPopen([sys.executable, "-m", "groundup", *words], stdout=subprocess.DEVNULL)
    metrics = Path("runs/it/metrics.jsonl")
    end = time.monotonic() + 240
    while not (metrics.exists() and metrics.read_text().count("\n") > 3) and time.monotonic() < end:
        time.sleep(0.05)
    assert state_of("it", capsys) == "running"
    process.send_signal(number)
    process.communicate(timeout=240)
    assert state_of("it", capsys) == state


def state_of(name, capsys):
    assert main(["runs", "list"]) == 0
    (words,) = [line.split() for line in capsys.readouterr().out.splitlines() if line.split()[:1] == [name]]
    return next(word for word in words if word in ("running", "finished", "stopped", "crashed"))


@pytest.mark.parametrize("flag", ["--log.tensorboard", "--log.wandb=offline"])
def test_a_missing_package_is_told_before_anything_is_touched(place, capsys, monkeypatch, flag):
    assert main(["train", "shakespeare", *FLAGS, "--name=kept", "--max-steps=2"]) == 0
    capsys.readouterr()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["train", "shakespeare", *FLAGS, "--name=kept", "--max-steps=2", flag]) == 1
    printed = capsys.readouterr()
    package = flag.removeprefix("--log.").split("=")[0]
    assert printed.err == f"groundup: --log.{package} needs {package}: pip install 'groundup[{package}]'\n"
    assert printed.out == ""
    assert [p.name for p in Path("runs").iterdir() if p.is_dir()] == ["kept"]


def test_a_service_that_refuses_leaves_the_earlier_run_in_its_place(place, capsys, monkeypatch, tmp_path):
    pytest.importorskip("wandb")
    for name in ("HOME", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert main(["train", "shakespeare", *FLAGS, "--name=kept", "--max-steps=2"]) == 0
    before = Path("runs/kept/metrics.jsonl").read_bytes()
    capsys.readouterr()
    assert main(["train", "shakespeare", *FLAGS, "--name=kept", "--max-steps=2", "--log.wandb=online"]) == 1
    assert "try `wandb login`, or --log.wandb offline" in capsys.readouterr().err
    assert Path("runs/kept/metrics.jsonl").read_bytes() == before
    assert [p.name for p in Path("runs").iterdir() if p.is_dir()] == ["kept"]
