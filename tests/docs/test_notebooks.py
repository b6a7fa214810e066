"""Notebooks run from top to bottom without network, solutions pass, and what is committed was made from its source."""

import json
import re
from pathlib import Path

import pytest
from tools.build import differences, execute, sources

from forked import ForkedPopen
from groundup.learn.exercises import exercises

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
SOURCES = sources(NOTEBOOKS)
LESSONS = [path for path in SOURCES if path.parent == NOTEBOOKS]


def name_of(path):
    return path.relative_to(NOTEBOOKS).with_suffix("").as_posix()


def checked(path):
    """The names of the exercises that a source calls a check for."""
    return re.findall(r'^check\("([^"]+)"', path.read_text("utf-8"), re.MULTILINE)


SMALLER = {
    "bigram": {
        "lr=50, n_steps=2000": "lr=50, n_steps=200",
        "lr=0.3, n_steps=2000": "lr=0.3, n_steps=200",
        "orders = range(7)": "orders = range(4)",
    },
    "build_gpt": {
        "max_steps=700": "max_steps=40",
        "every=100, max_tokens=16_384": "every=40, max_tokens=4096",
        "val[-1][1] < bigram_loss - 0.3": "val[-1][1] < val[0][1] - 1",
        "max_new_tokens=250": "max_new_tokens=25",
    },
    "gpt2": {
        "max_steps=400": "max_steps=20",
        "max_steps=160": "max_steps=10",
        "EvalConfig(every=40,": "EvalConfig(every=5, max_tokens=1024,",
        "range(0, 800, 4)": "range(0, 80, 4)",
        "batch_size=16, max_tokens=16_384": "batch_size=16, max_tokens=2048",
        "max_new_tokens=120": "max_new_tokens=12",
    },
    "inference": {
        "max_steps=260": "max_steps=20",
        "=300, sampling=SamplingConfig(temperature=temp": "=60, sampling=SamplingConfig(temperature=temp",
        "for _ in range(8)": "for _ in range(1)",
        "for _ in range(60)": "for _ in range(3)",
    },
    "tokenization": {"vocab_size=8192": "vocab_size=2048"},
    "training": {
        "n_embd=256, block_size=64": "n_embd=64, block_size=64",
        "STEPS, MICRO_STEPS, CPU = 160": "STEPS, MICRO_STEPS, CPU = 24",
    },
}
"""Of each lesson, what takes its time, and what takes less and runs the same code."""


def runs_through(path, *, smaller):
    notebook = execute(path, smaller=smaller)
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    warnings = [output.text for output in outputs if output.get("name") == "stderr"]
    assert not warnings
    shown = [output["data"].get("text/plain", "") for output in outputs if output.output_type == "execute_result"]
    verdicts = [text for text in shown if re.match(r"[\w -]+: (right|not yet)(\n|$)", text)]
    assert len(verdicts) == len(checked(path))
    word = "not yet" if path in LESSONS else "right"
    assert all(f": {word}\n" in text for text in verdicts)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_it_runs_from_top_to_bottom(path, monkeypatch):
    """Lessons with fewer steps and two plays, in kernels that need no time to start."""
    monkeypatch.setattr("jupyter_client.launcher.Popen", ForkedPopen)
    runs_through(path, smaller=SMALLER[path.stem] if path in LESSONS else None)


@pytest.mark.slow
@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_it_runs_as_it_is(path):
    runs_through(path, smaller=None)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_the_committed_notebook_was_made_from_its_source(path):
    assert differences(path) == []


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_each_picture_is_said_in_words(path):
    cells = json.loads(path.with_suffix(".ipynb").read_text("utf-8"))["cells"]
    pictures = [cell for cell in cells for out in cell.get("outputs", ()) if "image/png" in out.get("data", {})]
    said = {cell["metadata"].get("alt", "") for cell in pictures}
    assert len(said - {""}) == len(pictures)


@pytest.mark.parametrize("path", LESSONS, ids=name_of)
def test_lesson_and_solutions_have_all_exercises(path):
    solutions = NOTEBOOKS / "solutions" / path.name
    names = exercises(path.stem).names
    assert checked(path) == names
    assert checked(solutions) == names
    assert f'check = exercises("{path.stem}")' in path.read_text("utf-8")
    assert f'check = exercises("{path.stem}", strict=True)' in solutions.read_text("utf-8")


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_nothing_of_the_machine_is_kept(path):
    text = path.with_suffix(".ipynb").read_text("utf-8")
    assert not re.search(r"/(?:home|root|tmp|work|Users|usr)/", text)
    assert not any("execution" in cell["metadata"] for cell in json.loads(text)["cells"])


def test_there_are_no_notebooks_without_a_source():
    built = {path.relative_to(NOTEBOOKS).with_suffix("") for path in NOTEBOOKS.rglob("*.ipynb")}
    assert built == {path.relative_to(NOTEBOOKS).with_suffix("") for path in SOURCES}
