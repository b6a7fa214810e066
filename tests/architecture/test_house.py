"""The rules of the house that no linter knows."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from groundup.files import layout

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
ROOMS = sorted(path.parent for path in (ROOT / "src/groundup").glob("*/__init__.py"))
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}


def relative(path):
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_file_is_short_enough_to_read_in_one_sitting(path):
    assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize("room", ROOMS, ids=lambda path: path.name)
def test_a_room_holds_one_trade(room):
    """A room above 2,000 lines holds two trades: split it."""
    assert sum(len(path.read_text().splitlines()) for path in room.rglob("*.py")) <= 2000


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_functions_are_short(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.body[-1].end_lineno - node.lineno < 60, f"{node.name} is too long"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_nothing_is_pickled_or_evaluated(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not {alias.name.split(".")[0] for alias in node.names} & FORBIDDEN_MODULES
        if isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in FORBIDDEN_MODULES
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                assert node.func.id not in FORBIDDEN_CALLS, f"line {node.lineno}"
            if isinstance(node.func, ast.Attribute) and ast.unparse(node.func) == "torch.load":
                safe = {k.arg: k.value for k in node.keywords}.get("weights_only")
                assert isinstance(safe, ast.Constant), f"line {node.lineno}: torch.load"
                assert safe.value is True, f"line {node.lineno}: torch.load"
            if isinstance(node.func, ast.Attribute) and ast.unparse(node.func) in ("np.load", "numpy.load"):
                allowed = {k.arg: k.value for k in node.keywords}.get("allow_pickle")
                assert allowed is None, f"line {node.lineno}"


def rebound(source):
    """Lines that rebind a global: by `global`, or as an attribute of something that was imported.

    Options of a library are what its attributes are for (`torch.backends...`, `sys.stdout`); ours have arguments.
    """
    tree, lines = ast.parse(source), []
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    imported = {(alias.asname or alias.name).split(".")[0] for node in imports for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            lines.append(node.lineno)
        targets = node.targets if isinstance(node, ast.Assign | ast.Delete) else [getattr(node, "target", None)]
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("setattr", "delattr"):
            targets = [ast.Attribute(node.args[0], "", ast.Store(), lineno=node.lineno)]
        elif not isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign | ast.Delete):
            continue
        for target in [inner for each in targets for inner in ast.walk(each) if isinstance(inner, ast.Attribute)]:
            root = target.value
            while isinstance(root, ast.Attribute):
                root = root.value
            library = ast.unparse(target.value).startswith("torch.backends") or ast.unparse(target).startswith(
                "sys.std"
            )
            if isinstance(target.ctx, ast.Store | ast.Del) and isinstance(root, ast.Name) and not library:
                lines += [target.lineno] if root.id in imported else []
    return lines


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_no_global_state_is_rebound(path):
    assert not rebound(path.read_text())


@pytest.mark.parametrize(
    "line",
    [
        "global x",
        "loader.LIMIT = 3",
        "loader.LIMIT += 3",
        "loader.inner.LIMIT = 3",
        "Loader.limit: int = 3",
        "a, loader.LIMIT = 1, 2",
        "del loader.LIMIT",
        "setattr(loader, 'LIMIT', 3)",
        "np.random.x = 3",
    ],
)
def test_rebinding_is_seen(line):
    head = "import numpy as np\nfrom data import loader, Loader\nimport torch\ndef f(self, x):\n    "
    assert rebound(head + line)
    assert not rebound(head + "self.limit = loader.LIMIT\n    x.y = 3\n    torch.backends.cuda.x = 1")


FOREIGN = ("interop", "export")
"""Rooms that write and read the folders of other programs, whose names are not ours."""


def test_files_of_a_run_are_named_once():
    """In `files/layout.py`: a name in a path elsewhere is one that a change would miss."""
    ours = {value for name, value in vars(layout).items() if name.isupper() and isinstance(value, str)}
    for path in SOURCES:
        if path.parent.name in FOREIGN or path.name == "layout.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and isinstance(node.right, ast.Constant):
                assert node.right.value not in ours, f"{relative(path)}, line {node.lineno}: {node.right.value}"


def test_gpt2_is_one_page():
    page = (ROOT / "src/groundup/model/gpt.py").read_text()
    assert len(page.splitlines()) <= 200
    rooms = {
        node.module.split(".")[1]
        for node in ast.walk(ast.parse(page))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("groundup.")
    }
    assert rooms == {"config", "model"}


def test_no_drawer():
    assert not [relative(p) for p in SOURCES if p.stem in ("utils", "util", "helpers", "common", "misc")]


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["train", "--help"]])
def test_help_imports_no_torch(words):
    code = (
        "import sys\nfrom groundup.cli.main import main\n"
        f"status = main({words!r})\n"
        "heavy = {'torch', 'numpy', 'tyro', 'rich', 'matplotlib', 'transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy\nsys.exit(status)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "usage" in result.stdout or "groundup" in result.stdout


def test_every_module_imports_silently():
    """Nothing happens at import: no output, no thread, no changed default. Of two orders, so that of any two modules
    each is once imported before the other; each in a process that has PyTorch, and nothing of ours."""
    names = [
        relative(p).removeprefix("src/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for p in SOURCES
        if p.stem != "__main__"
    ]
    code = (
        "import importlib, os, sys, threading, torch, torch._dynamo\n"
        "def forked():\n"
        "    child = os.fork()\n"
        "    return child == 0 or os.waitpid(child, 0)[1] and sys.exit(1)\n"
        "assert not [name for name in sys.modules if name.startswith('groundup')]\n"
        "before = (torch.get_default_dtype(), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())\n"
        f"names = {sorted(names)!r}\n"
        "for name in names if forked() else names[::-1]: importlib.import_module(name)\n"
        "after = (torch.get_default_dtype(), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())\n"
        "assert before == after, (before, after)\n"
        "assert threading.active_count() == 1\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_every_public_name_is_documented():
    missing = []
    for path in SOURCES:
        tree = ast.parse(path.read_text())
        if path.stem != "__init__" and not ast.get_docstring(tree):
            missing.append(relative(path))
        for node in tree.body:
            public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
            overload = public and "overload" in [ast.unparse(decorator) for decorator in node.decorator_list]
            if public and not overload and not ast.get_docstring(node):
                missing.append(f"{relative(path)}: {node.name}")
    assert not missing


def test_tests_that_share_what_is_made_for_their_file_share_a_process():
    pytest.importorskip("xdist")
    from one_process import OneProcess

    one, other = "tests/docs/test_site.py::test_x[1]", "tests/docs/test_site.py::test_y"
    assert OneProcess._split_scope(None, one) == OneProcess._split_scope(None, other)
    one, other = "tests/unit/model/test_gpt.py::test_x[1]", "tests/unit/model/test_gpt.py::test_x[2]"
    assert OneProcess._split_scope(None, one) != OneProcess._split_scope(None, other)
