"""What another Python finds that the package starts: our modules and Python's own, none of the folder it starts in."""

import os
import subprocess
from pathlib import Path

import groundup
from groundup.terminal.python import fresh_python


def test_files_of_the_working_folder_are_not_its_modules(tmp_path):
    for name in ("random", "email"):
        (tmp_path / f"{name}.py").write_text("print('an exercise')")
    command, environment = fresh_python("-c", "import email, random, groundup; print(random.randint(3, 3))")
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "3\n"


def test_it_has_the_environment_that_it_is_given():
    _, environment = fresh_python("-c", "", environ={"HOME": "here"})
    assert environment.keys() == {"HOME", "PYTHONPATH"}
    assert str(Path(groundup.__file__).parents[1]) in environment["PYTHONPATH"].split(os.pathsep)


def test_every_python_is_started_here():
    source = Path(groundup.__file__).parent
    found = {path.name for path in source.rglob("*.py") if "sys.executable" in path.read_text(encoding="utf-8")}
    assert found == {"python.py", "loss.py"}  # the latter starts nanoGPT's scripts, which import their neighbors
