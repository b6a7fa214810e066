import json

import pytest
from rich.console import Console
from tools.build import build, differences, main, read_source, sources

from groundup.config.errors import UsageError, UserError

SOURCE = """# %% [markdown]
# # A title

# %%
print(1)
print(2)

# %%
1 + 1
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "solutions").mkdir()
    (tmp_path / "a.py").write_text(SOURCE)
    (tmp_path / "solutions" / "a.py").write_text(SOURCE)
    (tmp_path / "b.py").write_text("# %%\nraise ValueError('no luck')\n")
    return tmp_path


def test_lessons_come_before_solutions_and_can_be_named(folder):
    assert sources(folder) == [folder / "a.py", folder / "b.py", folder / "solutions" / "a.py"]
    assert sources(folder, ["a"]) == [folder / "a.py", folder / "solutions" / "a.py"]
    with pytest.raises(UsageError, match="'c'"):
        sources(folder, ["c"])


def test_cell_ids_follow_from_contents_and_are_distinct(folder):
    (folder / "a.py").write_text(SOURCE + "\n# %%\n1 + 1\n")
    ids = [cell.id for cell in read_source(folder / "a.py").cells]
    (folder / "a.py").write_text(SOURCE.replace("A title", "Another"))
    others = [cell.id for cell in read_source(folder / "a.py").cells]
    assert len(set(ids)) == 4
    assert ids[1:3] == others[1:]
    assert ids[0] != others[0]


def test_build_writes_outputs_and_nothing_that_changes_by_itself(folder):
    built = folder / "a.ipynb"
    build([folder / "a.py"], Console(quiet=True))
    cells = json.loads(built.read_text())["cells"]
    assert [output["text"] for output in cells[1]["outputs"]] == [["1\n", "2\n"]]
    assert cells[2]["outputs"][0]["data"] == {"text/plain": ["2"]}
    assert [cell["metadata"] for cell in cells] == [{}, {}, {}]
    assert differences(folder / "a.py") == []


def test_differences_are_told(folder):
    source, built = folder / "a.py", folder / "a.ipynb"
    assert "is missing" in differences(source)[0]
    notebook = read_source(source)
    built.write_text(json.dumps(notebook))
    assert differences(source) == [f"{built} was not executed from top to bottom"]
    source.write_text(SOURCE.replace("print(2)", "print(3)"))
    assert f"{built} was made from another source" in differences(source)
    notebook.cells[1]["outputs"] = [{"output_type": "stream", "name": "stderr", "text": "careful"}]
    built.write_text(json.dumps(notebook))
    assert "careful" in differences(source)[-1]


def test_a_cell_that_fails_is_told_and_nothing_is_written(folder):
    with pytest.raises(UserError, match="no luck"):
        build([folder / "b.py"], Console(quiet=True))
    assert not (folder / "b.ipynb").exists()


@pytest.mark.parametrize("words", [[], ["bake"], ["build", "nothing"]])
def test_wrong_usage(words, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert main(words) == 2
    assert capsys.readouterr().out
