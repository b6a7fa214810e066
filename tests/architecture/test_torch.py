"""What is imported from PyTorch when a module of ours is: nothing that is newer than the lowest version we allow."""

import ast
import functools
from pathlib import Path

import pytest

from forked import output_of

ROOT = Path(__file__).parents[2]
IN_2_6 = {
    "torch", "torch:Tensor", "torch:nn", "torch.autograd.function:once_differentiable",
    "torch.distributed", "torch.distributed:PrefixStore", "torch.distributed:Store",
    "torch.distributed.rendezvous:rendezvous", "torch.nn.attention:SDPBackend", "torch.nn.attention:sdpa_kernel",
    "torch.nn.functional", "torch.nn.functional:cross_entropy", "torch.nn.functional:linear",
    "torch.nn.parallel:DistributedDataParallel", "torch.optim:Optimizer",
    "torch.overrides:TorchFunctionMode", "torch.profiler:ProfilerActivity", "torch.utils.checkpoint:checkpoint",
}  # fmt: skip
"""Known from its release; not run there. Before a name is added: is it in 2.6? Else import it where it is used."""


def imported(tree):
    """Names of PyTorch that stand at the top of a module."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "torch")
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "torch":
            yield from (f"{node.module}:{alias.name}" for alias in node.names)


def test_names_at_the_top_are_in_the_lowest_version():
    for path in sorted((ROOT / "src").rglob("*.py")):
        new = set(imported(ast.parse(path.read_text()))) - IN_2_6
        assert not new, f"{path.relative_to(ROOT)}: {new}"


def test_without_the_storage_of_newer_versions_all_but_sharing_works():
    code = (
        "import sys, torch.distributed.checkpoint as theirs\n"
        "for name in [name for name in sys.modules if name.startswith('groundup')]: del sys.modules[name]\n"
        "del theirs.hf_storage\nsys.modules['torch.distributed.checkpoint.hf_storage'] = None\n"
        "import groundup.training.run\nfrom groundup.checkpoint import shares\n"
        "from groundup.config.errors import UserError\n"
        "try:\n    shares._storage()\nexcept UserError as error:\n    print(error)"
    )
    assert "cannot save what ranks share; take a newer one, or --runtime.parallel ddp" in output_of(code)


def modules_of(node):
    """The modules that an import names; the names that it takes from a package may be modules, too."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return ["torch"] if isinstance(node, ast.Call) and ast.unparse(node.func) == "importlib.import_module" else []


def at_the_top(tree):
    """The statements that run when a module is imported."""
    for node in ast.iter_child_nodes(tree):
        yield node
        if isinstance(node, ast.If | ast.Try | ast.With) and "TYPE_CHECKING" not in ast.unparse(node):
            yield from at_the_top(node)


@functools.cache
def loads_torch(module):
    if module.split(".")[0] in ("torch", "safetensors"):
        return True
    place = ROOT / "src" / module.replace(".", "/")
    path = next((p for p in (place.with_suffix(".py"), place / "__init__.py") if p.is_file()), None)
    return path is not None and any(
        loads_torch(name) for node in at_the_top(ast.parse(path.read_text())) for name in modules_of(node)
    )


def under_a_spinner(tree):
    """The lines of a module that run while something is shown to turn."""
    for node in ast.walk(tree):
        opened = isinstance(node, ast.With) and any("Working(" in ast.unparse(item) for item in node.items)
        handed = isinstance(node, ast.FunctionDef) and "Working" in ast.unparse(node.args)
        if opened or handed:
            yield from range(node.lineno, (node.end_lineno or node.lineno) + 1)


CLI = ROOT / "src/groundup/cli"
COMPUTE_NOTHING = {"main", "import_", "export", "scaling"}
"""They load a command, tensors from a file, or the name of the device."""


@pytest.mark.parametrize("path", [*sorted(CLI.glob("*.py")), CLI.parent / "training/own_text.py"], ids=lambda p: p.stem)
def test_how_threads_wait_is_chosen_before_pytorch_is_loaded(path):
    """And nowhere else: a command that does not compute need not look how busy the cores are."""
    tree = ast.parse(path.read_text())
    assert not [name for node in at_the_top(tree) for name in modules_of(node) if loads_torch(name)]
    inside = [node for each in tree.body if isinstance(each, ast.FunctionDef) for node in ast.walk(each)]
    loading = [node.lineno for node in inside if any(map(loads_torch, modules_of(node)))]
    calls = [node for node in inside if isinstance(node, ast.Expr) and ast.unparse(node).startswith("before_torch(")]
    chosen = [node.lineno for node in calls]
    computes = bool(loading) and path.stem not in COMPUTE_NOTHING
    assert len(chosen) == computes
    assert not computes or chosen[0] < min(loading)
    if loading and path.stem != "main":  # whose commands do it
        assert min(loading) in set(under_a_spinner(tree)), "PyTorch takes seconds, in which nothing is shown"
