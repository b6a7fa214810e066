"""Writing while training goes on: training waits only for a copy of its state in the host's memory.

The copy is complete before the next step begins, so no step can leak into what is being written. There is one at a
time, in memory that is kept from one save to the next: fresh memory costs more than the copy itself.
"""

import mmap
import threading
from collections.abc import Callable

import torch
from torch import Tensor

Parts = list[dict[str, Tensor]]
"""Tensors by name, in several dictionaries."""
_ALIGNMENT = 64
_PAGE = 4096


class HostCopy:
    """A copy of tensors in memory that is used again and again."""

    def __init__(self) -> None:
        self._memory = torch.empty(0, dtype=torch.uint8)
        self._touching: threading.Thread | None = None

    def reserve(self, parts: Parts) -> None:
        """Have the memory ready that a copy of such tensors takes; what takes long goes on in a thread."""
        self._wait_for_memory()
        size = sum(_room(t) for tensors in parts for t in tensors.values())
        if size <= self._memory.numel():
            return
        if any(t.is_cuda for tensors in parts for t in tensors.values()):
            self._memory = torch.empty(size, dtype=torch.uint8, pin_memory=True)
            return
        memory = mmap.mmap(-1, size)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            memory.madvise(mmap.MADV_HUGEPAGE)
        self._memory = torch.frombuffer(memory, dtype=torch.uint8)
        # The system finds a page of memory when it is first written to, which is slower than copying.
        self._touching = threading.Thread(target=self._memory[::_PAGE].zero_, daemon=True)
        self._touching.start()

    def take(self, parts: Parts) -> Parts:
        """Copy tensors; the copies are good until the next call."""
        self.reserve(parts)
        self._wait_for_memory()
        copies: Parts = []
        start = 0
        for tensors in parts:
            part: dict[str, Tensor] = {}
            copies.append(part)
            for name, tensor in tensors.items():
                place = self._memory[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
                part[name] = place.copy_(tensor.detach(), non_blocking=True)
                start += _room(tensor)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return copies

    def _wait_for_memory(self) -> None:
        if self._touching is not None:
            self._touching.join()
            self._touching = None


class Background:
    """A thread that does one job at a time; its error is raised in the thread that waits for it."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    @property
    def busy(self) -> bool:
        """Whether a job is not over."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, job: Callable[[], object]) -> None:
        """Begin a job, when the one before it is over.

        Raises:
            BaseException: What the job before it raised.
        """
        self.wait()
        # Ctrl-C a second time must end the program, not wait for a disk: hence a daemon.
        self._thread = threading.Thread(target=self._work, args=(job,), name="checkpoint", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """See whether the last job went well; one that goes on is left alone.

        Raises:
            BaseException: What it raised.
        """
        if not self.busy:
            self.wait()

    def wait(self) -> None:
        """Wait until the last job is over.

        Raises:
            BaseException: What it raised.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if (failure := self._failure) is not None:
            self._failure = None
            raise failure

    def _work(self, job: Callable[[], object]) -> None:
        try:
            job()
        except BaseException as error:
            self._failure = error


def _room(tensor: Tensor) -> int:
    """Bytes that a tensor takes, rounded up so that the next one is aligned, too."""
    return -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
