"""From text sources to notebooks with outputs, and back to certainty that the two are the same.

    python notebooks/tools/build.py build            # execute every source and write its .ipynb
    python notebooks/tools/build.py build bigram     # one notebook and its solutions
    python notebooks/tools/build.py check            # is every .ipynb made from its source?

The source of a notebook is `notebooks/NAME.py` in jupytext's percent format; solutions lie in `notebooks/solutions/`.
What is written depends on the source and on the numbers it computes: no times, no machine, cell ids from contents.
"""

import hashlib
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from groundup.config.errors import UsageError, UserError

SLOW_SECONDS = 180
"""A learner should not wait longer."""
TIMEOUT = 600
"""Seconds a single cell may take before it is given up."""
MAX_BYTES = 600_000
"""GitHub stops rendering large notebooks, and nobody likes to download one."""

NO_NETWORK = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
"""Sends every download to a port where nobody listens: notebooks work offline, and are executed as if they were."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
"""Sums in one order, so that a second build writes the same digits."""


def sources(folder: Path, names: Sequence[str] = ()) -> list[Path]:
    """The text sources of notebooks, then those of solutions.

    Args:
        folder: `notebooks/` of a checkout.
        names: Only these; none means all.

    Raises:
        UsageError: There is no notebook of such a name.
    """
    found = [*sorted(folder.glob("*.py")), *sorted((folder / "solutions").glob("*.py"))]
    if unknown := set(names) - {path.stem for path in found}:
        raise UsageError(f"there is no notebook {min(unknown)!r} in {folder}")
    return [path for path in found if not names or path.stem in names]


def read_source(path: Path) -> Any:
    """A notebook without outputs, from its text source."""
    import jupytext
    import nbformat

    notebook = jupytext.read(path, fmt="py:percent")
    seen: set[str] = set()
    for cell in notebook.cells:
        _keep_alternative(cell)
        digest = hashlib.sha256(cell.source.encode()).hexdigest()
        cell.id = next(digest[i : i + 8] for i in range(56) if digest[i : i + 8] not in seen)
        seen.add(cell.id)
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    nbformat.validate(notebook)
    return notebook


def execute(path: Path, *, smaller: Mapping[str, str] | None = None) -> Any:
    """Run a source from top to bottom in a fresh kernel, in the folder where it lies.

    Args:
        path: The source.
        smaller: Code to replace, each once, so that it takes less time.

    Returns:
        The notebook with its outputs.

    Raises:
        UserError: A cell failed; the message holds its error.
        ValueError: What is to be replaced is not there once.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError
    from traitlets.config import Config

    notebook = read_source(path)
    _replace(notebook, smaller or {})
    with tempfile.TemporaryDirectory(prefix="nb", dir="/tmp" if Path("/tmp").is_dir() else None) as folder:
        config = Config()
        if os.name == "posix":
            # By sockets of the file system: nobody else can listen, and two kernels never race for one port.
            config.KernelManager.transport, config.KernelManager.ip = "ipc", f"{folder}/k"
        client = NotebookClient(
            notebook,
            config=config,
            timeout=TIMEOUT,
            iopub_timeout=60,  # a busy machine is no dead kernel
            kernel_name="python3",
            record_timing=False,
            resources={"metadata": {"path": str(path.parent)}},
        )
        try:
            client.execute(env={**os.environ, **ONE_THREAD, **NO_NETWORK})
        except (CellExecutionError, CellTimeoutError) as error:
            raise UserError(f"{path}: {error}") from error
    for cell in notebook.cells:
        _keep_alternative(cell)
        _join_streams(cell)
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


def _replace(notebook: Any, smaller: Mapping[str, str]) -> None:
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for large, small in smaller.items():
        holders = [cell for cell in code if large in cell.source]
        if len(holders) != 1 or holders[0].source.count(large) != 1:
            raise ValueError(f"{large!r} must stand once in the notebook")
        holders[0].source = holders[0].source.replace(large, small)


def _keep_alternative(cell: Any) -> None:
    """Of what is noted with a cell, only what its picture shows, in words: `# %% alt="..."`."""
    cell.metadata = {key: value for key, value in cell.metadata.items() if key == "alt"}


def _join_streams(cell: Any) -> None:
    """One output for what a cell printed: how a kernel cuts it into pieces depends on the moment."""
    outputs: list[Any] = []
    for output in cell.get("outputs", []):
        last = outputs[-1] if outputs else None
        if last and output.output_type == last.output_type == "stream" and output.name == last.name:
            last.text += output.text
        else:
            outputs.append(output)
    if "outputs" in cell:
        cell.outputs = outputs


def to_json(notebook: Any) -> str:
    """The text of an .ipynb."""
    import nbformat

    text = nbformat.writes(notebook)
    return re.sub(r" at 0x[0-9a-f]+", "", text).rstrip("\n") + "\n"


def differences(source: Path) -> list[str]:
    """Why the .ipynb beside a source is not the one made from it; nothing where it is."""
    built = source.with_suffix(".ipynb")
    if not built.is_file():
        return [f"{built} is missing"]
    found: list[str] = []
    stored = json.loads(built.read_text("utf-8"))["cells"]
    wanted = read_source(source).cells
    if [(c["cell_type"], "".join(c["source"]), c["metadata"]) for c in stored] != [
        (c.cell_type, c.source, c.metadata) for c in wanted
    ]:
        found.append(f"{built} was made from another source")
    code = [cell for cell in stored if cell["cell_type"] == "code"]
    if [cell["execution_count"] for cell in code] != list(range(1, len(code) + 1)):
        found.append(f"{built} was not executed from top to bottom")
    for output in (output for cell in code for output in cell["outputs"]):
        if output["output_type"] == "error" or output.get("name") == "stderr":
            found.append(f"{built} holds an error or a warning: {json.dumps(output)[:300]}")
    if built.stat().st_size > MAX_BYTES:
        found.append(f"{built} has {built.stat().st_size:,} bytes, more than {MAX_BYTES:,}")
    return found


def build(paths: Sequence[Path], console: Console) -> None:
    """Execute sources and write notebooks beside them.

    Raises:
        UserError: One of them failed.
    """
    for path in paths:
        start = time.perf_counter()
        text = to_json(execute(path))
        path.with_suffix(".ipynb").write_text(text, "utf-8")
        seconds = time.perf_counter() - start
        slow = f" (more than {SLOW_SECONDS} s: make it shorter)" if seconds > SLOW_SECONDS else ""
        console.print(f"{path}: {seconds:.0f} s, {len(text) // 1000} kB{slow}", highlight=False)


def main(argv: Sequence[str]) -> int:
    """Build or check the notebooks of a checkout, which is the working directory."""
    console = Console()
    try:
        if not argv or argv[0] not in ("build", "check"):
            raise UsageError("usage: python notebooks/tools/build.py build|check [NAME ...]")
        paths = sources(Path("notebooks"), argv[1:])
        if argv[0] == "build":
            build(paths, console)
        if wrong := [line for path in paths for line in differences(path)]:
            raise UserError("\n".join(wrong) + "\nmake notebooks builds them again")
    except UserError as error:
        console.print(str(error), highlight=False, markup=False)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
