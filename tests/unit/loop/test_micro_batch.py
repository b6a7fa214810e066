import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from forked import output_of
from groundup.config.errors import UserError
from groundup.config.model import GPTConfig
from groundup.distributed.ranks import World
from groundup.kernels.training import load_training_kernels
from groundup.loop import micro_batch
from groundup.loop.micro_batch import CPU_SHARE, estimate, largest_that_fits, next_smaller
from groundup.planner.memory import Arithmetic, training_memory
from groundup.runtime.memory import free_memory, is_out_of_memory

CPU = torch.device("cpu")
SHAPE = GPTConfig(n_layer=2, n_head=2, n_embd=64, block_size=64, vocab_size=300)


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_the_next_smaller_size_is_the_largest_divisor_up_to_half(size, samples):
    divisors = [n for n in range(1, size // 2 + 1) if samples % n == 0]
    assert next_smaller(size, samples) == max(divisors, default=0)


def need(size):
    return training_memory(SHAPE, Arithmetic(cpu=True), micro_batch_size=size)


def guess(monkeypatch, free, *, samples=48, parallel="none", world=None, local=1):
    monkeypatch.setattr(micro_batch, "free_memory", lambda device: free)
    monkeypatch.setattr(micro_batch, "local_size", lambda: local)
    return estimate(need, samples=samples, device=CPU, parallel=parallel, world=world or World())


@pytest.mark.parametrize("size", [1, 2, 3, 16, 48])
def test_the_estimate_is_the_planners(monkeypatch, size):
    """A size is chosen when its memory is there, and not when a megabyte lacks."""
    enough = need(size).total / CPU_SHARE
    assert guess(monkeypatch, enough + 10) == size
    smaller = max((n for n in range(1, size) if 48 % n == 0), default=1)
    assert guess(monkeypatch, enough - 1e6) == smaller
    assert guess(monkeypatch, 2 * enough + 10, local=2) == size


def test_too_little_memory_begins_with_one_and_plenty_with_all(monkeypatch):
    assert guess(monkeypatch, 0) == 1
    assert guess(monkeypatch, 1 << 40) == 48
    assert guess(monkeypatch, 1 << 40, samples=7) == 7


class Others(World):
    """Another rank that says a number."""

    def max(self, number):
        return max(number, self.says)


def test_the_rank_with_the_least_memory_decides(monkeypatch):
    Others.says = -3
    assert guess(monkeypatch, 1 << 40, world=Others(size=2)) == 3


def test_halved_until_it_runs_on_every_rank():
    tried = []

    def try_out(size):
        tried.append(size)
        if size > 5:
            raise torch.OutOfMemoryError("no")

    assert largest_that_fits(36, samples=36, try_out=try_out, device=CPU, world=World()) == 4
    assert tried == [36, 18, 9, 4]


def test_nothing_fits():
    def never(size):
        raise MemoryError

    with pytest.raises(UserError, match="even with one sequence"):
        largest_that_fits(8, samples=8, try_out=never, device=CPU, world=World())


def test_free_memory_is_known():
    assert 1 << 20 < free_memory(CPU) < 1 << 50


@pytest.mark.skipif(sys.platform != "linux", reason="limits address space as Linux does")
def test_a_real_end_of_memory_is_recognized():
    """In a process that may have 1 GB more than it has: what PyTorch raises there, and that the next try succeeds."""
    program = """
import resource, torch
from groundup.runtime.memory import is_out_of_memory
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 30), resource.RLIM_INFINITY))
try:
    torch.ones(1 << 30)
except RuntimeError as error:
    print(is_out_of_memory(error), torch.ones(1 << 20).sum().item())
"""
    assert output_of(program).split() == ["True", str(float(1 << 20))]
    assert not is_out_of_memory(RuntimeError("shapes cannot be multiplied"))


@pytest.mark.skipif(sys.platform != "linux", reason="limits address space as Linux does")
@pytest.mark.skipif(not load_training_kernels(lambda _: None).lanes, reason="needs a C++ compiler")
@pytest.mark.parametrize("whole", [True, False], ids=["a whole loss", "blocks alone"])
def test_the_kernels_say_that_memory_ends(whole):
    """In a process that may have 200 MB more: what a step keeps fits, what its way back has in its hands does not."""
    program = f"""
import resource, torch
from groundup.config.model import GPTConfig
from groundup.kernels.training import load_training_kernels
from groundup.model.build import build_model
from groundup.model.loss import LossModule
from groundup.parts.swap import use_cpu_parts
from groundup.runtime.memory import is_out_of_memory
model = build_model(GPTConfig(n_layer=1, n_head=2, n_embd=128, block_size=1024, vocab_size=60))
use_cpu_parts(model, "default", load_training_kernels(print), alone={whole}, one_call=True)
loss = LossModule(model)
def step(texts):
    idx = torch.zeros(texts, 1024, dtype=torch.long)
    loss(idx, idx).backward()
step(1)
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (200 << 20), resource.RLIM_INFINITY))
try:
    step(16)
except MemoryError as error:
    print(is_out_of_memory(error), error)
step(1)
print("again")
"""
    assert output_of(program).split("\n") == [
        "True the kernels find no memory for what a step has in its hands",
        "again",
        "",
    ]
