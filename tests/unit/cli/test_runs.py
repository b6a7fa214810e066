import json
import subprocess
import sys

import pytest

from groundup.cli.main import main
from groundup.config.io import dump_json, to_dict
from groundup.config.presets import RECIPES


def folder(path, *, lr=3e-3, steps=20, made=20, best=1.5, model=True, scores=None, extra="", resolved=None):
    """A run of `made` of `steps` steps of 100 tokens and half a second."""
    path.mkdir(parents=True)
    config = to_dict(RECIPES["shakespeare"]) | {"max_steps": steps, "name": path.name}
    config["optim"]["lr"] = lr
    rows = [{"step": 0, "tokens": 0, "seconds": 0.0, "val/loss": 4.0, "val/bpb": 6.0}]
    for step in range(10, made + 1, 10):
        place = {"step": step, "tokens": 100 * step, "seconds": step / 2}
        rows.append({**place, "train/loss": 2.0, "perf/mfu": 0.25, "perf/tokens_per_sec": 200.0})
        rows.append({**place, "val/loss": best + 20 - step, "val/bpb": 2.25})
    facts = {
        "groundup": "0.1.0", "started": "2026-01-01", "command": "groundup train", "parameters": 801_664,
        "machine": {"device": "Xeon"}, "resolved": {"vocab_size": 65, "precision": "fp32", **(resolved or {})},
    }  # fmt: skip
    (path / "config.json").write_text(dump_json(config))
    (path / "run.json").write_text(dump_json(facts))
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + extra)
    if model:
        (path / "model").mkdir()
    if scores:
        (path / "eval.json").write_text(dump_json(scores))
    return path


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def runs(capsys, *words):
    assert main(["runs", *map(str, words)]) == 0
    return capsys.readouterr()


def cells(printed):
    """Rows of a table: first cell to the others."""
    lines = [[cell.strip() for cell in line.split("   ") if cell.strip()] for line in printed.splitlines()]
    return {line[0]: line[1:] for line in lines if line}


def error_of(capsys, code, *words):
    assert main(["runs", *map(str, words)]) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    return printed.err.removeprefix("groundup: ").rstrip("\n")


def test_list(place, capsys):
    folder(place / "runs/good")
    folder(place / "runs/[bold]", best=1.25, steps=2000, made=10, model=False)
    folder(place / "runs/hurt", made=0, model=False, extra='{"step": 10, "tok')
    (place / "runs" / "notes").mkdir()
    printed = runs(capsys, "list")
    table = cells(printed.out)
    assert table["name"] == ["model", "params", "steps", "tokens", "best val loss", "tokens/s", "state"]
    assert table["good"] == ["4L 4H 128C 128T", "802k", "20", "2k", "1.5000", "200", "finished"]
    assert table["[bold]"] == [
        "4L 4H 128C 128T",
        "802k",
        "10/2,000",
        "1k",
        "11.2500",
        "200",
        "crashed",
    ]  # of step 10: random weights are not kept
    assert table["hurt"] == ["4L 4H 128C 128T", "802k", "0/20", "0", "4.0000", "-", "crashed"]
    assert "notes" not in table
    assert printed.err == "groundup: 1 damaged line of runs/hurt/metrics.jsonl left out\n"
    assert runs(capsys, "list", "runs").out == printed.out
    assert set(cells(runs(capsys, "list", place / "runs/good").out)) >= {"good", "name"}


def test_an_empty_folder_has_no_runs(place, capsys):
    (place / "runs").mkdir()
    assert runs(capsys, "list").out == "there is no run in runs\n"


def test_compare(place, capsys):
    scores = {"tasks": {"hellaswag": {"acc_norm": 0.30129}}}
    folder(place / "a", scores=scores)
    folder(place / "b", lr=0.00001, steps=10, made=10, best=-8.75, resolved={"precision": "bf16"})
    table = cells(runs(capsys, "compare", "a", "b").out)
    assert table["best val loss"] == ["1.5000 at 20", "1.2500 at 10"]
    assert table["bits per byte"] == ["2.2500", "2.2500"]
    assert table["training time"] == ["10 s", "5 s"]
    assert table["MFU"] == ["25.0%", "25.0%"]
    assert table["tasks.hellaswag.acc_norm"] == ["0.3013", "-"]
    assert table["optim.lr"] == ["0.003", "1e-05"]
    assert table["max_steps"] == ["20", "10"]
    assert table["resolved.precision"] == ["fp32", "bf16"]
    assert not {"name", "seed", "optim.min_lr_ratio", "machine.device"} & set(table)


def test_runs_that_are_the_same_have_no_differences(place, capsys):
    folder(place / "a")
    folder(place / "b")
    printed = runs(capsys, "compare", "a", "b").out
    assert "differ" not in printed
    assert "scores" not in printed


@pytest.mark.parametrize("x", ["tokens", "time", "flops"])
def test_plot(place, capsys, x):
    folder(place / "a")
    folder(place / "b")
    printed = runs(capsys, "plot", "a", "b", "--x", x, "--out", "loss.png")
    assert printed.out == "drew 2 runs in loss.png\n"
    assert (place / "loss.png").read_bytes().startswith(b"\x89PNG\r\n")


@pytest.mark.parametrize(
    ("code", "words", "line"),
    [
        (1, ["list", "none"], "cannot list runs in none: No such file or directory"),
        (2, ["plt"], "unknown action 'plt'; did you mean plot?"),
        (2, ["compare", "a"], "name at least two runs to compare, got 1 (see groundup runs compare --help)"),
        (2, ["plot", "--out", "x.png"], "name at least one run to draw (see groundup runs plot --help)"),
        (2, ["plot", "a", "--out", "x.pdf"], "out must end with .png, got x.pdf (see groundup runs plot --help)"),
        (1, ["plot", "a", "--out", "none/x.png"], "cannot write none/x.png: No such file or directory"),
        (1, ["compare", "a", "none"],
         "none is not a run folder: it holds neither run.json nor config.json and metrics.jsonl"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(place, capsys, code, words, line):
    folder(place / "a")
    assert error_of(capsys, code, *words) == line


def test_a_wrong_axis_names_the_right_ones(capsys):
    assert "'tokens', 'time', 'flops'" in error_of(capsys, 2, "plot", "a", "--x", "steps")


def test_no_torch_is_needed(place):
    folder(place / "a")
    folder(place / "b")
    code = (
        "import sys\nfrom groundup.cli.main import main\n"
        "for words in (['list', '.'], ['compare', 'a', 'b'], ['plot', 'a', 'b']):\n"
        "    assert main(['runs', *words]) == 0\n"
        "assert 'torch' not in sys.modules\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
