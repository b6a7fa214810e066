"""The table of faults says what the tests say."""

import ast
import functools
import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "faults.md"


def rows():
    for line in PAGE.read_text(encoding="utf-8").splitlines() if PAGE.exists() else []:
        if re.match(r"\| [A-Z]\d+ \|", line):
            cells = [
                cell.strip().replace("\\|", "|").replace("&lt;", "<") for cell in re.split(r"(?<!\\)\|", line)[1:-1]
            ]
            yield pytest.param(*cells[:4], id=f"{cells[0]} {cells[3].strip('`')}")


@functools.cache
def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def markers(test):
    """The arguments of every fault marker on a test, among its decorators."""
    path, *names = test.split("::")
    nodes = tree_of(ROOT / path).body
    for name in names:
        found = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name]
        assert len(found) == 1, f"{path} has no {name}"
        nodes = found[0].body
    calls = [
        node for decorator in found[0].decorator_list for node in ast.walk(decorator) if isinstance(node, ast.Call)
    ]
    return [
        [ast.literal_eval(argument) for argument in call.args]
        for call in calls
        if ast.unparse(call.func) == "pytest.mark.fault"
    ]


@pytest.mark.parametrize(("number", "fault", "promise", "test"), list(rows()))
def test_a_row_is_what_its_test_says(number, fault, promise, test):
    assert [number, fault, promise] in markers(test.strip("`"))


def test_the_table_is_not_empty():
    ids = {row.values[0] for row in rows()}
    assert {f"A{n}" for n in range(1, 9)} <= ids
    assert {"B1", "B2", "B3", "B4"} <= ids


@pytest.fixture
def report():
    """The plugin that writes the table; a test run has it only when it is asked for."""
    spec = importlib.util.spec_from_file_location("faults_report", ROOT / "tests" / "faults_report.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_id_stands_for_one_family_of_faults(report):
    """Whoever marks a test takes an id of the table in tests/faults_report.py, or adds one there."""
    used = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.fault":
                used.setdefault(ast.literal_eval(node.args[0]), []).append(f"{path}:{node.lineno}")
    assert {name: places for name, places in used.items() if name not in report.FAMILIES} == {}
    assert set(report.FAMILIES) == set(used)
    assert {name[0] for name in used} == set(report.LETTERS)
    assert len(set(report.FAMILIES.values())) == len(report.FAMILIES)


def test_rows_of_other_calls_are_kept(report):
    rows = {
        ("A1", "a | b", "<script>", "tests/x.py::test"): ["3 of 3", "20 of 20 kills"],
        ("B2", "d", "e", "t"): [],
    }
    assert report.rows_of(report.table(rows)) == rows


def test_a_tag_in_a_row_is_text_in_the_page(report):
    assert "&lt;script>" in report.table({("A1", "writes <script>", "nothing runs", "tests/x.py::test"): []})
    assert not re.findall(r"<[a-z]", PAGE.read_text(encoding="utf-8"))
