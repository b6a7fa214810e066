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
        Tokens per second of each way, and shares: turn by turn of the default's quiet speed, and of our part of it.

    Raises:
        UserError: Training does not run.
    """
    quiet = _turns(options)
    with _others(options.others):
        busy = _turns(options)
    threads = min(own_cores(), whole_cores())  # of each turn; this process may have begun beside other programs
    rates = {name: [statistics.median(turn[name] for turn in turns) for turns in (quiet, busy)] for name in WAYS}
    default = next(iter(WAYS))
    fair = threads / (threads + options.others) * rates[default][0]
    ways = {
        name: {
            "quiet_tokens_per_sec": round(alone),
            "busy_tokens_per_sec": round(beside),
            "share_of_quiet_default": round(statistics.median(turn[name] / turn[default] for turn in quiet), 3),
            "share_of_fair": round(beside / fair, 3),
        }
        for name, (alone, beside) in rates.items()
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


def _turns(options: Options) -> list[dict[str, float]]:
    """Tokens per second, in turns: every way has one in each, and is the first, the second and the last as often."""
    names, places = list(WAYS), [i % len(WAYS) for i in range(options.rounds)]
    return [{name: _one_turn(options, WAYS[name]) for name in names[i:] + names[:i]} for i in places]


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
