"""The drawing of the rooms and the tables of floors are what imports and the linter's contract give."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def rooms():
    spec = importlib.util.spec_from_file_location("rooms", ROOT / "docs/rooms.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_drawing_is_that_of_the_imports(rooms):
    assert (ROOT / "docs/images/rooms.svg").read_text("utf-8") == rooms.drawing(), "run: python docs/rooms.py"


def test_imports_are_found_wherever_they_stand(rooms):
    sources = {
        "a/x.py": "from groundup.b.y import z\nfrom groundup import c\n",
        "b/y.py": "def f():\n    import groundup.c.w\n    from groundup.b import y\n",
        "c/__init__.py": "import torch\n",
        "__main__.py": "from groundup.a.x import z\n",
    }
    assert rooms.imports(sources) == {"a": {"b", "c"}, "b": {"c"}, "c": set()}
    assert rooms.essential({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == {"a": {"b"}, "b": {"c"}, "c": set()}


@pytest.mark.parametrize("document", ["CONTRIBUTING.md", "docs/how/index.md"])
def test_the_table_of_floors_is_the_contract(document, rooms):
    text = (ROOT / document).read_text("utf-8")
    table = {
        int(floor): set(re.findall(r"\b[a-z]+(?=/`|\]\()", names))
        for floor, names in re.findall(r"^\| (\d+) \| ([^|]*) \|", text, re.MULTILINE)
    }
    floors = rooms.floors((ROOT / "pyproject.toml").read_text("utf-8"))
    assert table == {i + 1: set(row) for i, row in enumerate(floors)}


def test_files_beside_those_of_others_have_about_the_lines_that_are_told():
    page = ROOT / "docs/how/index.md"
    told = re.findall(r"\]\((\S+\.py)\), (\d+)", page.read_text("utf-8"))
    assert len(told) >= 8
    for path, lines in told:
        n_lines = len((page.parent / path).read_text("utf-8").splitlines())
        assert abs(n_lines - int(lines)) <= 0.1 * n_lines, f"{path} has {n_lines} lines, not {lines}"
