"""What the documents' commands need: a reader that understands every kind of them, and a folder to run them in."""

import dataclasses
import importlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import tomllib
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from forked import shorten
from groundup.checkpoint.model_folder import load_model, save_model
from groundup.cli.finetune import as_training
from groundup.cli.main import COMMANDS, main
from groundup.cli.train import read_request
from groundup.config.model import GPTConfig
from groundup.model.gpt import GPT
from groundup.model.init import init_weights
from groundup.tokenizer.gpt2 import load_gpt2

ROOT = Path(__file__).parents[2]
WORDS = "to be or not to be that is the question whether it is nobler in the mind to suffer the slings and arrows"
SMALL = (
    "--model.n-layer 1 --model.n-head 1 --model.n-embd 16 --model.block-size 16 --runtime.micro-batch-size 2"
    " --tokens-per-step 64 --max-steps 2 --eval.every 2 --eval.sample-tokens 4 --runtime.compile off"
    " --runtime.matmul default --runtime.device cpu --data.source text --data.path notes.txt"
)


class _Parsed(Exception):
    """The command line was read to its end, and nothing was done."""


def _groundup(words):
    """Read the flags of a command as the command itself does, and stop there. Returns the config of a training run."""
    assert words[0] in COMMANDS, f"there is no groundup {words[0]}"
    if words[0] == "train":
        return read_request(words[1:]).config
    if words[0] == "finetune":
        return read_request(as_training(words[1:])).config
    file = next(name for name in (words[0], f"{words[0]}_") if (ROOT / f"src/groundup/cli/{name}.py").is_file())
    module = importlib.import_module(f"groundup.cli.{file}")

    def parsed(*args, **options):
        reader(*args, **options)
        raise _Parsed

    with pytest.MonkeyPatch.context() as patch:
        name = {"plan": "read_request", "sweep": "plan_runs"}.get(words[0], "parse")
        reader = getattr(module, name)
        patch.setattr(module, name, parsed)
        with pytest.raises(_Parsed):
            module.main(words[1:])
    return None


def _torchrun(words):
    from torch.distributed.run import get_args_parser

    options = get_args_parser().parse_args(words)
    assert options.module, "torchrun needs -m for groundup"
    assert options.training_script == "groundup"
    config = _groundup(options.training_script_args)
    assert config is not None, "torchrun is for groundup train"
    assert config.micro_steps(int(options.nnodes.split(":")[0]) * int(options.nproc_per_node)) >= 1
    return config


def _script(words):
    """bash and sbatch: a script of runs/, with further flags of the command that it calls."""
    at = next(i for i, word in enumerate(words) if word.endswith(".sh"))
    script = ROOT / words[at]
    assert script.is_file(), f"there is no {words[at]}"
    assert all(re.fullmatch(r"--[\w-]+(=\S+)?|\d+", word) for word in words[:at]), words[:at]
    return _groundup(["prepare" if "prepare" in script.name else "train", *_preset(script), *words[at + 1 :]])


def _preset(script):
    return re.findall(r"^PRESET=(\S+)", script.read_text(), re.MULTILINE)


def _make(words):
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert words
    assert set(words) <= set(targets), f"make {words}"


def _pip(words):
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert words[0] == "install"
    wanted = re.search(r"(?:groundup|\.)\[([\w,-]+)\]", " ".join(words))
    assert wanted, words
    assert set(wanted[1].split(",")) <= set(known)


def _python(words):
    """A module that is here, or that an extra of ours brings."""
    assert words[0] == "-m"
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"].values()
    brought = {re.match(r"[\w-]+", package)[0] for extra in extras for package in extra}
    assert words[1] in brought or importlib.util.find_spec(words[1]) is not None, words[1]


def _exactly(*known):
    def check(words):
        assert tuple(words) in known, words

    return check


def _download(words):
    """The command line of huggingface_hub."""
    assert words[0] == "download"
    assert re.fullmatch(r"[\w-]+/[\w.-]+", words[1])
    assert {"--repo-type", "--local-dir"} <= set(words)


PROGRAMS = {
    "groundup": _groundup,
    "torchrun": _torchrun,
    "bash": _script,
    "sbatch": _script,
    "make": _make,
    "pip": _pip,
    "python": _python,
    "hf": _download,
    "source": _exactly((".venv/bin/activate",)),
    "tensorboard": _exactly(("--logdir", "runs")),
}
"""Every program that a document may tell people to start, and what checks its words."""


@pytest.fixture(scope="session")
def understand():
    """Check one line of a shell; the config of a training run is returned. A program nobody knows is an error."""

    def check(line):
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
            words.pop(0)
        assert words, line
        assert words[0] in PROGRAMS, f"no test knows what to do with {words[0]!r}: {line}"
        return PROGRAMS[words[0]](words[1:])

    return check


@pytest.fixture(scope="session")
def furnished(tmp_path_factory):
    """A folder with all that the documents speak of, in small: runs, models, texts, shards. Nobody writes there.

    Of all processes that test side by side, whoever comes first fills it.
    """
    place = tmp_path_factory.getbasetemp()
    place = place.parent if "PYTEST_XDIST_WORKER" in os.environ else place
    folder, done = place / "documents", place / "documents.done"
    with FileLock(place / "documents.lock"):
        if not done.exists():
            folder.mkdir()
            _furnish(folder)
            done.touch()
    return folder


def _furnish(place):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        shorten(patch.setattr)
        _texts(place)
        threads, state = torch.get_num_threads(), torch.get_rng_state()
        assert main(["train", "shakespeare", *SMALL.split()]) == 0
        for name in ("mine", "notes", "deeper", "before", "after", "gpt2"):
            shutil.copytree("runs/shakespeare", f"runs/{name}")
        assert main(["prepare", "corpus", "data/corpus", "--workers", "1"]) == 0
        shutil.copytree("data/corpus", "data/fineweb-edu")
        config = GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=64, vocab_size=50257)
        save_model(place / "models/gpt2", init_weights(GPT(config), seed=1), load_gpt2(), {})
        assert main(["export", "models/gpt2", "their-gpt2"]) == 0
        _nanogpt(place / "ckpt.pt", config)
        torch.set_num_threads(threads)
        torch.set_rng_state(state)


def _texts(place):
    lines = [f"{WORDS[i % 40 :]}.".capitalize() for i in range(300)]
    for folder in ("notes", "corpus"):
        (place / folder).mkdir()
    for file in ("notes.txt", "notes/one.txt"):
        (place / file).write_text("ROMEO:\n" + "\n".join(lines) + "\n")
    records = [json.dumps({"text": " ".join(lines[i : i + 5])}) for i in range(100)]
    (place / "corpus/0.jsonl").write_text("\n".join(records) + "\n")
    (place / "prompts.jsonl").write_text('{"prompt": "ROMEO:"}\n{"prompt": "To be"}\n')
    question = {"ctx": "To be or not to", "endings": ["be", "mind"], "label": 0}
    (place / "questions.jsonl").write_text(json.dumps(question) + "\n")


def _nanogpt(path, config):
    """A checkpoint as nanoGPT's train.py writes it."""
    model = load_model(path.parent / "models/gpt2").model.state_dict()
    state = {f"transformer.{name}": tensor for name, tensor in model.items()}
    fields = ("n_layer", "n_head", "n_embd", "block_size", "vocab_size", "bias", "dropout")
    arguments = {name: value for name, value in dataclasses.asdict(config).items() if name in fields}
    state["lm_head.weight"] = state["transformer.wte.weight"]
    torch.save({"model": state, "model_args": arguments, "iter_num": 1}, path)
