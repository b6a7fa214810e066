"""Fresh processes: what Ctrl-C meets, and what becomes of them."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

import groundup
from forked import still_running
from groundup.files import processes

posix = pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="signals of POSIX")
PARENT = """
import time
from groundup.files.processes import start_process

if __name__ == "__main__":
    process = start_process(time.sleep, 60)
    try:
        print(process.pid, flush=True)
        for _ in range(1200):  # a signal that comes just before a sleep is acted on after it
            time.sleep(0.05)
    except KeyboardInterrupt:
        print(process.is_alive(), flush=True)
        process.kill()
"""


PROGRAM = """
import os
from groundup.files.processes import start_process

if __name__ == "__main__":
    process = start_process(print, "in it")
    process.join()
    print(process.exitcode, os.environ.get("PYTHONSAFEPATH"))
"""


@posix
def test_interrupted_while_a_process_starts_waits_for_it():
    """Other threads take the signal where this one has masked it: half a start would be a traceback in the process."""
    done = threading.Event()
    other = threading.Thread(target=done.wait)
    other.start()
    steps = []

    def start():
        with processes._no_interrupt():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)
            steps.append("started")

    try:
        with pytest.raises(KeyboardInterrupt):
            start()
    finally:
        done.set()
        other.join()
    assert steps == ["started"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


@pytest.fixture
def parent(tmp_path):
    """A program that has just started a process, in a group of their own as at a terminal; the process's number."""
    (tmp_path / "parent.py").write_text(PARENT)
    program = subprocess.Popen(
        [sys.executable, tmp_path / "parent.py"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, env=os.environ | {"PYTHONPATH": str(Path(groundup.__file__).parents[1])},
    )  # fmt: skip
    yield program, int(program.stdout.readline())
    program.kill()


@posix
@pytest.mark.parametrize("later", [0, 0.02, 1], ids=["at once", "while it starts", "when it works"])
def test_ctrl_c_reaches_only_who_has_started_it(parent, later):
    program, number = parent
    time.sleep(later)
    os.killpg(program.pid, signal.SIGINT)
    assert program.communicate(timeout=60) == ("True\n", "")
    assert not psutil.pid_exists(number)


@posix
@pytest.mark.fault("E11", "SIGKILL of what has started a process", "that process ends, too")
def test_it_ends_with_a_parent_that_is_killed(parent):
    program, number = parent
    child = psutil.Process(number)
    time.sleep(1)
    program.kill()
    program.wait()
    assert not still_running([child], seconds=30)


def test_files_of_the_working_folder_are_not_its_modules(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "pickle.py").write_text("print('an exercise')")
    command = [sys.executable, tmp_path / "program.py"]
    done = subprocess.run(command, cwd=tmp_path / "work", capture_output=True, text=True, check=True)
    assert done.stdout == "in it\n0 None\n"


def test_every_fresh_process_is_started_here():
    source = Path(groundup.__file__).parent
    found = {path.name for path in source.rglob("*.py") if '("spawn")' in path.read_text(encoding="utf-8")}
    assert found == {"processes.py"}
