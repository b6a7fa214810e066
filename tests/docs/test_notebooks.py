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


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_it_runs_from_top_to_bottom(path, monkeypatch):
    monkeypatch.setattr("jupyter_client.launcher.Popen", ForkedPopen)
    notebook = execute(path)
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    warnings = [output.text for output in outputs if output.get("name") == "stderr"]
    assert not warnings
    shown = [output["data"].get("text/plain", "") for output in outputs if output.output_type == "execute_result"]
    verdicts = [text for text in shown if re.match(r"[\w -]+: (right|not yet)(\n|$)", text)]
    assert len(verdicts) == len(checked(path))
    word = "not yet" if path in LESSONS else "right"
    assert all(f": {word}\n" in text for text in verdicts)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_the_committed_notebook_was_made_from_its_source(path):
    assert differences(path) == []


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
