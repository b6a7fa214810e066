"""groundup bench WHAT: measure speed or losses, side by side. The last line of output is one JSON object."""

import importlib
import json
import math
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from groundup.bench import options as bench
from groundup.config.errors import UsageError, UserError
from groundup.files.new import check_paths
from groundup.records.models_here import check_model
from groundup.studies import options as studies
from groundup.terminal.actions import pick_action
from groundup.terminal.meant import BENCH_MEANT
from groundup.terminal.parse import parse
from groundup.terminal.waiting import before_torch
from groundup.terminal.working import Working

BENCHES: dict[str, tuple[type[Any], str]] = {
    "gpu": (bench.GpuOptions, "training, decoding and memory of one GPU, against nanoGPT and transformers"),
    "train": (bench.TrainOptions, "training throughput, MFU and memory, against nanoGPT and transformers"),
    "generate": (bench.GenerateOptions, "decoding throughput, against transformers and nanoGPT"),
    "eval": (bench.EvalOptions, "multiple-choice scoring, against one example at a time"),
    "busy": (bench.BusyOptions, "training on a CPU beside other programs, by how its threads wait"),
    "scaling": (bench.ScalingOptions, "training in several processes, against one"),
    "memory": (bench.MemoryOptions, "the peak of training steps, against the planner's formula"),
    "checkpoint": (bench.CheckpointOptions, "saving and loading a training state, against torch.save"),
    "serve": (bench.ServeOptions, "the server, for 1 to 64 clients, against llama.cpp's and the engine by itself"),
    "data": (bench.DataOptions, "the loader, against a training step and the limits of memory and disk"),
    "prepare": (bench.PrepareOptions, "tokenizing a corpus into shards, against a pool that is fed documents"),
    "ablation": (studies.AblationOptions, "variants of a recipe: which of its parts lower the loss"),
    "contexts": (studies.ContextsOptions, "reading a long prompt, and decoding behind it, by our engine alone"),
    "loss": (studies.LossOptions, "what a recipe reaches in the seconds of nanoGPT's CPU setting"),
    "weights": (studies.WeightsOptions, "bits per weight of a trained model: bytes, speed, loss, error of its logits"),
}
"""What each can be told, beside the module that measures it; and what it measures."""


def main(argv: Sequence[str]) -> int:
    """Run one benchmark: `bench(options, say)` of the module of its name, beside its options."""
    actions = {name: what for name, (_, what) in BENCHES.items()}
    name = pick_action(argv, command="bench", actions=actions, rest="[options]", meant=BENCH_MEANT)
    if name is None:
        return 0
    spec = BENCHES[name][0]
    options = parse(spec, argv[1:], prog=f"groundup bench {name}")
    for field in fields(spec):
        flag, value = field.name.replace("_", "-"), getattr(options, field.name)
        least, most = int(field.default != 0), 1024 if flag == "threads" else math.inf  # a 0 leaves the choice to us
        for number in value if isinstance(value, tuple) else (value,):
            if type(number) in (int, float) and not least <= number <= most:
                bound = f"most {most}" if number > most else f"least {least}"
                raise UsageError(f"{flag} must be at {bound}, got {number}")
    if name == "weights":
        check_model(options.model)
    if name == "gpu":
        options.check_gpu()
    check_paths(options, made={"out": True, "profile": True, "json": False})
    if (checkout := getattr(options, "nanogpt", None)) and not (checkout / "model.py").is_file():
        raise UserError(f"{checkout} is not a checkout of nanoGPT: it has no model.py")
    before_torch(getattr(options, "device", "auto"), fewer=not getattr(options, "threads", 0))
    with Working("loading PyTorch"):
        module = importlib.import_module(f"{spec.__module__.rpartition('.')[0]}.{name}")
    result = module.bench(options, lambda line: print(line, flush=True))
    signed = importlib.import_module("groundup.runtime.facts").signed(result, ["groundup", "bench", *argv])
    print(json.dumps(signed, ensure_ascii=False))
    return 0
