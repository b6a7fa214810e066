"""Serving: time to the first token and between tokens, for 1 to 64 clients, beside llama.cpp's server and the engine.

All hold the same random weights, each in a process started fresh. They take turns, a number of clients at a time.
"""

import contextlib
import importlib.util
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from groundup.bench.options import ServeOptions as Options
from groundup.contestants.clients import Answers, Load, ask
from groundup.contestants.decoders import write_models
from groundup.contestants.servers import engine_alone, llamacpp_server, our_server
from groundup.generation.text import MAX_SLOTS
from groundup.runtime.device import device_name, pick_device


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
            told, pairs = {server: Answers() for server in ports}, list[tuple[float, float]]()
            for turn in range(options.rounds):
                for server, port in ports.items():
                    theirs = {} if server == "groundup" else {"cache_prompt": False}
                    told[server].add(answers := ask(port, n_clients, given, seed=turn + 1, more=theirs))
                    if server == "groundup":  # one right after the other: a machine's speed drifts
                        pairs.append((answers.tokens / answers.seconds, engine(n_clients)))
            for server, answers in told.items():
                row = answers.figures()
                if server == "groundup":
                    row["engine_tokens_per_sec"] = round(statistics.median(alone for _, alone in pairs), 1)
                    row["cost_of_serving"] = round(statistics.median(1 - ours / alone for ours, alone in pairs), 3)
                servers.setdefault(server, {})[str(n_clients)] = row
                say(f"{server:<16}{n_clients:>3} clients  " + "  ".join(f"{key} {value}" for key, value in row.items()))
    machine = {"device": device_name(pick_device("cpu")), "threads": threads, "torch": torch.__version__}
    return {"bench": "serve"} | machine | what | {"weights": options.weights, "servers": servers}
