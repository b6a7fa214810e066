import sys

import pytest

from forked import output_of
from groundup.runtime import allocator
from groundup.runtime.allocator import keep_freed_memory

FAULTS = """
import resource, sys, torch
from groundup.runtime.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def use():
    torch.ones(16 << 20)  # 64 MB, every page touched
for _ in range(20):  # until a hole of the right size is there
    use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it is glibc that gives memory back")
def test_memory_that_was_freed_faults_no_page_in_again():
    """In processes of their own: the setting lasts as long as the process."""

    def faults(mode):
        return int(output_of(FAULTS, mode))

    assert faults("keep") < 100
    assert faults("as it is") >= 16384  # 4 KB each


def test_elsewhere_nothing_happens(monkeypatch):
    monkeypatch.setattr(allocator, "_libc", lambda: 1 / 0)
    for platform in ("darwin", "win32"):
        monkeypatch.setattr(allocator.sys, "platform", platform)
        assert keep_freed_memory() is False


def test_another_c_library_has_no_such_setting(monkeypatch):
    monkeypatch.setattr(allocator.sys, "platform", "linux")
    monkeypatch.setattr(allocator, "_libc", object)
    assert keep_freed_memory() is False


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such advice")
@pytest.mark.parametrize(("start", "size", "asked"), [(5, 6 << 20, [(2 << 20, 4 << 20)]), (5, 2 << 20, [])])
def test_huge_pages_are_asked_for_where_whole_ones_fit(monkeypatch, start, size, asked):
    calls = []

    class Libc:
        def madvise(self, address, length, advice):
            calls.append((address.value, length.value))
            assert advice == allocator.mmap.MADV_HUGEPAGE

    monkeypatch.setattr(allocator, "_libc", Libc)
    monkeypatch.setattr(allocator.sys, "platform", "linux")
    allocator.ask_for_huge_pages(start, size)
    assert calls == asked
    monkeypatch.setattr(allocator.sys, "platform", "darwin")
    allocator.ask_for_huge_pages(start, size)
    assert calls == asked


@pytest.mark.parametrize(("answer", "changed"), [(1, True), (0, False)])
def test_says_whether_it_worked(monkeypatch, answer, changed):
    asked = {}

    class Library:
        @staticmethod
        def mallopt(name, value):
            asked[name] = value
            return answer

    monkeypatch.setattr(allocator.sys, "platform", "linux")
    monkeypatch.setattr(allocator, "_libc", lambda: Library)
    assert keep_freed_memory() is changed
    assert all(0 < value < 2**31 for value in asked.values())  # mallopt takes a C int


@pytest.mark.skipif(sys.platform != "linux", reason="it is glibc that gives memory back")
def test_large_blocks_apart_are_given_back_whatever_lies_between_them():
    program = """
import sys, torch
from contextlib import nullcontext
from pathlib import Path
from groundup.runtime.allocator import large_blocks_apart
def held():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
torch.ones(30 << 20, dtype=torch.uint8)  # from now on glibc does not map blocks of this size
with large_blocks_apart() if sys.argv[1] == "apart" else nullcontext():
    before, pairs = held(), [(torch.ones(8 << 20, dtype=torch.uint8), torch.ones(4096)) for _ in range(20)]
    small = [pair[1] for pair in pairs]
    del pairs
    print(held() - before)
"""

    def kept(mode):
        return int(output_of(program, mode))

    assert kept("apart") < 8 << 20 < kept("not")
