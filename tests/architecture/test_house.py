"""The rules of the house that no linter knows."""

import ast
import functools
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from groundup.cli.bench import BENCHES
from groundup.files import layout

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
ROOMS = sorted(path.parent for path in (ROOT / "src/groundup").glob("*/__init__.py"))
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}


def relative(path):
    return path.relative_to(ROOT).as_posix()


@functools.cache
def tree_of(path):
    return ast.parse(path.read_text())


def test_files_are_short_enough_to_read_in_one_sitting():
    assert not [relative(path) for path in SOURCES if len(path.read_text().splitlines()) > 400]


@pytest.mark.parametrize("room", ROOMS, ids=lambda path: path.name)
def test_a_room_holds_one_trade(room):
    """A room above 2,000 lines holds two trades: split it."""
    assert sum(len(path.read_text().splitlines()) for path in room.rglob("*.py")) <= 2000


def test_functions_are_short():
    for path in SOURCES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.body[-1].end_lineno - node.lineno < 60, f"{relative(path)}: {node.name} is too long"


def test_nothing_is_pickled_or_evaluated():
    for path in SOURCES:
        for node in ast.walk(tree_of(path)):
            assert not unsafe(node), f"{relative(path)}, line {node.lineno}: {ast.unparse(node)}"


def unsafe(node):
    """Whether a node imports what unpickles, calls what evaluates, or loads what may be a pickle."""
    if isinstance(node, ast.Import):
        return bool({alias.name.split(".")[0] for alias in node.names} & FORBIDDEN_MODULES)
    if isinstance(node, ast.ImportFrom):
        return (node.module or "").split(".")[0] in FORBIDDEN_MODULES
    if not isinstance(node, ast.Call):
        return False
    given = {keyword.arg: keyword.value for keyword in node.keywords}
    match ast.unparse(node.func):
        case "torch.load":
            safe = given.get("weights_only")
            return not isinstance(safe, ast.Constant) or safe.value is not True
        case "np.load" | "numpy.load":
            return "allow_pickle" in given
        case name:
            return name in FORBIDDEN_CALLS


@pytest.mark.parametrize(
    "line",
    [
        "import pickle", "import os, joblib", "from dill import loads", "eval('1')", "exec('1')", "torch.load(path)",
        "torch.load(path, weights_only=False)", "torch.load(path, weights_only=safe)",
        "np.load(path, allow_pickle=True)",
    ],
)  # fmt: skip
def test_what_is_unsafe_is_seen(line):
    assert any(map(unsafe, ast.walk(ast.parse(line))))
    assert not any(map(unsafe, ast.walk(ast.parse("import json\ntorch.load(path, weights_only=True)\nnp.load(path)"))))


def rebound(tree):
    """Lines that rebind a global: by `global`, or as an attribute of something that was imported.

    Options of a library are what its attributes are for (`torch.backends...`, `sys.stdout`, hooks of `sys`); ours have
    arguments.
    """
    lines = []
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
            library = ast.unparse(target).startswith(("torch.backends.", "sys.std", "sys.unraisablehook"))
            if isinstance(target.ctx, ast.Store | ast.Del) and isinstance(root, ast.Name) and not library:
                lines += [target.lineno] if root.id in imported else []
    return lines


def test_no_global_state_is_rebound():
    assert not [f"{relative(path)}, line {line}" for path in SOURCES for line in rebound(tree_of(path))]


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
    assert rebound(ast.parse(head + line))
    assert not rebound(ast.parse(head + "self.limit = loader.LIMIT\n    x.y = 3\n    torch.backends.cuda.x = 1"))


FOREIGN = ("interop", "export")
"""Rooms that write and read the folders of other programs, whose names are not ours."""


def test_files_of_a_run_are_named_once():
    """In `files/layout.py`: a name in a path elsewhere is one that a change would miss."""
    ours = {value for name, value in vars(layout).items() if name.isupper() and isinstance(value, str)}
    for path in SOURCES:
        if path.parent.name in FOREIGN or path.name == "layout.py":
            continue
        for node in ast.walk(tree_of(path)):
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


def test_a_model_has_one_door():
    """`hidden` and `logits`: only code for programs that know no other model asks whether it is a GPT."""
    for path in SOURCES:
        for node in ast.walk(tree_of(path)) if path.parent.name != "interop" else ():
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance":
                assert ast.unparse(node.args[1]) != "GPT", f"{relative(path)}, line {node.lineno}"


def test_no_function_of_pytorch_means_something_else_while_a_model_computes():
    """The one function mode keeps `empty_model` from drawing (docs/adr/0019-meta-models-draw-nothing.md)."""
    text = {relative(path): path.read_text() for path in SOURCES}
    assert [name for name in text if "FunctionMode" in text[name]] == ["src/groundup/model/build.py"]
    assert text["src/groundup/model/build.py"].count("_NoInit()") == 1


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


def test_help_and_wrong_flags_of_every_command_load_no_torch():
    """Of commands with a second word, such as `groundup bench train`, too: the help of the first lists them."""
    code = (
        "import contextlib, io, re, sys\nfrom groundup.cli.main import COMMANDS, main\n"
        "def walk(words):\n"
        "    printed, wrong = io.StringIO(), io.StringIO()\n"
        "    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):\n"
        "        main([*words, '--help'])\n"
        "    with contextlib.redirect_stderr(wrong):\n"
        "        assert main([*words, '--zzz']) == 2, words\n"
        "    assert wrong.getvalue().count('\\n') == 1, wrong.getvalue()\n"
        "    assert 'torch' not in sys.modules, words\n"
        "    print(printed.getvalue().splitlines()[0])\n"
        "    table = re.match(r'usage: groundup \\w+ (\\w+(?:[|]\\w+)+) ', printed.getvalue())\n"
        "    for name in table[1].split('|') if table else ():\n"
        "        walk([*words, name])\n"
        "for command in COMMANDS:\n"
        "    walk([command])\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    for words in ("scaling", "runs csv", "tokenizer show", "data sample", *(f"bench {name}" for name in BENCHES)):
        assert f"usage: groundup {words} [" in result.stdout, result.stdout


def test_a_case_or_a_device_that_is_not_there_loads_no_torch(tmp_path):
    device = "cuda" if sys.platform == "darwin" else "mps"
    (tmp_path / "notes.txt").write_text("some words of a person\n" * 500)
    commands = {
        "bench gpu --only NOSUCH": 2,
        f"bench train --device {device}": 1,
        f"bench ablation --device {device}": 1,
        f"scaling --device {device}": 1,
        f"plan shakespeare --runtime.device {device}": 1,
        f"train shakespeare --runtime.device {device}": 1,
        f"train notes.txt --runtime.device {device}": 1,
    }
    code = (
        "import contextlib, io, sys\nfrom groundup.cli.main import main\n"
        f"for words, code in {commands!r}.items():\n"
        "    wrong = io.StringIO()\n"
        "    with contextlib.redirect_stderr(wrong):\n"
        "        assert main(words.split()) == code, words\n"
        "    assert wrong.getvalue().count('\\n') == 1, wrong.getvalue()\n"
        "    assert 'torch' not in sys.modules, words\n"
        "    print(wrong.getvalue(), end='')\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    case, *devices = result.stdout.splitlines()
    assert "no case has 'NOSUCH' in its name; there are 124M; " in case
    assert {line.split("; ")[0] for line in devices} == {
        f"groundup: this machine has no {device} device that PyTorch can use"
    }
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_every_module_imports_silently():
    """Nothing happens at import: no output, no thread, no changed default. Of two orders, so that of any two modules
    each is once imported before the other; before each, nothing of ours is there."""
    names = [
        relative(p).removeprefix("src/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for p in SOURCES
        if p.stem != "__main__"
    ]
    code = (
        "import importlib, sys, threading, torch\n"
        "before = (torch.get_default_dtype(), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())\n"
        f"names = {sorted(names)!r}\n"
        "for order in (names, names[::-1]):\n"
        "    for name in [name for name in sys.modules if name.startswith('groundup')]: del sys.modules[name]\n"
        "    for name in order: importlib.import_module(name)\n"
        "after = (torch.get_default_dtype(), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled())\n"
        "assert before == after, (before, after)\n"
        "assert threading.active_count() == 1\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_every_public_name_is_documented():
    missing = []
    for path in SOURCES:
        tree = tree_of(path)
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


def test_tests_that_are_done_are_not_counted_again():
    pytest.importorskip("xdist")
    from one_process import OneProcess

    workload = {"done": {"a": True, "b": True}, "begun": {"c": True, "d": False}, "next": {"e": False}}
    assert OneProcess._pending_of(OneProcess.__new__(OneProcess), workload) == 2
    assert list(workload) == ["begun", "next"]


def test_every_file_that_is_no_code_is_in_the_wheel():
    """The page, the report and the kernels: setuptools takes what these patterns match."""
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["groundup"]
    package = ROOT / "src" / "groundup"
    taken = {path for pattern in data for path in package.glob(pattern)}
    kept = {path for path in package.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc", ".so")}
    assert len(kept) > 40
    assert sorted(kept - taken) == []
