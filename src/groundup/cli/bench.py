"""groundup bench WHAT: measure speed or losses, side by side. The last line of output is one JSON object."""

import importlib
import json
from collections.abc import Sequence

from groundup.config.errors import UsageError
from groundup.terminal.actions import pick_action
from groundup.terminal.parse import parse
from groundup.terminal.waiting import before_torch
from groundup.terminal.working import Working

BENCHES = {
    "gpu": "training, decoding and memory of one GPU, in a few minutes, against nanoGPT and transformers",
    "train": "training throughput, MFU and memory, against nanoGPT and transformers",
    "generate": "decoding throughput, against transformers and nanoGPT",
    "eval": "multiple-choice scoring, against one example at a time",
    "busy": "training on a CPU beside other programs, by how its threads wait",
    "scaling": "training in several processes, against one",
    "memory": "the peak of training steps, against the planner's formula",
    "checkpoint": "saving and loading a training state, against torch.save",
    "serve": "the server, for 1 to 64 clients, against llama.cpp's and the engine by itself",
    "data": "the loader, against a training step and the limits of memory and disk",
    "prepare": "tokenizing a corpus into shards, against a pool that is fed documents",
}
STUDIES = {
    "ablation": "variants of a recipe: which of its parts lower the loss",
    "contexts": "reading a long prompt, and decoding behind it, by our engine alone",
    "loss": "what a recipe reaches in the seconds of nanoGPT's CPU setting",
    "weights": "bits per weight of a trained model: bytes, speed, error of the logits and loss",
}
ALL = BENCHES | STUDIES


def main(argv: Sequence[str]) -> int:
    """Run one benchmark: each is a module of `bench` or `studies` with `Options` and `bench(options, say)`."""
    name = pick_action(argv, command="bench", actions=ALL, rest="[options]")
    if name is None:
        return 0
    before_torch()  # which also the options need
    room = "studies" if name in STUDIES else "bench"
    with Working("loading PyTorch"):
        module = importlib.import_module(f"groundup.{room}.{name.replace('-', '_')}")
    options = parse(module.Options, argv[1:], prog=f"groundup bench {name}")
    for flag, value in vars(options).items():
        least = 0 if flag == "threads" or (name in STUDIES and flag in ("steps", "eval_tokens")) else 1
        if type(value) is int and value < least:
            raise UsageError(f"{flag} must be at least {least}, got {value}")
    result = module.bench(options, lambda line: print(line, flush=True))
    print(json.dumps(result, ensure_ascii=False))
    return 0
