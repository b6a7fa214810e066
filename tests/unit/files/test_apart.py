import io
import os
import subprocess
import sys

import pytest

from groundup.config.errors import UserError
from groundup.files import apart as module
from groundup.files.apart import apart

TASKS = """
import os, signal
from groundup.config.errors import UserError

def halves(file, n):
    size = file.seek(0, 2)
    file.seek(0)
    while data := file.read(n):
        yield [os.getpid(), size, data.decode()]

def dies(file, how):
    yield "first"
    os.kill(os.getpid(), how) if how else os._exit(3)

def refuses(file):
    yield "first"
    raise UserError("no such column")

def fails(file):
    yield 1 / 0

def takes(file, n):
    yield len(bytearray(n))
"""


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    (tmp_path / "some_tasks.py").write_text(TASKS)
    monkeypatch.syspath_prepend(tmp_path)
    module._idle.cache_clear()
    yield
    for worker in module._idle(os.getpid()):
        worker.stop()
    module._idle.cache_clear()


def test_a_file_is_read_in_one_other_process(tasks):
    file = io.BytesIO(b"0123456789")
    first = list(apart("some_tasks:halves", file, "f", 4))
    assert [text for _, _, text in first] == ["0123", "4567", "89"]
    assert {size for _, size, _ in first} == {10}
    ((pid, _, _),) = apart("some_tasks:halves", file, "f", 99)  # kept for the next task
    assert pid == first[0][0] != os.getpid()
    side_by_side = zip(apart("some_tasks:halves", file, "f", 5), apart("some_tasks:halves", file, "f", 5), strict=True)
    assert all(a[2] == b[2] and a[0] != b[0] for a, b in side_by_side)


@pytest.mark.fault(
    "B7", "a library ends the process that gives it a file", "the file is named in one line; the next one is read"
)
@pytest.mark.parametrize(("how", "said"), [(6, "by SIGABRT"), (11, "by SIGSEGV"), (0, "with code 3")])
def test_a_death_is_an_error_that_names_the_file(tasks, how, said):
    got = []
    with pytest.raises(UserError, match=f"a.parquet ended the process that read it {said}: it is damaged"):
        got.extend(apart("some_tasks:dies", io.BytesIO(b"x"), "a.parquet", how))
    assert got == ["first"]
    assert [text for _, _, text in apart("some_tasks:halves", io.BytesIO(b"next"), "b", 9)] == ["next"]


def test_errors_of_a_task_are_those_here(tasks):
    with pytest.raises(UserError, match="no such column"):
        list(apart("some_tasks:refuses", io.BytesIO(), "f"))
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        list(apart("some_tasks:fails", io.BytesIO(), "f"))
    with pytest.raises(UserError, match="the disk is gone"):
        list(apart("some_tasks:halves", Broken(), "f", 1))


class Broken(io.BytesIO):
    def seek(self, place, whence=0):
        return 5

    def read(self, n=-1):
        raise UserError("the disk is gone")


def test_what_nobody_reads_to_its_end_is_stopped(tasks):
    values = apart("some_tasks:halves", io.BytesIO(b"0123456789"), "f", 1)
    pid = next(values)[0]
    values.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


LOW = """
import io, resource
from groundup.config.errors import UserError
from groundup.files.apart import apart
resource.setrlimit(resource.RLIMIT_AS, (1_000_000_000, 1_000_000_000))
try:
    list(apart("some_tasks:takes", io.BytesIO(), "a.parquet", 1_200_000_000))
except UserError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="macOS knows the limit and does not take it")
def test_a_limit_of_the_system_is_named_where_it_is_lower(tasks, tmp_path):
    search = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    said = subprocess.run([sys.executable, "-c", LOW], env=search, capture_output=True, text=True, check=True).stdout
    assert said == "a.parquet takes more memory than the 1,000,000,000 bytes that `ulimit -v` allows; raise that\n"
