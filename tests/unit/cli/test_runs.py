import csv
import io
import json
import re
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


@pytest.mark.parametrize("words", [["list"], ["compare", "runs/a", "runs/b-of-a-long-name"]])
def test_no_line_ends_with_blanks(place, capsys, words):
    folder(place / "runs/a")
    folder(place / "runs/b-of-a-long-name", best=1.25)
    printed = runs(capsys, *words).out
    assert "1.2500" in printed
    assert printed.split("\n") == [line.rstrip() for line in printed.split("\n")]


def test_list(place, capsys):
    folder(place / "runs/good")
    folder(place / "runs/[bold]", best=1.25, steps=2000, made=10, model=False)
    folder(place / "runs/hurt", made=0, model=False, extra='{"step": 10, "tok')
    (place / "runs" / "notes").mkdir()
    printed = runs(capsys, "list")
    table = cells(printed.out)
    assert table["name"] == ["best val loss", "state", "steps", "tokens/s", "parameters", "tokens", "model"]
    assert table["good"] == ["1.5000", "finished", "20", "200", "802k", "2k", "4L 4H 128C 128T"]
    # Of step 10: random weights are not kept.
    assert table["[bold]"] == ["11.2500", "crashed", "10/2,000", "200", "802k", "1k", "4L 4H 128C 128T"]
    assert table["hurt"] == ["-", "crashed", "0/20", "-", "802k", "0", "4L 4H 128C 128T"]
    assert "notes" not in table
    assert printed.err == "groundup: 1 damaged line of runs/hurt/metrics.jsonl left out\n"
    assert runs(capsys, "list", "runs").out == printed.out
    assert set(cells(runs(capsys, "list", place / "runs/good").out)) >= {"good", "name"}


@pytest.mark.parametrize("words", [["list", "runs"], ["csv", "runs"], ["compare", "runs"], ["plot", "runs"]])
def test_a_run_that_cannot_be_read_is_left_out_by_name(place, capsys, words):
    for name in ("a", "b", "c"):
        folder(place / "runs" / name)
    (place / "runs/b/metrics.jsonl").unlink()
    (place / "runs/b/metrics.jsonl").mkdir()
    printed = runs(capsys, *words)
    assert printed.err == "groundup: left out: cannot read runs/b/metrics.jsonl: it is not a file\n"
    assert "drew 2 runs" in printed.out or {"a", "c"} <= set(printed.out.replace(",", " ").split())
    assert "it is not a file" in error_of(capsys, 1, words[0], "runs/b")


@pytest.mark.parametrize(
    ("by", "names"),
    [
        ("name", ["a", "b", "none"]),
        ("loss", ["b", "a", "none"]),
        ("speed", ["a", "b", "none"]),
        ("started", ["a", "b", "none"]),
    ],
)
def test_list_sorts(place, capsys, by, names):
    folder(place / "runs/a", best=1.5)
    folder(place / "runs/b", best=1.25)
    (folder(place / "runs/none", made=0) / "metrics.jsonl").write_text("")
    printed = runs(capsys, "list", "--sort", by).out
    assert [name for name in cells(printed) if name in names] == names


@pytest.mark.parametrize(("width", "left_out"), [(200, []), (80, ["model"]), (60, ["parameters", "tokens", "model"])])
def test_names_stay_whole_on_a_narrow_terminal(place, capsys, monkeypatch, width, left_out):
    name = "a-name-of-25-characters-ok"
    folder(place / "runs" / name[: width // 3])
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(width))
    printed = re.sub(r"\x1b\[\d*m", "", runs(capsys, "list").out)
    assert max(len(line) for line in printed.splitlines() if "wider" not in line) <= width
    assert name[: width // 3] in printed
    assert all(title not in printed.splitlines()[1] for title in left_out)
    assert ("a wider terminal also shows" in printed) == bool(left_out)


def test_csv_has_every_number_of_every_run(place, capsys):
    folder(place / "a")
    folder(place / "b", made=10, extra='{"step": 10, "kept_step": 5, "sample": "a, b"}\n')
    printed = runs(capsys, "csv", "a", "b").out
    rows = list(csv.DictReader(io.StringIO(printed)))
    assert [row["run"] for row in rows] == ["a"] * 5 + ["b"] * 3
    assert list(rows[0]) == [
        "run", "step", "tokens", "seconds", "val/loss", "val/bpb", "train/loss", "perf/mfu", "perf/tokens_per_sec",
    ]  # fmt: skip
    assert (rows[1]["train/loss"], rows[1]["val/loss"], rows[2]["val/loss"]) == ("2.0", "", "11.5")
    assert runs(capsys, "csv", "a", "b", "--out", "all.csv").out == "wrote 8 rows of 2 runs to all.csv\n"
    assert (place / "all.csv").read_text() == printed


def test_any_metric_can_be_drawn_in_any_format(place, capsys):
    folder(place / "a")
    runs(capsys, "plot", "a", "--y", "perf/mfu", "--x", "steps", "--smooth", "3", "--out", "mfu.svg")
    assert "perf/mfu" in (place / "mfu.svg").read_text()
    runs(capsys, "plot", "a", "--out", "loss.pdf")
    assert (place / "loss.pdf").read_bytes().startswith(b"%PDF")
    said = error_of(capsys, 1, "plot", "a", "--y", "perf/mfuu")
    assert said == "nothing to draw: a logged no perf/mfuu; did you mean perf/mfu?"


def test_an_empty_folder_has_no_runs(place, capsys):
    (place / "runs").mkdir()
    assert runs(capsys, "list").out == "there is no run in runs\n"


def test_compare(place, capsys):
    scores = {"version": 1, "tasks": {"hellaswag": {"acc_norm": 0.30129, "model": "3bc3", "seconds": 2.0, "step": 8}}}
    folder(place / "a", scores=scores)
    folder(place / "b", lr=0.00001, steps=10, made=10, best=-8.75, resolved={"precision": "bf16"})
    table = cells(runs(capsys, "compare", "a", "b").out)
    assert table["best val loss"] == ["1.5000 at 20", "1.2500 at 10"]
    assert table["bits per byte"] == ["2.2500", "2.2500"]
    assert table["training time"] == ["10 s", "5 s"]
    assert table["MFU"] == ["25.0%", "25.0%"]
    assert table["tasks.hellaswag.acc_norm"] == ["0.3013", "-"]
    assert table["tasks.hellaswag.step"] == ["8", "-"]
    assert not {"version", "tasks.hellaswag.model", "tasks.hellaswag.seconds"} & set(table)
    assert table["optim.lr"] == ["0.003", "1e-05"]
    assert table["max_steps"] == ["20", "10"]
    assert table["resolved.precision"] == ["fp32", "bf16"]
    assert not {"name", "seed", "optim.min_lr_ratio", "machine.device"} & set(table)


@pytest.mark.parametrize(("width", "tables"), [(80, [3, 3, 2]), (50, [1] * 8), (500, [8])])
def test_many_runs_are_compared_in_several_tables_whose_keys_are_whole(place, capsys, monkeypatch, width, tables):
    names = [f"run-{i}" for i in range(8)]
    for i, name in enumerate(names):
        path = folder(place / "runs" / name, lr=0.001 * i, resolved={"matmul": "one" if i else "one-of-a-long-name"})
        facts = json.loads((path / "run.json").read_text())
        (path / "run.json").write_text(
            dump_json(facts | {"data_fingerprint": f"{i}" * 64, "groundup": f"0.1.{i} (0a)"})
        )
    in_a_pipe = cells(runs(capsys, "compare", "runs").out)
    assert in_a_pipe["best val loss"] == ["1.5000 at 20"] * 8
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.delenv("TERM", raising=False)
    printed = re.sub(r"\x1b\[\d*m", "", runs(capsys, "compare", "runs").out)
    assert max(map(len, printed.splitlines())) <= width
    printed = printed.replace("\n", " \n")  # so that blanks stand around each word
    heads = [line.split() for line in printed.splitlines() if "run-" in line]
    assert [len(head) for head in heads] == tables
    assert [name for head in heads for name in head] == names
    keys = [key for key in in_a_pipe if re.match("[a-zA-Z]", key) and key != "run-0"]
    assert len(keys) == 17
    assert {key: printed.count(f" {key} ") for key in keys} == dict.fromkeys(keys, len(tables))
    words = set(printed.split())
    assert {f"{0.001 * i:.4g}" for i in range(1, 8)} | {"1.5000", "finished", "128T"} <= words
    assert words >= {500: {f"{'0' * 12}...{'0' * 25}", "one-of-a-long-name"}}.get(
        width, {"0000...00000000", "one-...ong-name"}
    )


def test_runs_that_are_the_same_have_no_differences(place, capsys):
    folder(place / "a")
    folder(place / "b")
    printed = runs(capsys, "compare", "a", "b").out
    assert "differ" not in printed
    assert "scores" not in printed


@pytest.mark.parametrize("x", ["steps", "tokens", "time", "flops"])
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
        (2, ["plot", "a", "--out", "x.gif"],
         "out must end with .png, .svg, .pdf, got x.gif (see groundup runs plot --help)"),
        (1, ["plot", "a", "--out", "none/x.png"], "cannot write none/x.png: there is no folder none"),
        (1, ["compare", "a", "none"], "none does not exist; give the folder of a run"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(place, capsys, code, words, line):
    folder(place / "a")
    assert error_of(capsys, code, *words) == line


def test_a_wrong_axis_names_the_right_ones(capsys):
    assert "'steps', 'tokens', 'time', 'flops'" in error_of(capsys, 2, "plot", "a", "--x", "days")


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
