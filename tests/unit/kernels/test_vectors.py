"""GCC makes vectors of the loops that kernels ask it to, also for a machine whose vectors have no masks.

Else such a loop is right and takes several times as long, and no other test would say so.
"""

import itertools
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from groundup.kernels import library

GCC = shutil.which("g++")
pytestmark = pytest.mark.skipif(
    GCC is None or platform.machine() != "x86_64" or "Free Software" not in subprocess.getoutput(f"{GCC} --version"),
    reason="needs GCC, for x86-64",
)
REPORTED = re.compile(r"([\w.]+):(\d+):\d+: optimized: loop vectorized")
GIVEN_WHAT_TO_LOAD = "void turn_pairs("
"""The loop behind this line is reported at its callers' lines."""


def loops() -> Iterator[tuple[str, int, str]]:
    """File, line and text of each loop that is to be of vectors."""
    for path in sorted(library.FOLDER.glob("*.cpp")):
        lines = path.read_text().splitlines()
        for before, pragma, loop, number in zip(lines, lines[1:], lines[2:], itertools.count(3)):
            if re.match(r"\s*#pragma omp (parallel for )?simd", pragma) and GIVEN_WHAT_TO_LOAD not in before:
                yield path.name, number, loop.strip()


def made(folder: Path, architecture: str) -> set[tuple[str, int]]:
    """Files and lines of the loops that have become vectors, compiled as `library` does, for this architecture."""
    running = []
    for each in (library.TRAINING, library.DECODING):
        _, command = library._made_from(each)
        command = [
            GCC or "",
            *(part.replace("native", architecture) for part in command[1:]),
            "-fopt-info-vec-optimized",
            "-S",
        ]
        running += [
            subprocess.Popen([*command, path, "-o", folder / f"{path.stem}.s"], stderr=subprocess.PIPE, text=True)
            for path in each.sources
        ]
    said = "".join(process.communicate()[1] for process in running)
    assert not any(process.returncode for process in running), said
    return {(match[1], int(match[2])) for match in REPORTED.finditer(said)}


def test_loops_are_of_vectors_also_without_masks(tmp_path: Path) -> None:
    lines = made(tmp_path, "haswell")
    # A report is at the pragma, at the loop or within.
    near = {(name, line + far) for name, line in lines for far in (-2, -1, 0, 1)}
    assert not [f"{name}:{line} {text}" for name, line, text in loops() if (name, line) not in near]
