import time

import pytest
import torch

from groundup.runtime.timing import DATA, FORWARD_BACKWARD, OPTIMIZER, StepClock


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_real_gpu_the_parts_make_up_the_step():
    device = torch.device("cuda")
    a = torch.randn(4096, 4096, device=device)
    clock, seconds, parts = StepClock(device), 0.0, {}
    for step in range(21):
        start = time.perf_counter()
        clock.start()
        clock.lap(DATA)
        for _ in range(20):
            b = a @ a
        clock.lap(FORWARD_BACKWARD)
        b.sum().item()
        clock.lap(OPTIMIZER)
        taken = clock.take()
        if step:  # the first loads kernels
            seconds += time.perf_counter() - start
            parts = {part: parts.get(part, 0.0) + taken.get(part, 0.0) for part in (DATA, FORWARD_BACKWARD, OPTIMIZER)}
    assert parts[FORWARD_BACKWARD] > 0.5 * seconds
    assert sum(parts.values()) == pytest.approx(seconds, rel=0.2)
