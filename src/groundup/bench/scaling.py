"""How training scales: several processes by DDP, one thread each, against one process with one thread.

Every process has the same micro-batch, so that n processes learn from n times as many tokens in a step; what is lost
to exchanging gradients, and to sharing memory and caches, is what is missing from n times the speed. As many processes
that exchange nothing show which is which: they are the most this machine can do.
"""

import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import torch

from groundup.bench.options import ScalingOptions as Options
from groundup.config.io import from_dict, to_dict
from groundup.contestants.contest import Contestant, Factory, race
from groundup.contestants.ours import our_trainer
from groundup.distributed.ranks import World, joined
from groundup.loop.trainer import Trainer
from groundup.planner.params import count_parameters
from groundup.runtime.device import device_name
from groundup.runtime.measure import peak_memory
from groundup.runtime.precision import Precision
from groundup.terminal.python import fresh_python
from groundup.terminal.waiting import own_cores

CPU = torch.device("cpu")
APART = "as many, exchanging nothing"
TIMEOUT = 600.0
"""Seconds that a process waits for the others; those who have no turn wait on their input, for as long as it takes."""


def bench(options: Options, say: Callable[[str], None]) -> dict[str, Any]:
    """Race one process against several.

    Args:
        options: What to measure.
        say: Told a line per contestant.

    Returns:
        Tokens per second of each, and how many times as fast several processes are: the median over the rounds.
    """
    n = options.processes
    several = f"{n} processes"
    contestants: dict[str, Factory] = {"one process": _alone, several: _together, APART: _apart}
    timings = race(contestants, options, rounds=options.rounds, runs=options.steps)
    one = timings["one process"]
    tokens = options.micro_batch_size * options.model.block_size
    speeds = {name: (1 if name == "one process" else n) * tokens / timing.median for name, timing in timings.items()}
    ratios = {name: [n * a / b for a, b in zip(one.seconds, timings[name].seconds, strict=True)] for name in timings}
    result = {
        "bench": "scaling",
        "device": device_name(CPU),
        "cores": own_cores(),
        "torch": torch.__version__,
        "parameters": count_parameters(options.model),
        "micro_batch_size": options.micro_batch_size,
        "block_size": options.model.block_size,
        "processes": n,
        "threads_per_process": 1,
        "tokens_per_sec": {name: round(speed) for name, speed in speeds.items()},
        "times_as_fast": round(statistics.median(ratios[several]), 3),
        "times_as_fast_by_round": [round(ratio, 3) for ratio in ratios[several]],
        "most_possible": round(statistics.median(ratios[APART]), 3),
    }
    say(f"{'one process':<24}{speeds['one process']:>10,.0f} tokens/s")
    for name, times in ((several, result["times_as_fast"]), (APART, result["most_possible"])):
        say(f"{name:<24}{speeds[name]:>10,.0f} tokens/s  {times} times as fast")
    return result


def _trainer(options: Options, world: World) -> Trainer:
    """The training loop of a rank or alone, with one thread."""
    torch.set_num_threads(1)
    precision = Precision("fp32", CPU, "the same for all")
    return our_trainer(options.model, options.micro_batch_size, device=CPU, precision=precision, world=world)


def _step(trainer: Trainer) -> None:
    """What the loop does between callbacks."""
    trainer.train_step()
    trainer.stop.agree(trainer.world)


def _alone(options: Options) -> Contestant:
    trainer = _trainer(options, World())
    return lambda: _step(trainer), lambda: peak_memory(CPU)


def _together(options: Options) -> Contestant:
    return _Team(options, apart=False).step, lambda: peak_memory(CPU)


def _apart(options: Options) -> Contestant:
    return _Team(options, apart=True).step, lambda: peak_memory(CPU)


class _Team:
    """Rank 0 and the others, which it starts and tells by a byte when to make a step: they rest between turns.

    The contest ends this process, and with it goes the input on which the others wait.

    Args:
        options: What to measure.
        apart: Whether each trains a model of its own.
    """

    def __init__(self, options: Options, *, apart: bool) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
        # Without a size each believes that it is alone.
        n = str(options.processes)
        size = {} if apart else {"WORLD_SIZE": n, "LOCAL_WORLD_SIZE": n}
        self._others = []
        command, own = fresh_python("-m", "groundup.bench.scaling", json.dumps(to_dict(options)))
        for rank in range(1, options.processes):
            environment = {**own, **address, **size, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            self._others.append(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, bufsize=0)
            )
        os.environ.update({**address, **size, "RANK": "0", "LOCAL_RANK": "0"})
        self._open = contextlib.ExitStack()
        self._trainer = _trainer(options, self._open.enter_context(joined(CPU, timeout=TIMEOUT)))

    def step(self) -> None:
        """All ranks make one step."""
        for other in self._others:
            assert other.stdin is not None
            other.stdin.write(b".")
        _step(self._trainer)
        for other in self._others:
            assert other.stdout is not None
            other.stdout.read(1)


def follow(options: Options) -> None:
    """Be one of the other ranks: make a step for every byte of the input and answer it, until it ends."""
    with joined(CPU, timeout=TIMEOUT) as world:
        trainer = _trainer(options, world)
        while os.read(0, 1):
            _step(trainer)
            os.write(1, b".")
        os._exit(0)  # rank 0 is gone, and nobody is left to say goodbye to


if __name__ == "__main__":
    follow(from_dict(Options, json.loads(sys.argv[1])))
