"""llama.cpp asked for the ids of a text: `python -m groundup.export.llama_cpp FILE`, the text on stdin.

In a process of its own, for llama.cpp ends the process that gives it a file it cannot take.
"""

import importlib.util
import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

from groundup.config.errors import UserError
from groundup.terminal.python import fresh_python

SECONDS = 600


def llama_ids(file: Path, text: str) -> list[int] | None:
    """The ids of a text by the tokenizer of a GGUF file; None where xllamacpp is not installed.

    Raises:
        UserError: llama.cpp cannot open the file.
    """
    if importlib.util.find_spec("xllamacpp") is None:
        return None
    command, environment = fresh_python("-m", __name__, str(file))
    done = subprocess.run(
        command, env=environment, input=text.encode(), capture_output=True, timeout=SECONDS, check=False
    )
    if done.returncode:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
        raise UserError(f"llama.cpp cannot open the exported file: {last}")
    return list(json.loads(done.stdout.splitlines()[-1]))


def start_server(file: Path, *, n_slots: int = 1, room: int = 64, threads: int = 1) -> Any:
    """llama.cpp's server on the CPU, which also answers without HTTP.

    Args:
        file: A GGUF file.
        n_slots: Texts side by side.
        room: Tokens of each.
        threads: Of the CPU; for a text or two more than one would wait in turns.
    """
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.n_ctx, params.n_parallel = n_slots * room, n_slots
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.n_gpu_layers = params.cache_ram_mib = params.port = 0
    params.warmup, params.verbosity = False, -1
    return xllamacpp.Server(params)


def ask(server: Any, path: str, **values: Any) -> Any:
    """One question to the server."""
    address = server.listening_address
    url = (address if address.startswith("http") else f"http://{address}") + path
    request = urllib.request.Request(url, json.dumps(values).encode(), {"Content-Type": "application/json"})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=SECONDS) as answer:
        return json.loads(answer.read())


def main() -> None:
    """Print the ids of what stands on stdin."""
    text = sys.stdin.buffer.read().decode()
    server = start_server(Path(sys.argv[1]))  # named, so that it is never ended: see below
    code = 1
    try:
        ids = ask(server, "/tokenize", content=text, add_special=False, parse_special=False)
        sys.stdout.write(f"\n{json.dumps(ids['tokens'])}\n")
        sys.stdout.flush()
        code = 0
    except (OSError, ValueError, KeyError) as error:
        sys.stderr.write(f"{error}\n")
        sys.stderr.flush()
    finally:
        # A server that answers before its loop has begun, as on a busy machine, waits for ever when it is ended.
        os._exit(code)


if __name__ == "__main__":
    main()
