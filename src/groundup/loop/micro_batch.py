"""runtime.micro_batch_size auto: as many sequences per forward pass as fit.

The first size is what the planner's formula says fits in the free memory. It is halved when memory runs out: in a trial
before the run, and later in any step, which is then made again (`loop.retry`). Halving changes the number of
micro-steps, not the samples of a step.
"""

from collections.abc import Callable

import torch

from groundup.config.errors import UserError
from groundup.distributed.ranks import World, local_size
from groundup.planner.memory import Memory, largest_micro_batch
from groundup.runtime.memory import free_memory, is_out_of_memory, release_cached

CPU_SHARE, FSDP_SHARE = 0.8, 0.8
"""Leave 20 % free: on a CPU the system kills the process at the limit; under FSDP one rank cannot retry by itself."""


def next_smaller(size: int, samples: int) -> int:
    """The largest divisor of `samples` that is at most half of a size; 0 when there is none."""
    return largest_divisor(samples, most=size // 2)


def largest_divisor(samples: int, *, most: int) -> int:
    """Of so many samples, at most `most`; 0 when there is none."""
    return next((n for n in range(most, 0, -1) if samples % n == 0), 0)


def estimate(need: Callable[[int], Memory], *, samples: int, device: torch.device, parallel: str, world: World) -> int:
    """The largest micro batch that fits by formula on every rank; at least 1.

    Args:
        need: Memory of a step, by its micro batch.
        samples: Sequences per step of each rank; the result divides it.
        device: Where the run computes.
        parallel: none, ddp or fsdp.
        world: The ranks.
    """
    free = free_memory(device)
    if device.type != "cuda":  # on CUDA every process has its own GPU; elsewhere processes share the memory
        free = int(CPU_SHARE * free / local_size())
    if parallel == "fsdp":
        free = int(FSDP_SHARE * free)
    mine = largest_micro_batch(need, samples, free, shares=world.size if parallel == "fsdp" else 1)
    return -world.max(-max(1, mine))


def largest_that_fits(
    size: int, *, samples: int, try_out: Callable[[int], None], device: torch.device, world: World
) -> int:
    """Halve a micro batch until a trial succeeds on every rank.

    Args:
        size: The first to try.
        samples: Sequences per step of each rank.
        try_out: Makes a forward and backward pass over so many sequences, without a lasting effect.
        device: Where it computes.
        world: The ranks, which agree.

    Raises:
        UserError: Not even one sequence fits.
    """
    while world.max(int(_runs_out(try_out, size))):
        release_cached(device)
        if not (smaller := next_smaller(size, samples)):
            raise nothing_fits()
        size = smaller
    return size


def nothing_fits() -> UserError:
    """The error of a sequence that does not fit alone."""
    return UserError(
        "out of memory even with one sequence at a time; --runtime.recompute, a smaller model.block_size or a smaller"
        " model needs less"
    )


def _runs_out(try_out: Callable[[int], None], size: int) -> bool:
    try:
        try_out(size)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return True
    return False
