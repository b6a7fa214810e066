"""Training beside other programs: threads that wait for each other take the cores that they wait for."""

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.context import SpawnProcess
from typing import Any

import torch

from groundup.bench.options import BusyOptions as Options
from groundup.config.errors import UserError
from groundup.config.presets import RECIPES
from groundup.contestants.ours import How, our_trainer
from groundup.files.processes import piped, start_process
from groundup.runtime.device import cpu_name
from groundup.runtime.precision import pick_precision
from groundup.terminal.waiting import SPIN, THREADS, USUAL_THREADS, choose_threads, own_cores, whole_cores

WAYS: dict[str, dict[str, str] | None] = {
    "OpenMP's default": {},
    "ours": None,
    "asleep at once": {"OMP_WAIT_POLICY": "PASSIVE"},
}
"""Environment variables that OpenMP reads when it is loaded; None are those that a command of ours sets."""


def bench(options: Options, say: Callable[[str], None]) -> dict[str, Any]:
    """Train in turns, on a machine that is quiet (if it is) and then beside other programs.

    Args:
        options: What to measure.
        say: Told a line per way to wait.

    Returns:
        Tokens per second of each way. The fair share is the cores' part of all that want one, of the default's quiet
        speed.

    Raises:
        UserError: Training does not run.
    """
    quiet = _turns(options)
    with _others(options.others):
        busy = _turns(options)
    threads = min(own_cores(), whole_cores())  # of each turn; this process may have begun beside other programs
    fair = threads / (threads + options.others) * quiet["OpenMP's default"]
    ways = {
        name: {
            "quiet_tokens_per_sec": round(quiet[name]),
            "busy_tokens_per_sec": round(busy[name]),
            "share_of_quiet_default": round(quiet[name] / quiet["OpenMP's default"], 3),
            "share_of_fair": round(busy[name] / fair, 3),
        }
        for name in WAYS
    }
    for name, row in ways.items():
        say(
            f"{name:<18}{row['quiet_tokens_per_sec']:>9,} tokens/s quiet ({row['share_of_quiet_default']:.0%})"
            f"{row['busy_tokens_per_sec']:>9,} beside {options.others} ({row['share_of_fair']:.0%} of the fair share)"
        )
    return {
        "bench": "busy",
        "device": cpu_name(),
        "cores": os.cpu_count() or 1,
        "threads": threads,
        "others": options.others,
        "precision": options.precision,
        "ways": ways,
    }


def _turns(options: Options) -> dict[str, float]:
    """Tokens per second: the medians of turns in which every way has one."""
    orders = (list(WAYS)[:: -1 if i % 2 else 1] for i in range(options.rounds))  # who is first may be the fastest
    turns = [{name: _one_turn(options, WAYS[name]) for name in order} for order in orders]
    return {name: statistics.median(turn[name] for turn in turns) for name in WAYS}


def _one_turn(options: Options, variables: dict[str, str] | None) -> float:
    """Train in a process of its own, which begins with these variables, or as a command of ours begins."""
    with ExitStack() as stack:
        kept = {name: os.environ.pop(name, None) for name in (THREADS, USUAL_THREADS, SPIN, "OMP_WAIT_POLICY")}
        try:
            if variables is None:
                choose_threads(os.environ)
            else:
                os.environ.update(variables)
            pipe = stack.enter_context(piped(_train, options))
        finally:
            for name, value in kept.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value
        try:
            return float(pipe.recv())
        except EOFError:
            raise UserError("training does not run here; try: groundup bench train") from None


def _train(pipe: Any, options: Options) -> None:
    device, how = torch.device("cpu"), How(optim=RECIPES["shakespeare"].optim)
    precision = pick_precision(options.precision, device, n_embd=options.model.n_embd)
    trainer = our_trainer(options.model, options.micro_batch_size, device=device, precision=precision, how=how)
    for _ in range(3):
        trainer.train_step()
    n_steps, start = 0, time.perf_counter()
    while time.perf_counter() - start < options.seconds:
        trainer.train_step()
        n_steps += 1
    pipe.send(n_steps * trainer.tokens_per_step / (time.perf_counter() - start))


@contextmanager
def _others(count: int) -> Iterator[None]:
    """Programs that want a core each."""
    processes: list[SpawnProcess] = []
    try:
        processes.extend(start_process(_compute) for _ in range(count))
        yield
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _compute() -> None:
    while True:
        sum(range(100_000))
