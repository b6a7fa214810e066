"""Servers of completions, each a process of its own, and clients that time them; and our engine with no server around.

Clients are threads of this process that ask one streamed completion after the other.
"""

import contextlib
import http.client
import json
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from groundup.checkpoint.model_folder import load_model
from groundup.config.errors import UserError
from groundup.config.generate import SamplingConfig
from groundup.contestants.decoders import start_llamacpp
from groundup.files.processes import piped
from groundup.generation.engine import Engine
from groundup.generation.requests import Request
from groundup.runtime.stored import Weights

MAX_SLOTS = 16
"""The most texts that any of them writes side by side, as `groundup serve` has it."""
SECONDS = 300
"""After which a client gives up."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What every client asks: temperature 0.8, top-k 50, prompts of random ids that share nothing."""

    vocab_size: int
    requests: int
    """Completions of each client, one after the other."""
    prompt_tokens: int
    new_tokens: int

    def prompts(self, n_clients: int, seed: int) -> list[list[list[int]]]:
        """Ids, by client and request."""
        shape = (n_clients, self.requests, self.prompt_tokens)
        return torch.randint(self.vocab_size, shape, generator=torch.Generator().manual_seed(seed)).tolist()


@dataclass(slots=True)
class Answers:
    """What clients saw."""

    first: list[float] = field(default_factory=list)
    """Seconds until the first event of each stream."""
    between: list[float] = field(default_factory=list)
    """Seconds between two events, each of which brings a token (or several that make one character)."""
    tokens: int = 0
    seconds: float = 0.0

    def add(self, other: "Answers") -> None:
        """Those of another client, or of another turn."""
        self.first += other.first
        self.between += other.between
        self.tokens, self.seconds = self.tokens + other.tokens, self.seconds + other.seconds

    def figures(self) -> dict[str, float]:
        """Tokens per second of all clients together, and milliseconds."""
        row = {"tokens_per_sec": round(self.tokens / self.seconds, 1)}
        for name, values in (("first_token", self.first), ("between_tokens", self.between)):
            if values:
                row[f"{name}_p50_ms"] = round(1e3 * statistics.median(values), 2)
                row[f"{name}_p99_ms"] = round(1e3 * sorted(values)[min(len(values) - 1, int(0.99 * len(values)))], 2)
        return row


def ask(port: int, n_clients: int, load: Load, *, seed: int) -> Answers:
    """Let clients ask a server at once.

    Args:
        port: Of the server, on this machine.
        n_clients: How many.
        load: What each asks.
        seed: Of the prompts.

    Raises:
        UserError: One of them gets no answer.
    """
    total, lock, faults = Answers(), threading.Lock(), list[Exception]()
    barrier = threading.Barrier(n_clients + 1)

    def client(prompts: list[list[int]]) -> None:
        mine = Answers()
        barrier.wait()
        try:
            for prompt in prompts:
                _complete(port, prompt, load.new_tokens, mine)
        except (OSError, http.client.HTTPException, UserError, ValueError) as error:
            faults.append(error)
        with lock:
            total.add(mine)

    threads = [threading.Thread(target=client, args=(prompts,)) for prompts in load.prompts(n_clients, seed)]
    for thread in threads:
        thread.start()
    barrier.wait()
    start = time.perf_counter()
    for thread in threads:
        thread.join()
    total.seconds = time.perf_counter() - start
    if faults:
        raise UserError(f"a client got no answer: {faults[0]}")
    return total


def _complete(port: int, prompt: list[int], new_tokens: int, told: Answers) -> None:
    """One streamed completion of new_tokens tokens, whatever they are."""
    body = {
        "prompt": prompt,
        "max_tokens": new_tokens,
        "temperature": 0.8,
        "top_k": 50,
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": True,  # these two are llama.cpp's
        "cache_prompt": False,
    }
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    with contextlib.closing(connection):
        start = last = time.perf_counter()
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise UserError(f"{answer.status}: {answer.read(500).decode(errors='replace')}")
        pieces = []
        while data := answer.read1(1 << 16):
            pieces.append((time.perf_counter(), data))
        n_events = drawn = 0
        for now, event in _events(pieces):
            drawn = (event.get("usage") or {}).get("completion_tokens", drawn)
            if event["choices"]:
                (told.between if n_events else told.first).append(now - (last if n_events else start))
                last, n_events = now, n_events + 1
        told.tokens += drawn


def _events(pieces: list[tuple[float, bytes]]) -> Iterator[tuple[float, Any]]:
    """The events of a stream with their times; read when it is over: clients share the cores with the servers."""
    rest = b""
    for now, data in pieces:
        *events, rest = (rest + data).split(b"\n\n")
        yield from ((now, json.loads(event[6:])) for event in events if event.startswith(b"data: {"))


@contextlib.contextmanager
def our_server(folder: Path, weights: Weights, threads: int) -> Iterator[int]:
    """`groundup serve` of a model folder; gives its port.

    Raises:
        UserError: It does not start.
    """
    words = ["serve", str(folder), "--port=0", "--no-open", f"--weights={weights}", f"--threads={threads}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "groundup", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
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
    server = start_llamacpp(path, n_slots=n_slots, room=room, threads=threads)
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
