"""Runs that are started from the page: real ones, of `groundup train`."""

import glob
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from forked import ForkedPopen
from groundup.cli import train
from groundup.playground.trainings import SIZES, StartBody, _command, _Training
from groundup.serving.models import Models
from groundup.tokenizer.char import CharTokenizer
from groundup.tokenizer.io import tokenizer_json
from small_runs import plays


def wait_for(ask, seconds=240):
    deadline = time.monotonic() + seconds
    while not (found := ask()):
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.1)
    return found


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A run on a small text, as a person made it."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "text.txt").write_text(plays(200))
    words = ["shakespeare", "--data.source=text", f"--data.path={folder / 'text.txt'}", "--name=base", "--max-steps=2"]
    flags = ["--model.n-layer=1", "--model.n-head=2", "--model.n-embd=16", "--model.block-size=32"]
    more = ["--tokens-per-step=128", "--runtime.micro-batch-size=4", "--optim.warmup-steps=1", "--runtime.threads=1"]
    more += ["--runtime.compile=off", "--runtime.matmul=default"]
    where = f"--out-dir={folder / 'runs'}"
    command = [sys.executable, "-m", "groundup", "train", *words, *flags, *more, where]
    assert ForkedPopen(command, stdout=subprocess.DEVNULL).wait(240) == 0
    return folder / "runs" / "base"


@pytest.fixture
def client(base, serve):
    return serve(Models([base]))


def begin(client, **body):
    return client.post("/api/train", json={"recipe": "same", "size": "tiny", "seed": 1} | body)


@pytest.mark.slow
def test_a_run_is_started_watched_stopped_and_nothing_of_it_is_lost(client, base):
    assert client.get("/api/train").json()["possible"]
    answer = begin(client, steps=5000)
    assert answer.status_code == 201, answer.text
    name = answer.json()["name"]
    assert (base.parent / name).resolve().parent == base.parent.resolve()
    second = begin(client, steps=20)
    assert (second.status_code, second.json()["error"]["code"]) == (409, "already_training")

    def growing():
        runs = {run["name"]: run for run in client.get("/api/runs").json()["runs"]}
        if name not in runs or (runs[name]["step"] or 0) < 4:
            return None
        return client.get(f"/api/steps?model={name}").json()["steps"]

    steps = wait_for(growing)
    assert steps[:3] == [0, 1, 2]
    looked = client.post("/api/surprise", json={"model": f"{name}@1", "text": "the quick"})
    assert looked.status_code == 200, looked.text
    assert client.post("/api/train/stop", json={}).json()["state"] == "stopping"
    told = wait_for(lambda: (t := client.get("/api/train").json()["training"])["exit_code"] is not None and t)
    assert (told["state"], told["said"]) == ("stopped", None)
    run = client.get(f"/api/run?model={name}").json()
    assert (run["state"], run["max_steps"]) == ("stopped", 5000)
    saved = max(int(path.name[5:]) for path in (base.parent / name / "checkpoints").iterdir())
    assert saved == run["step"] > 0
    assert client.post("/api/train/stop", json={}).status_code == 409


@pytest.mark.slow
@pytest.mark.fault(
    "F10", "the server ends while a run that was started from the page goes on", "the run saves and ends"
)
def test_the_end_of_the_server_saves_the_run(base, serve, tmp_path):
    client = serve(Models([base]))
    name = begin(client, steps=5000).json()["name"]
    wait_for((base.parent / name / "growth" / "step-0000004").exists)
    trainings = client.app.app.routes[-2].endpoint.__wrapped__.__self__
    trainings.close()
    assert client.get(f"/api/run?model={name}").json()["state"] == "stopped"
    assert list((base.parent / name / "checkpoints").iterdir())


@pytest.mark.slow
def test_a_run_that_cannot_start_says_why(serve, base):
    config = base / "config.json"
    kept = config.read_text()
    config.write_text(kept.replace("text.txt", "nothing.txt"))
    try:
        client = serve(Models([base]))
        assert begin(client, steps=10).status_code == 201
        told = wait_for(lambda: (t := client.get("/api/train").json()["training"])["exit_code"] is not None and t)
    finally:
        config.write_text(kept)
    assert told["state"] == "failed"
    assert "nothing.txt" in told["said"]


@pytest.mark.parametrize("path", ["text.txt", "*.txt", "."])
@pytest.mark.parametrize(
    ("more", "rate"),
    [
        ({}, "0.0005"),
        ({"init_from": "runs/base", "data": {"tokenizer": "runs/base/model/tokenizer.json"}}, "0.003"),
        ({"init_from": "runs/base", "lora": {"rank": 96}}, "0.003"),
        ({"model": {"kind": "modern", "n_layer": 2, "n_head": 6, "n_kv_head": 3, "n_inner": 100}}, "0.0005"),
    ],
)
def test_text_and_settings_of_any_run_fit_all_sizes_from_any_folder(tmp_path, monkeypatch, capsys, more, rate, path):
    run = tmp_path / "place [ab]" / "runs" / "mine"
    (run.parent / "base" / "model").mkdir(parents=True)
    alphabet = tokenizer_json(CharTokenizer(sorted(set(plays(30)))))
    (run.parent / "base" / "model" / "tokenizer.json").write_text(alphabet)
    (run.parents[1] / "text.txt").write_text(plays(30))
    run.mkdir()
    settings = {"name": "mine", "optim": {"name": "adamw", "lr": 0.0005}, "tokens_per_step": 12 * 64} | more
    settings["model"] = {"block_size": 64} | more.get("model", {"kind": "gpt", "n_layer": 2, "n_head": 4, "n_embd": 96})
    settings["data"] = {"source": "text", "path": path} | more.get("data", {})
    (run / "config.json").write_text(json.dumps(settings))
    monkeypatch.chdir(tmp_path)
    for size, (n_layer, n_head, n_embd) in SIZES.items():
        words = _command(StartBody(recipe="same", size=size), run.parent, run)
        home = str(run.parents[1])  # of a glob, its brackets are none
        assert f"--data.path={Path(glob.escape(home) if '*' in path else home) / path}" in words
        assert train.main([*words, "--name=new", "--dry-run"]) == 0
        told = capsys.readouterr().out
        assert f"{n_layer} layers, {n_head} heads, {n_embd} wide" in told
        assert f"learning rate    {rate}," in told


@pytest.mark.parametrize(
    ("end", "state", "said"),
    [
        ("sys.exit(0)", "finished", None),
        ("sys.exit(143)", "stopped", None),
        ("sys.exit(130)", "stopped", None),
        ("sys.exit(129)", "stopped", None),
        ("sys.exit('no text')", "failed", "no text"),
        ("sys.exit(1)", "failed", None),
        ("sys.exit(200)", "failed", None),
        ("os.kill(os.getpid(), signal.SIGTERM)", "failed", "killed by SIGTERM"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "failed", "killed by SIGKILL (out of memory?)"),
    ],
)
def test_only_a_run_that_took_a_request_to_stop_is_stopped(end, state, said):
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen([sys.executable, "-c", f"import os, signal, sys; {end}"], stderr=errors)
        process.wait()
        facts = _Training("page-1", process, errors).facts()
    assert (facts["state"], facts["said"]) == (state, said)


@pytest.mark.parametrize(
    "body",
    [
        {"size": "huge"},
        {"size": ["tiny"]},
        {"steps": 9},
        {"steps": 5001},
        {"steps": "10"},
        {"seed": -1},
        {"recipe": "/etc/passwd"},
        {"recipe": "gpt2-fineweb"},
    ],
)
def test_what_is_not_in_the_tables_is_refused(serve, run, body):
    before = sorted(run.parent.iterdir())
    answer = begin(serve(Models([run])), **body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, next(iter(body)))
    assert sorted(run.parent.iterdir()) == before


def test_without_a_run_nothing_can_be_started(serve, models):
    client = serve(models)
    assert not client.get("/api/train").json()["possible"]
    assert begin(client).json()["error"]["code"] == "no_runs"


@pytest.mark.slow
@pytest.mark.fault("F10", "SIGKILL of a server beside whose run another one is trained", "the run saves and ends, too")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells children of a death")
def test_a_killed_server_leaves_no_training_behind(base):
    code = """
import os, subprocess, sys, time
from pathlib import Path
from groundup.playground.trainings import _begin
words = ["--config", sys.argv[1] + "/config.json", "--out-dir=" + os.path.dirname(sys.argv[1]), "--max-steps=5000"]
training = _begin("orphan", words)
print(training.process.pid, flush=True)
time.sleep(100)
"""
    parent = subprocess.Popen([sys.executable, "-c", code, str(base)], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    wait_for((base.parent / "orphan" / "growth" / "step-0000004").exists)
    parent.kill()
    parent.wait()

    def gone():
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return True
        with open(f"/proc/{child}/stat") as stat:  # noqa: PTH123
            return stat.read().rsplit(")", 1)[1].split()[0] == "Z"

    wait_for(gone)
    assert list((base.parent / "orphan" / "checkpoints").iterdir())  # it was asked to stop, and saved
