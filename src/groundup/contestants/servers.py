"""Servers of completions, each a process of its own; and our engine with no server around."""

import contextlib
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from groundup.checkpoint.model_folder import load_model
from groundup.config.errors import UserError
from groundup.config.generate import SamplingConfig
from groundup.contestants.clients import Load
from groundup.export.llama_cpp import start_server
from groundup.files.processes import piped
from groundup.generation.engine import Engine
from groundup.generation.requests import Request
from groundup.generation.text import MAX_SLOTS
from groundup.runtime.stored import Weights
from groundup.terminal.python import fresh_python


@contextlib.contextmanager
def our_server(folder: Path, weights: Weights, threads: int) -> Iterator[int]:
    """`groundup serve` of a model folder; gives its port.

    Raises:
        UserError: It does not start.
    """
    words = ["serve", str(folder), "--port=0", "--no-open", f"--weights={weights}", f"--threads={threads}"]
    command, environment = fresh_python("-m", "groundup", *words)
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        found = re.search(r"http://127.0.0.1:(\d+)/", process.stdout.readline())
        if found is None:
            raise UserError(f"groundup serve did not start: {process.communicate()[1]}")
        yield int(found[1])
    finally:
        process.terminate()
        process.communicate()


@contextlib.contextmanager
def llamacpp_server(path: Path, *, n_slots: int, room: int, threads: int) -> Iterator[int]:
    """llama.cpp's server of a GGUF file, with so many tokens per slot; gives its port."""
    with piped(_serve_llamacpp, path, n_slots, room, threads) as pipe:
        yield int(_received(pipe))


@contextlib.contextmanager
def engine_alone(folder: Path, weights: Weights, threads: int, load: Load) -> Iterator[Callable[[int], float]]:
    """Our engine with no server: gives a function from a number of texts side by side to tokens per second."""
    with piped(_run_engine, folder, weights, threads, load) as pipe:

        def measure(n_clients: int) -> float:
            pipe.send(n_clients)
            return float(_received(pipe))

        _received(pipe)
        yield measure


def _received(pipe: Connection) -> Any:
    try:
        return pipe.recv()
    except (EOFError, ConnectionError):
        raise UserError("a contestant died") from None


def _serve_llamacpp(pipe: Connection, path: Path, n_slots: int, room: int, threads: int) -> None:
    server = start_server(path, n_slots=n_slots, room=room, threads=threads)
    pipe.send(int(server.listening_address.rpartition(":")[2]))
    pipe.recv()  # until the process is ended


def _run_engine(pipe: Connection, folder: Path, weights: Weights, threads: int, load: Load) -> None:
    torch.set_num_threads(threads)
    engine = Engine(load_model(folder, weights=weights, rows=MAX_SLOTS).model, n_slots=MAX_SLOTS)
    pipe.send("ready")
    turn = 0
    while n_clients := pipe.recv():
        turn += 1
        waiting = [tuple(prompt) for prompts in load.prompts(n_clients, turn) for prompt in prompts]
        start, drawn, going = time.perf_counter(), 0, 0
        while waiting or going:
            while waiting and going < n_clients:  # as many clients, each with one request at a time
                sampling = SamplingConfig(temperature=0.8, top_k=50)
                request = Request(prompt=waiting.pop(), max_new_tokens=load.new_tokens, sampling=sampling, seed=going)
                engine.submit(request)
                going += 1
            for event in engine.tick():
                drawn += event.token is not None
                going -= event.finish is not None
        pipe.send(drawn / (time.perf_counter() - start))
