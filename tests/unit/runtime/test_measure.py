import itertools

import pytest
import torch

from groundup.runtime import measure, timing
from groundup.runtime.measure import (
    GEMM_SHAPE,
    copy_bandwidth,
    gemm,
    gemm_rate,
    known_peak_flops,
    peak_memory,
)

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch):
    """Every timed call takes the next of these seconds."""

    def install(*seconds):
        ticks = itertools.accumulate(itertools.chain.from_iterable((0.0, s) for s in seconds))

        class Clock:
            perf_counter = staticmethod(lambda: next(ticks))

        monkeypatch.setattr(timing, "time", Clock)

    return install


@pytest.fixture
def no_work(monkeypatch):
    monkeypatch.setattr(measure, "gemm", lambda *args: lambda: None)


def test_gemm_rate_is_the_median_after_two_to_warm_up(clock, no_work):
    clock(99, 99, 0.5, 0.5, 0.001, 0.25, 0.1, 0.2, 7)
    m, k, n = GEMM_SHAPE
    assert gemm_rate(CPU, "fp32") == pytest.approx(2 * m * k * n / 0.25)


def test_a_slow_machine_is_measured_by_the_turns_that_begin_in_time(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(measure.time, "perf_counter", lambda: now[0])

    def slow():
        now[0] += 1.0
        return now[0]

    assert measure._within(slow, 9, measure.LONG_ENOUGH) == [1.0, 2.0]
    assert measure._median(slow) == 4.0  # what it has: the last of two


def test_a_speedup_is_the_median_of_turns_in_which_both_ran(clock, no_work):
    turns = [(9, 1), (9, 1), (0.2, 0.1), (4, 1), (0.1, 0.1), (3, 1), (6, 2), (7, 1), (1, 4)]  # seconds of slow and fast
    clock(*itertools.chain.from_iterable(turns))
    assert measure.gemm_speedup(CPU, "bf16", over="fp32") == pytest.approx(3)


def test_bandwidth_counts_bytes_read_and_written(clock):
    clock(99, 0.1, 0.3, 0.2, 9, 0.01)
    assert copy_bandwidth(CPU, megabytes=1) == pytest.approx(2 * 2**20 / 0.2)


def test_a_product_is_the_one_it_says_and_moves_no_generator(monkeypatch):
    products = []
    monkeypatch.setattr(measure.torch, "mm", lambda a, b: products.append((a.shape, b.shape, a.dtype, b.dtype)))
    before = torch.get_rng_state()
    gemm(CPU, "bf16")()
    assert torch.equal(torch.get_rng_state(), before)
    ((a, b, *dtypes),) = products
    assert (a[0], a[1], b[1]) == GEMM_SHAPE
    assert a[1] == b[0]
    assert dtypes == [torch.bfloat16] * 2


def test_real_measurements_are_plausible(monkeypatch):
    monkeypatch.setattr(measure, "GEMM_SHAPE", (64, 64, 64))
    assert 1e5 < gemm_rate(CPU, "fp32") < 1e15
    assert 1e5 < copy_bandwidth(CPU, megabytes=4) < 1e14


def test_data_sheets_are_known_of_gpus_alone(monkeypatch):
    assert known_peak_flops(CPU, "fp32") is None
    monkeypatch.setattr(measure, "device_name", lambda device: "NVIDIA A100-SXM4-80GB")
    assert known_peak_flops(torch.device("cuda"), "bf16") == 312e12
    monkeypatch.setattr(measure, "device_name", lambda device: "A GPU of next year")
    assert known_peak_flops(torch.device("cuda"), "bf16") is None


def test_peak_memory_counts_bytes_of_this_process():
    psutil = pytest.importorskip("psutil")
    before = peak_memory(CPU)
    block = torch.ones(32 << 20)  # 128 MB, every page touched
    after = peak_memory(CPU)
    resident = psutil.Process().memory_info().rss
    del block
    assert after >= before
    # The kernel counts the peak page by page, lazily; a few megabytes may lag.
    assert after >= resident - (16 << 20)
    assert peak_memory(CPU) >= after - (1 << 20)  # a peak does not fall; the kernel counts pages in batches
    assert after < 1 << 40
