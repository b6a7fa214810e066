import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from groundup.cli.main import main
from groundup.data.dataset import TokenDataset
from groundup.tokenizer.base import END_OF_TEXT

ROOT = Path(__file__).parents[3]


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "corpus"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "b.jsonl").write_text("".join(json.dumps({"text": f"line {k}\n"}) + "\n" for k in range(500)))
    (folder / "a.txt").write_text("the first of all\n" * 20)
    (folder / "a.pdf").write_bytes(b"%PDF")
    (folder / ".hidden.txt").write_text("hidden")
    return tmp_path


def prepare(*words: str) -> int:
    return main(["prepare", *words, "--tokenizer=char", "--workers=1"])


def contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def test_a_folder_becomes_shards_and_a_summary(place, capsys):
    assert prepare("corpus", "out", "--shard-tokens=1000", "--val-rule=head", "--val-fraction=0.1") == 0
    out, err = capsys.readouterr()
    dataset = TokenDataset(Path("out"))
    documents = [(place / "corpus/a.txt").read_text(), *(f"line {k}\n" for k in range(500))]  # in the order of names
    tokens = "".join(f"{document}{END_OF_TEXT}" for document in documents)
    ids = [*dataset.split("val").read_all().tolist(), *dataset.split("train").read_all().tolist()]
    assert dataset.tokenizer().decode(ids) == tokens
    total = len("".join(documents)) + len(documents)
    assert f"train {total - total // 10:,} tokens" in out
    assert "bytes per token" in out
    assert "tokens/s" in out
    assert "tokenizing 1/1" in err
    assert "writing shards" in err
    assert "s left" in err


def test_again_is_at_once_and_other_settings_are_refused(place, capsys):
    assert prepare("corpus", "out") == 0
    before = contents("out")
    capsys.readouterr()
    assert prepare("corpus", "out") == 0
    out, err = capsys.readouterr()
    assert "tokens/s" not in out
    assert "1/" not in err
    assert prepare("corpus", "out", "--shard-tokens=999") == 1
    assert "made with other settings (shard_tokens: 100000000, now 999)" in capsys.readouterr().err
    with (place / "corpus/a.txt").open("a") as file:
        file.write("t")
    assert prepare("corpus", "out") == 1
    assert "made with other settings (files." in capsys.readouterr().err
    assert contents("out") == before


def test_a_moved_corpus_is_the_same_corpus(place, capsys):
    assert prepare("corpus", "out") == 0
    (place / "corpus").rename(place / "moved")
    os.utime(place / "moved/a.txt", (1, 1))
    assert prepare("moved", "out") == 0
    assert prepare("moved/**/*", "out2") == 1
    assert "cannot tell the format of a.pdf; files end with .txt" in capsys.readouterr().err
    assert prepare("moved/**/[ab].[tj]*", "out2") == 0
    assert contents("out") == contents("out2")


def test_a_small_validation_split_is_told(place, capsys):
    assert prepare("corpus/a.txt", "out", "--val-fraction=0.1") == 0
    tokens = TokenDataset(Path("out")).split("val").n_tokens
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("groundup: ")]
    told = f"the validation split has {tokens} tokens: its loss says little; use more text or a larger --val-fraction"
    assert lines == [f"groundup: {told}"]


def test_skipped_lines_are_in_the_summary(place, capsys):
    with (place / "corpus/deep/b.jsonl").open("a") as file:
        file.write('{"text": "cut\n{"id": 3}\n{"text": ""}\n')
    assert prepare("corpus", "out") == 0
    out = capsys.readouterr().out
    assert "skipped 1: line that is not JSON in b.jsonl" in out
    assert "skipped 1: record without text in b.jsonl" in out
    assert "skipped 1: empty document" in out


def test_processes_and_tasks_make_the_same_bytes(place, monkeypatch, capsys):
    monkeypatch.setattr("groundup.formats.spans.PART_BYTES", 1000)
    assert prepare("corpus", "whole", "--shard-tokens=700") == 0
    words = ["prepare", "corpus", "--tokenizer=char", "--shard-tokens=700"]
    assert main([*words, "crew", "--workers=2"]) == 0
    for task in range(3):
        capsys.readouterr()
        assert main([*words, "tasks", "--workers=1", f"--task-index={task}", "--task-count=3"]) == 0
        told = f"the share of task {task} is done; tasks is complete when all tasks are"
        assert (told in capsys.readouterr().out) is (task < 2)
    assert contents("whole") == contents("crew") == contents("tasks")
    assert len(contents("whole")) > 8


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["nowhere", "out"], 2, "'nowhere' is no file, folder or glob; name shakespeare, tiny-shakespeare"),
        (["fineweb", "out"], 2, "'fineweb' is no file, folder or glob; did you mean fineweb-edu?"),
        (["no*thing", "out"], 1, "no file matches"),
        (["empty", "out"], 1, "holds no files that end with .txt, .md, .jsonl"),
        (["corpus/a.pdf", "out"], 1, "cannot tell the format of a.pdf"),
        (["hf:nobody", "out"], 2, "a dataset of the Hub is OWNER/NAME or OWNER/NAME@REVISION, got 'nobody'"),
        (["corpus", "out", "--stream"], 2, "--subset, --split and --stream are for fineweb-edu and hf:OWNER/NAME"),
        (["corpus", "out", "--tokenizer=nix"], 1, "there is no tokenizer 'nix'"),
        (["corpus", "out", "--text-column=body"], 1, "b.jsonl: no record has the key 'body', its keys are text"),
        (["corpus", "out", "--workers=-1"], 2, "workers must be 0 (one per core) or more, got -1"),
        (["corpus", "out", "--workers=2", "--executor=ray"], 2, "--workers is for --executor processes"),
        (["corpus", "out", "--task-index=1"], 2, "--task-index and --task-count go together"),
        (["corpus", "out", "--task-index=3", "--task-count=3"], 2, "task 3 of 3 does not exist"),
        (["corpus", "out", "--shard-tokens=0"], 2, "shard_tokens must be at least 1, got 0"),
        (["corpus", "out", "--val-rule=tail"], 2, "--val-rule"),
        (["corpus"], 2, "OUT"),
        (["corpus", "corpus/a.txt"], 1, "corpus/a.txt is a file where a folder is needed"),
        (["corpus", "corpus"], 1, "corpus is no dataset, it holds a.pdf; choose an empty folder"),
    ],
)
def test_a_mistake_is_one_line(place, capsys, words, code, message):
    (place / "empty").mkdir()
    defaults = [flag for flag in ("--tokenizer=char",) if not any(w.startswith("--tokenizer") for w in words)]
    assert main(["prepare", *words, *defaults]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1
    assert err.startswith("groundup: ")


def test_interrupted_says_one_line_and_goes_on(place):
    """Ctrl-C in a terminal reaches all processes of the group, workers in their first moments among them."""
    (place / "a.txt").write_text("the text that is long enough to be caught in the middle\n" * 300_000)
    words = [sys.executable, "-m", "groundup", "prepare", "a.txt", "out", "--tokenizer=char", "--workers=2"]
    end = time.monotonic() + 240
    while True:
        process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True)
        while not any(Path("out", name).exists() for name in (".work", "index.json")) and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.15)
        os.killpg(process.pid, signal.SIGSTOP)
        if not (place / "out/index.json").exists():
            break
        os.killpg(process.pid, signal.SIGKILL)  # start over: the signal shall find it at work
        process.communicate(timeout=240)
        shutil.rmtree(place / "out")
    os.killpg(process.pid, signal.SIGINT)
    os.killpg(process.pid, signal.SIGCONT)
    _, err = process.communicate(timeout=240)
    # A slow machine tells of its reading first.
    assert (process.returncode, err.splitlines()[-1]) == (130, "groundup: interrupted; the same command goes on")
    assert prepare("a.txt", "out") == 0
    assert prepare("a.txt", "whole") == 0
    assert contents("out") == contents("whole")


def test_the_slurm_script_gives_each_task_its_share(place):
    script = str(ROOT / "runs" / "prepare_slurm.sh")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    words = ["bash", script, "corpus", "out", "--tokenizer=char"]
    refused = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "sbatch --array" in refused.stderr
    from_one = {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_MAX": "2"}
    refused = subprocess.run(words, env={**environment, **from_one}, capture_output=True, text=True, check=False)
    assert (refused.returncode, Path("out").exists()) == (2, False)
    assert "tasks count from 0" in refused.stderr
    for task in range(2):
        slurm = {"SLURM_ARRAY_TASK_ID": str(task), "SLURM_ARRAY_TASK_MAX": "1", "SLURM_CPUS_PER_TASK": "1"}
        done = subprocess.run(words, env={**environment, **slurm}, capture_output=True, text=True, check=True)
    assert "out: files" in done.stdout
    assert prepare("corpus", "alone") == 0
    assert contents("alone") == contents("out")
