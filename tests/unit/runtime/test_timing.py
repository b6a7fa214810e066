import types

import pytest
import torch

from groundup.runtime import timing
from groundup.runtime.timing import DATA, FORWARD_BACKWARD, OPTIMIZER, StepClock

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def host(monkeypatch):
    """The host's clock, in seconds."""
    hand = types.SimpleNamespace(now=0.0)
    monkeypatch.setattr(timing, "time", types.SimpleNamespace(perf_counter=lambda: hand.now))
    return hand


@pytest.fixture
def gpu(monkeypatch):
    """A device that passes events when a test says so, `done` of them so far. Waiting for it is forbidden."""
    device = types.SimpleNamespace(times=[], done=0)

    class Event:
        def __init__(self, *, enable_timing):
            assert enable_timing

        def record(self):
            self.number = len(device.times)
            device.times.append(device.now)

        def query(self):
            return self.number < device.done

        def elapsed_time(self, later):
            assert self.query()
            assert later.query()
            return 1e3 * (device.times[later.number] - device.times[self.number])

        def synchronize(self):
            raise AssertionError("the clock must not wait")

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", Event.synchronize)
    device.now = 0.0
    return device


def test_on_a_cpu_each_part_gets_the_time_until_its_lap(host):
    clock = StepClock(CPU)
    host.now = 5.0  # between steps
    clock.start()
    for seconds, part in ((1, DATA), (4, FORWARD_BACKWARD), (2, DATA), (8, FORWARD_BACKWARD), (16, OPTIMIZER)):
        host.now += seconds
        clock.lap(part)
    host.now += 100  # after the step, when others act
    assert clock.take() == {DATA: 3, FORWARD_BACKWARD: 12, OPTIMIZER: 16}
    assert clock.take() == {}
    clock.start()
    host.now += 1
    clock.lap(DATA)
    assert clock.take() == {DATA: 1}


def test_on_a_gpu_the_device_tells_and_what_it_has_not_done_comes_later(host, gpu):
    clock = StepClock(CUDA)

    def lap(part, *, host_at, device_at):
        host.now, gpu.now = host_at, device_at
        clock.lap(part)

    clock.start()
    lap(DATA, host_at=1.0, device_at=1.0)
    lap(FORWARD_BACKWARD, host_at=1.1, device_at=5.0)  # handed out in 0.1 s, computed in 4
    lap(DATA, host_at=1.4, device_at=5.5)  # fetched while the device computes
    lap(FORWARD_BACKWARD, host_at=1.5, device_at=9.5)
    lap(OPTIMIZER, host_at=9.6, device_at=11.5)
    gpu.done = 4  # the step's own check waited for everything but the update
    assert clock.take() == pytest.approx({DATA: 1.3, FORWARD_BACKWARD: 8.0})
    assert clock.take() == {}
    gpu.done = 5
    assert clock.take() == pytest.approx({OPTIMIZER: 2.0})
