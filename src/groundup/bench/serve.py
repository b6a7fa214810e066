"""Serving: time to the first token and between tokens, for 1 to 64 clients, beside llama.cpp's server and the engine.

All hold the same random weights, each in a process started fresh. They take turns, a number of clients at a time.
"""

import contextlib
import importlib.util
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from groundup.config.errors import UsageError
from groundup.config.model import GPTConfig
from groundup.config.presets import GPT2
from groundup.contestants.clients import Answers, Load, ask
from groundup.contestants.decoders import write_models
from groundup.contestants.servers import MAX_SLOTS, engine_alone, llamacpp_server, our_server
from groundup.runtime.device import device_name, pick_device
from groundup.runtime.stored import Weights


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measure a server: temperature 0.8, top-k 50, prompts that share nothing. The default is GPT-2 124M in int8."""

    model: GPTConfig = GPT2
    weights: Weights = "int8"
    """How groundup stores matrices; beside int8 llama.cpp has Q8_0, beside anything else F32."""
    clients: tuple[int, ...] = (1, 4, 16, 64)
    """Clients at a time, one measurement each."""
    requests: int = 2
    """Completions per client and turn."""
    prompt_tokens: int = 32
    """Length of a prompt."""
    new_tokens: int = 32
    """Tokens drawn per completion."""
    threads: int = 0
    """CPU threads of each server; 0 takes PyTorch's choice."""
    rounds: int = 2
    """Turns of each server."""
    peers: bool = True
    """Run llama.cpp's server beside ours, where xllamacpp is installed."""

    def __post_init__(self) -> None:
        """Check ranges."""
        total = self.prompt_tokens + self.new_tokens
        if total > self.model.block_size:
            raise UsageError(f"the context is {self.model.block_size} tokens, prompt-tokens and new-tokens are {total}")
        if not self.clients or not 1 <= min(self.clients) <= max(self.clients) <= 64:
            raise UsageError(f"clients must be 1 to 64, got {self.clients}")


def bench(options: Options, say: Callable[[str], None]) -> dict[str, Any]:
    """Race servers.

    Args:
        options: What to measure.
        say: Told a line per server and number of clients.

    Returns:
        Figures by server and number of clients; of ours also the engine's own tokens per second with as many texts side
        by side, and the share of them that serving costs.

    Raises:
        UserError: A server does not start, or answers with an error.
    """
    threads = options.threads or torch.get_num_threads()
    what = {name: getattr(options, name) for name in ("requests", "prompt_tokens", "new_tokens")}
    given, servers = Load(**what, vocab_size=options.model.vocab_size), dict[str, dict[str, dict[str, float]]]()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder, kind = Path(name), "q8_0" if options.weights == "int8" else "f32"
        peers = options.peers and importlib.util.find_spec("xllamacpp") is not None
        write_models(folder, options.model, ["llama.cpp F32"] if peers else [])
        ports = {"groundup": stack.enter_context(our_server(folder / "groundup", options.weights, threads))}
        if peers:
            slots, room = min(max(options.clients), MAX_SLOTS), options.prompt_tokens + options.new_tokens
            peer = llamacpp_server(folder / f"{kind}.gguf", n_slots=slots, room=room, threads=threads)
            ports[f"llama.cpp {kind.upper()}"] = stack.enter_context(peer)
        engine = stack.enter_context(engine_alone(folder / "groundup", options.weights, threads, given))
        for port in ports.values():
            ask(port, 1, given, seed=0)  # what happens once, such as compiling kernels, is not counted
        for n_clients in options.clients:
            told, alone = {server: Answers() for server in ports}, list[float]()
            for turn in range(options.rounds):
                for server, port in ports.items():
                    told[server].add(ask(port, n_clients, given, seed=turn + 1))
                alone.append(engine(n_clients))
            for server, answers in told.items():
                row = answers.figures()
                if server == "groundup":
                    row["engine_tokens_per_sec"] = round(statistics.median(alone), 1)
                    row["cost_of_serving"] = round(1 - row["tokens_per_sec"] / row["engine_tokens_per_sec"], 3)
                servers.setdefault(server, {})[str(n_clients)] = row
                say(f"{server:<16}{n_clients:>3} clients  " + "  ".join(f"{key} {value}" for key, value in row.items()))
    machine = {"device": device_name(pick_device("cpu")), "threads": threads, "torch": torch.__version__}
    return {"bench": "serve"} | machine | what | {"weights": options.weights, "servers": servers}
