"""GCC makes vectors of the loops that kernels ask it to, also for a machine whose vectors have no masks.

Else such a loop is right and takes several times as long, and no other test would say so.
"""

import itertools
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator

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
            if re.match(r"\s*#pragma omp ((parallel )?for )?simd", pragma) and GIVEN_WHAT_TO_LOAD not in before:
                yield path.name, number, loop.strip()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """What GCC says of its work for AVX2, and the assembly; compiled as `library` does."""
    folder, running = tmp_path_factory.mktemp("assembly"), []
    for each in (library.TRAINING, library.DECODING):
        _, command = library._made_from(each)
        command = [part.replace("native", "haswell") for part in command[1:]]
        command = [GCC or "", *command, "-fopt-info-vec-optimized", "-S"]
        running += [
            subprocess.Popen([*command, path, "-o", folder / f"{path.stem}.s"], stderr=subprocess.PIPE, text=True)
            for path in each.sources
        ]
    said = "".join(process.communicate()[1] for process in running)
    assert not any(process.returncode for process in running), said
    return said, "".join(path.read_text() for path in sorted(folder.iterdir()))


def test_loops_are_of_vectors_also_without_masks(made: tuple[str, str]) -> None:
    lines = {(match[1], int(match[2])) for match in REPORTED.finditer(made[0])}
    # A report is at the pragma, at the loop or within.
    near = {(name, line + far) for name, line in lines for far in (-2, -1, 0, 1)}
    assert not [f"{name}:{line} {text}" for name, line, text in loops() if (name, line) not in near]


def test_no_loop_asks_in_every_turn_whether_there_is_a_row(made: tuple[str, str]) -> None:
    """It would be read by a mask, and where there is none that takes a processor hundreds of cycles."""
    assert "vfmadd" in made[1]
    assert "vmaskmov" not in made[1]
