"""The notebooks of runs/ for Kaggle and Colab: valid, made from their sources, and full of commands that are right."""

import json
import re
import runpy
from pathlib import Path

import pytest
from tools.build import read_source

from groundup.cli.main import main

RUNS = Path(__file__).parents[2] / "runs"
SOURCES = sorted(RUNS.glob("*.py"))


def settings(notebook):
    """The names that its first cells give values, as the shell lines use them."""
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    return {name: value.strip('"') for name, value in re.findall(r'^([A-Z_]+) = ("[^"]*"|\d+)', code, re.MULTILINE)}


def shell_lines(notebook):
    """Every `!` line, continued ones joined, names in braces replaced by their values."""
    values = settings(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            for line in cell.source.replace("\\\n", " ").splitlines():
                if line.startswith("!"):
                    yield re.sub(r"\{(\w+)\}", lambda name: values[name[1]], line[1:])


@pytest.fixture(params=SOURCES, ids=lambda path: path.stem)
def source(request):
    return request.param


def test_the_notebook_is_made_from_its_source(source):
    wanted = [(cell.cell_type, cell.source) for cell in read_source(source).cells]
    made = json.loads(source.with_suffix(".ipynb").read_text("utf-8"))
    assert [(cell["cell_type"], "".join(cell["source"])) for cell in made["cells"]] == wanted
    assert not [cell for cell in made["cells"] if cell.get("outputs")], "we have no such machine to make outputs on"


def test_the_notebook_is_valid(source):
    import nbformat

    notebook = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            plain = "\n".join(line for line in cell.source.replace("\\\n", " ").splitlines() if line[:1] != "!")
            compile(plain, source.name, "exec")


def _at_home(line):
    """A line with the places of a machine of ours."""
    places = {"/content/drive/MyDrive/groundup": "runs", "/kaggle/temp/fineweb-edu": "data/fineweb-edu"}
    line = line.replace("--name gpt2", "--name new")  # the run that is furnished has another size
    line = line.removeprefix("test /kaggle/temp/text != /kaggle/temp/text || ")
    for there, here in places.items():
        line = line.replace(there, here)
    return line.replace("/kaggle/temp/text", "data/text")


def test_every_shell_line_is_understood(source, understand, furnished, monkeypatch):
    monkeypatch.chdir(furnished)
    lines = [_at_home(line) for line in shell_lines(read_source(source))]
    assert {"doctor", "prepare", "train", "generate", "export"} <= {
        word for line in lines for word in line.split() if "groundup" in line
    }
    for line in lines:
        understand(line)


def test_kaggle_trains_two_ranks_in_fp16(understand, capsys):
    line = next(line for line in shell_lines(read_source(RUNS / "kaggle_2xt4.py")) if line.startswith("torchrun"))
    config = understand(line)
    assert "--nproc_per_node 2" in line
    assert (config.runtime.precision, config.runtime.parallel) == ("fp16", "ddp")
    assert config.micro_steps(2) == 8
    assert config.optim.name == "adamw"
    words = line.split(" -m groundup ")[1].split()
    assert main([*words, "--dry-run"]) == 0
    assert "124,439,808" in capsys.readouterr().out


WHEEL = "groundup-0.1.0-py3-none-any.whl"


@pytest.mark.parametrize("what", [(WHEEL,), (WHEEL, "rich-15.0.0-py3-none-any.whl"), ("pyproject.toml",)])
def test_kaggle_takes_what_lies_among_read_only_inputs(what, tmp_path, monkeypatch):
    """The cell that installs, run as it is, with the places of Kaggle below a temporary folder and pip only noted."""
    inputs, repo = tmp_path / "input", tmp_path / "input/mine/main"
    lie = [repo / name for name in (*what, "runs/train_1gpu.sh")]
    later = "after/runs/gpt2/checkpoints/step-000010/a.json"  # of two sessions, the run that went further is taken
    swept = "sweep-x/seed=1/checkpoints/step-000010/a.json", "sweep-x/seed=1/config.json", "sweep-x/seed=2/config.json"
    more = "sweep-x/seed=2/checkpoints/step-000005/a.json"
    runs = [inputs / name for name in ("before/runs/gpt2/config.json", "after/runs/gpt2/config.json", later)]
    runs += [inputs / place / name for place in ("after/runs", "before/runs") for name in swept]
    runs += [inputs / "before/runs" / more]
    for file in (*lie, inputs / "other/pyproject.toml", *runs):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text('name = "groundup"' if file.parent == repo else "{}")
    for place in (*inputs.rglob("*"), inputs):
        place.chmod(0o555 if place.is_dir() else 0o444)
    source = next(cell.source for cell in read_source(RUNS / "kaggle_2xt4.py").cells if "def install" in cell.source)
    (tmp_path / "temp").mkdir()
    script = tmp_path / "cell.py"
    script.write_text('SOURCE = ""\n' + source.replace("/kaggle/", f"{tmp_path}/"))
    asked = []
    monkeypatch.setattr("subprocess.run", lambda words, check: asked.append(words[3:]))
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(script))
    copied = {str(file.relative_to("runs")) for file in Path("runs").rglob("*.*")}
    assert copied == {"gpt2/config.json", "gpt2/checkpoints/step-000010/a.json", *swept, more}
    place = f"{repo}/{WHEEL}" if WHEEL in what else f"{tmp_path}/temp/groundup"
    assert asked[0][-1] == f"{place}[data,fast,offline]"
    Path("runs/gpt2/config.json").chmod(0o644)
    Path("runs/gpt2/config.json").write_text("gone on")
    runpy.run_path(str(script))  # run all again, in one session
    assert Path("runs/gpt2/config.json").read_text() == "gone on"
    assert ("--no-index" in asked[0]) == (len(what) > 1)  # where wheels lie beside it, no internet is asked
    for folder in inputs.rglob("*"):
        folder.chmod(0o755)


@pytest.mark.parametrize("what", [WHEEL, "groundup/pyproject.toml"])
def test_colab_takes_what_lies_on_the_drive(what, tmp_path, monkeypatch):
    (tmp_path / what).parent.mkdir(exist_ok=True)
    (tmp_path / what).write_text("")
    source = next(cell.source for cell in read_source(RUNS / "colab.py").cells if "def install" in cell.source)
    script = tmp_path / "cell.py"
    script.write_text(f'SOURCE, RUNS = "", "{tmp_path}"\n{source}')
    asked = []
    monkeypatch.setattr("subprocess.run", lambda words, check: asked.append(words[-1]))
    runpy.run_path(str(script))
    place = tmp_path / WHEEL if what == WHEEL else tmp_path / "groundup"
    assert asked == [f"{place}[data,fast,offline]"]
    (tmp_path / what).unlink()
    with pytest.raises(SystemExit, match="put the wheel of groundup"):
        runpy.run_path(str(script))
