"""What somebody else wrote, mutated: every reader of JSON, of lines and of headers ends well or with an error of ours.

By default 2,000 mutated files are read, spread over all readers; GROUNDUP_FUZZ=50000 reads more. Values of wrong types,
missing keys, huge numbers, NaN, deep nesting, keys given twice, cut and random bytes; the memory taken is bounded.
"""

import contextlib
import copy
import hashlib
import json
import os
import pickle
import re
import resource
import struct
import sys
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from groundup.checkpoint.model_folder import load_model, save_model
from groundup.checkpoint.state import CheckpointStore, Contents
from groundup.checkpoint.tensor_file import load_tensors
from groundup.config.errors import UserError
from groundup.config.io import dump_json, load_json, read_json, to_dict
from groundup.config.model import GPTConfig
from groundup.config.presets import RECIPES
from groundup.config.train import TrainConfig
from groundup.corpora.hub import Listing, _configs, choose_files
from groundup.data.index import DatasetIndex, ShardInfo, load_index
from groundup.evaluation.examples import kind_of, read_choices, read_completions
from groundup.export.export_model import export_model
from groundup.files.manifest import MANIFEST, file_facts, manifest_json, verify_folder
from groundup.interop.hf_config import read_hf_config
from groundup.interop.import_model import import_model
from groundup.interop.read_llmc import read_llmc
from groundup.interop.read_meta import read_meta
from groundup.interop.read_tokenizer import read_tokenizer
from groundup.loop.guard import Guard
from groundup.loop.state import TrainState
from groundup.model.gpt import GPT
from groundup.model.init import init_weights
from groundup.planner.params import count_parameters
from groundup.records.history import read_run
from groundup.records.report import RunFacts, _page
from groundup.records.results import read_results, result_line
from groundup.tokenizer.bpe import ByteBPE
from groundup.tokenizer.char import CharTokenizer
from groundup.tokenizer.io import load_tokenizer, tokenizer_json
from groundup.training.setup import Resolved
from groundup.training.snapshot import check_state

LETTERS = "\n abcdefghijklmnopqrstuvwxy"
CONFIG = GPTConfig(n_layer=1, n_head=2, n_embd=8, block_size=8, vocab_size=27)
MEBIBYTES = 600
"""The most that the largest resident size may grow by in one reader's tests."""


def seal(folder):
    """Vouch for whatever stands there, as somebody can who writes all of a folder."""
    files = {
        file.name: file_facts(file) for file in sorted(folder.iterdir()) if file.name != MANIFEST and file.is_file()
    }
    (folder / MANIFEST).write_text(manifest_json(files))


def model_folder(folder):
    save_model(folder, init_weights(GPT(CONFIG), seed=1), CharTokenizer(LETTERS), {"step": 3, "val_loss": 2.0})


def checkpoint(folder):
    model = GPT(CONFIG)
    optimizer = torch.optim.AdamW([{"params": list(model.parameters()), "lr": 1e-3}])
    resolved = Resolved(device="cpu", precision="fp32", matmul="default", parallel="none", processes=1,
                        micro_batch_size=2, threads=1, compile="off", vocab_size=27)  # fmt: skip
    state = {
        "train": TrainState(step=4, tokens_seen=64, best_loss=2.0, best_step=4).to_dict(),
        "data": {"consumed": 8, "block_size": 8, "seed": 1, "fingerprint": "ab"},
        "optimizers": [{"numbers": {"0.step": 4}, "param_groups": optimizer.state_dict()["param_groups"]}],
        "scaler": {}, "guard": Guard().state_dict(), "resolved": resolved.to_dict(),
    }  # fmt: skip
    contents = Contents(step=4, config=CONFIG, model=model.state_dict(), tokenizer=CharTokenizer(LETTERS),
                        tensors={"rng": {"cpu": torch.zeros(3)}}, state=state, is_best=True)  # fmt: skip
    CheckpointStore(folder).save(contents)


def dataset(folder):
    folder.mkdir()
    shard = ShardInfo(file="train-0.bin", split="train", n_tokens=9, n_bytes=9, n_documents=1, max_id=3, sha256="ab")
    index = DatasetIndex(source="text", settings={"shard": 3}, tokenizer_fingerprint="cd", vocab_size=27,
                         shards=(shard,), skipped={"empty": 1})  # fmt: skip
    index.save(folder)


def run_folder(folder):
    folder.mkdir()
    config = to_dict(RECIPES["shakespeare"])
    (folder / "config.json").write_text(dump_json(config))
    facts = {
        "groundup": "1",
        "started": "now",
        "command": "train",
        "parameters": 9,
        "bigram_loss": 2.0,
        "config": config,
    }
    (folder / "run.json").write_text(
        dump_json({**facts, "config": config, "machine": {"cpu": "x"}, "resolved": {"vocab_size": 65}})
    )
    rows = [
        {"step": 0, "tokens": 0, "seconds": 0.0, "val/loss": 4.0, "val/bpb": 6.0},
        {"step": 9, "tokens": 90, "seconds": 2.0, "train/loss": 3.0, "perf/mfu": 0.1, "perf/data_ms": 1.0},
        {"step": 9, "tokens": 90, "seconds": 2.0, "val/loss": 2.0, "sample": "a b"},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "eval.json").write_text(dump_json({"version": 1, "tasks": {"val": {"loss": 2.0, "tokens": 9}}}))
    portrait = {"tokens": ["a", "b"], "surprise": [None, 1.0], "layer": 0, "head": 1, "kind": "previous",
                "attention": [[1.0, 0.0], [0.5, 0.5]]}  # fmt: skip
    (folder / "portrait.json").write_text(dump_json(portrait))


def foreign_folder(folder):
    model_folder(folder.with_name("ours"))
    export_model(folder.with_name("ours"), folder, "hf")
    (folder / "README.md").unlink(missing_ok=True)


def sharded(folder):
    foreign_folder(folder)
    state = load_tensors(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    save_file(state, folder / "part.safetensors")
    index = {"metadata": {"total_size": 9}, "weight_map": dict.fromkeys(state, "part.safetensors")}
    (folder / "model.safetensors.index.json").write_text(dump_json(index))


def bpe_words(folder):
    """A byte-level BPE as transformers stores it, in one file and in its older parts."""
    foreign_bpe = ByteBPE([(97, 98), (256, 99)], specials=["<|endoftext|>"])
    save_model(folder.with_name("ours"), init_weights(GPT(GPTConfig(n_layer=1, n_head=1, n_embd=4, block_size=4,
               vocab_size=foreign_bpe.vocab_size)), seed=1), foreign_bpe, {})  # fmt: skip
    export_model(folder.with_name("ours"), folder, "hf")
    whole = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "vocab.json").write_text(dump_json(whole["vocab"]))
    pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in whole["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *pairs]) + "\n")
    (folder / "added_tokens.json").write_text(dump_json({"<|endoftext|>": 258}))
    decoder = {"258": {"content": "<|endoftext|>", "special": True}}
    settings_ = {"add_prefix_space": False, "eos_token": "<|endoftext|>", "added_tokens_decoder": decoder}
    (folder / "tokenizer_config.json").write_text(dump_json(settings_))


def in_parts(folder):
    bpe_words(folder)
    (folder / "tokenizer.json").unlink()


def tokenizer_file(tokenizer):
    def make(folder):
        folder.mkdir()
        (folder / "tokenizer.json").write_text(tokenizer_json(tokenizer), "utf-8")

    return make


def loose(**files):
    def make(folder):
        folder.mkdir()
        for name, text in files.items():
            (folder / name.replace("__", ".")).write_text(text)

    return make


def look_at_run(folder):
    run = read_run(folder)
    assert run.state in ("finished", "stopped", "crashed")
    _ = (run.last, run.best, run.tokens_per_sec, run.max_steps, run.shape)
    _page(folder, read_json(folder / "run.json", RunFacts, more=True), run.rows)
    for result in read_results(folder).values():
        result_line(result)


def look_at_index(folder):
    path = folder / "index.json"
    with contextlib.suppress(ValueError, RecursionError, AttributeError, TypeError):
        values = json.loads(path.read_text())  # a liar knows how to count, too
        values.pop("checksum", None)
        digest = hashlib.sha256(dump_json(values).encode()).hexdigest()
        path.write_text(dump_json({**values, "checksum": digest}))
    _ = load_index(folder).fingerprint


def look_at_checkpoint(folder):
    step = folder / "step-0000004"
    seal(step)
    CheckpointStore(folder, check_state=check_state).load(step)


def look_at_model(folder):
    seal(folder)
    load_model(folder)


def look_at_card(folder):
    configs = _configs(load_json(folder / "card.json"))
    choose_files(["data/train-0.parquet", "data/test-0.parquet"], configs, "o/n", None, "train")


def look_at_examples(folder):
    path = folder / "a.jsonl"
    (read_choices if kind_of(path) == "choice" else read_completions)(path, CharTokenizer(LETTERS))


def look_at_import(folder):
    out = folder.with_name(f"out-{len(list(folder.parent.iterdir()))}")
    import_model(str(folder), out)


def letters_of_nanogpt(folder):
    folder.mkdir()
    meta = {"vocab_size": 3, "stoi": {"a": 0, "b": 1, "c": 2}, "itos": dict(enumerate("abc"))}
    (folder / "meta.pkl").write_bytes(pickle.dumps(meta))


def model_of_llmc(folder):
    folder.mkdir()
    config = GPTConfig(n_layer=1, n_head=2, n_embd=8, block_size=8, vocab_size=128)
    header = [20240326, 3, config.block_size, 27, config.n_layer, config.n_head, config.n_embd, config.vocab_size]
    weights = torch.zeros(count_parameters(config)).numpy().tobytes()
    (folder / "model.bin").write_bytes(struct.pack("<256i", *header, *[0] * 248) + weights)


@dataclass(frozen=True)
class Reader:
    """Makes a folder of valid files, and reads it; `files` are mutated, one at a time."""

    make: Any
    read: Any
    files: tuple[str, ...]


CARD = dump_json({"configs": [
    {"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*"}], "default": True},
    {"config_name": "other", "data_files": "data/*.parquet"},
]})  # fmt: skip
CHOICES = '{"ctx": "a b", "endings": ["c", "d"], "label": "1"}\n'
"""One line: of several, those that are no examples are left out."""
READERS = {
    "manifest": Reader(model_folder, lambda folder: verify_folder(folder, "config.json"), (MANIFEST,)),
    "model folder": Reader(model_folder, look_at_model, ("config.json", "tokenizer.json", "model.safetensors")),
    "checkpoint": Reader(checkpoint, look_at_checkpoint, ("step-0000004/training.json",)),
    "index of a dataset": Reader(dataset, look_at_index, ("index.json",)),
    "run folder": Reader(run_folder, look_at_run,
                         ("run.json", "config.json", "metrics.jsonl", "eval.json", "portrait.json")),
    "run to resume": Reader(
        run_folder, lambda folder: read_json(folder / "config.json", TrainConfig), ("config.json",)
    ),
    "alphabet": Reader(tokenizer_file(CharTokenizer(LETTERS)), load_tokenizer, ("tokenizer.json",)),
    "byte pairs": Reader(
        tokenizer_file(ByteBPE([(97, 98), (256, 99)], ids=[*range(257), 258, 257])),
        lambda folder: load_tokenizer(folder).encode("abc abd"), ("tokenizer.json",),
    ),
    "foreign folder": Reader(foreign_folder, look_at_import, ("config.json", "tokenizer.json", "model.safetensors")),
    "foreign index": Reader(sharded, look_at_import, ("model.safetensors.index.json",)),
    "foreign config": Reader(
        foreign_folder,
        lambda folder: read_hf_config(load_json(folder / "config.json"), "config.json"),
        ("config.json",),
    ),
    "foreign tokenizer": Reader(bpe_words, read_tokenizer, ("tokenizer.json", "tokenizer_config.json")),
    "foreign words": Reader(in_parts, read_tokenizer,
                            ("vocab.json", "merges.txt", "added_tokens.json", "tokenizer_config.json")),
    "alphabet of nanoGPT": Reader(letters_of_nanogpt, lambda folder: read_meta(folder / "meta.pkl"), ("meta.pkl",)),
    "model of llm.c": Reader(model_of_llmc, lambda folder: read_llmc(folder / "model.bin"), ("model.bin",)),
    "listing of a hub": Reader(
        loose(a__json=dump_json({"revision": "ab", "files": {"a.jsonl": 3}, "hashes": {"a.jsonl": "cd"}})),
        lambda folder: read_json(folder / "a.json", Listing), ("a.json",),
    ),
    "dataset card": Reader(loose(card__json=CARD), look_at_card, ("card.json",)),
    "examples": Reader(loose(a__jsonl=CHOICES), look_at_examples, ("a.jsonl",)),
}  # fmt: skip

odd = st.sampled_from([
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**30, 10**400, 0.5, -0.0, 1e308, float("nan"), float("inf"),
    "", "x", "gpt", "../x", "\ud800", "\0", "\x1b[2J", "a" * 5000, "(a+)+b", "[z-a]", "**/" * 40,
    [], {}, [[]], [None], {"": None}, [1] * 300, ["a", "a"], {"kind": "gpt"}, {"kind": ["gpt"]}, {"format": 1},
]).map(copy.deepcopy)  # fmt: skip


def places(value, path=()):
    """Paths to everything inside a document."""
    yield path
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in entries:
        yield from places(inner, (*path, key))


def mutated(document, draw):
    """A document with one to three of its places changed."""
    document = json.loads(json.dumps(document))
    for _ in range(draw(st.integers(1, 3))):
        found = list(places(document))
        *way, last = found[draw(st.integers(0, len(found) - 1))] or (None,)
        if last is None:
            document = draw(odd)
            continue
        parent = document
        for key in way:
            parent = parent[key]
        match draw(st.sampled_from(["replace", "replace", "remove", "wrap", "deep", "add"])):
            case "replace":
                parent[last] = draw(odd)
            case "remove":
                parent.pop(last)
            case "wrap":
                parent[last] = [parent[last]] if draw(st.booleans()) else {"x": parent[last]}
            case "deep":
                parent[last] = f"deep {draw(st.sampled_from([5, 300, 900, 5000]))}"
            case "add" if isinstance(parent, dict):
                parent[draw(st.sampled_from(["x", "kind", "version", "format", "n_layer"]))] = draw(odd)
    return re.sub(r'"deep (\d+)"', lambda found: "[" * int(found[1]) + "]" * int(found[1]), json.dumps(document))


def spoiled(data, draw):
    """Bytes with something done to them that no editor of JSON would do."""
    head = st.integers(0, min(len(data), 64))  # where headers are
    at = draw(head | st.integers(0, len(data)))
    match draw(st.sampled_from(["cut", "flip", "insert", "random", "nest", "twice"])):
        case "cut":
            return data[:at]
        case "flip" if at < len(data):
            return data[:at] + bytes([data[at] ^ 1 << draw(st.integers(0, 7))]) + data[at + 1 :]
        case "insert":
            return data[:at] + draw(st.binary(max_size=20)) + data[at:]
        case "random":
            return draw(st.binary(max_size=60))
        case "nest":
            return b"[" * draw(st.sampled_from([100, 100_000])) + data
    return data.replace(b"{", b'{"format": 1, "format": 2,', 1)


def change(data, draw):
    """One mutation of a file: of the document in it where it is JSON, of a line, or of its bytes."""
    if draw(st.integers(0, 3)) == 0:
        return spoiled(data, draw)
    try:
        return mutated(json.loads(data), draw).encode()
    except ValueError:
        pass
    lines = data.splitlines(keepends=True)
    if data.startswith(b"{") and len(lines) > 1:
        at = draw(st.integers(0, len(lines) - 1))
        lines[at] = mutated(json.loads(lines[at]), draw).encode() + b"\n"
        return b"".join(lines)
    return spoiled(data, draw)


@pytest.mark.fault(
    "B9",
    "JSON, lines and headers of every kind that is read, mutated: 2,000 files, or GROUNDUP_FUZZ of them",
    "only errors of ours come out, and memory stays bounded",
)
@pytest.mark.skipif(sys.platform == "win32", reason="asks the system how much memory was taken")
@pytest.mark.parametrize("name", READERS)
def test_a_mutated_file_ends_in_one_line(name, tmp_path):
    reader, folder = READERS[name], tmp_path / "folder"
    reader.make(folder)
    whole = {file: (folder / file).read_bytes() for file in reader.files}
    reader.read(folder)  # what is mutated below is right before that
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = 0

    @settings(
        max_examples=int(os.environ.get("GROUNDUP_FUZZ", "2000")) // len(READERS), deadline=None, database=None,
        phases=[Phase.generate], suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(data=st.data())
    def try_one(data):
        nonlocal refused
        file = data.draw(st.sampled_from(reader.files))
        path = folder / file
        path.write_bytes(change(whole[file], data.draw))
        try:
            reader.read(folder)
        except UserError:
            refused += 1
        finally:
            path.write_bytes(whole[file])

    try_one()
    assert refused > 10
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / unit < MEBIBYTES
