"""Files that somebody made to do harm: code in them never runs, and sizes in them cost no memory."""

import io
import json
import os
import pickle
import struct

import numpy as np
import pytest
import torch

from groundup.checkpoint.model_folder import load_model
from groundup.config.errors import UserError
from groundup.files import atomic as files


class Payload:
    """What a pickle makes of it leaves a canary."""

    def __init__(self, call, *words):
        self.call, self.words = call, words

    def __reduce__(self):
        return self.call, self.words


def touch(path):
    return f"open({str(path)!r}, 'w').close()"


def saved(value, **options):
    file = io.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()


def array(value):
    file = io.BytesIO()
    np.save(file, np.array([value], dtype=object), allow_pickle=True)
    return file.getvalue()


def numpy_load(data):
    return np.load(io.BytesIO(data), allow_pickle=True)


def torch_load(data):
    return torch.load(io.BytesIO(data), weights_only=False)


PAYLOADS = {
    "os.system, protocol 0": (lambda c: f"cposix\nsystem\n(S'touch \"{c}\"'\ntR.".encode(), pickle.loads),
    "os.system": (lambda c: pickle.dumps(Payload(os.system, f'touch "{c}"')), pickle.loads),
    "eval": (lambda c: pickle.dumps(Payload(eval, touch(c))), pickle.loads),
    "exec": (lambda c: pickle.dumps(Payload(exec, touch(c))), pickle.loads),
    "open": (lambda c: pickle.dumps(Payload(open, str(c), "w")), pickle.loads),
    "in a dictionary of tensors": (
        lambda c: pickle.dumps({"wte.weight": torch.zeros(2), "x": [Payload(open, str(c), "w")]}),
        pickle.loads,
    ),
    "torch.save": (lambda c: saved({"model": Payload(open, str(c), "w")}), torch_load),
    "torch.save, old format": (
        lambda c: saved({"m": Payload(open, str(c), "w")}, _use_new_zipfile_serialization=False),
        torch_load,
    ),
    "bytes of torch.save in torch.save": (
        lambda c: saved({"m": saved(Payload(open, str(c), "w"))}),
        lambda data: torch_load(torch_load(data)["m"]),
    ),
    "npy of objects": (lambda c: array(Payload(open, str(c), "w")), numpy_load),
}
"""How each is made, and who would fall for it."""


@pytest.mark.fault(
    "B1",
    "a pickle that runs a command, in ten forms, in place of each file and under the names that others unpickle",
    "refused; the payload never runs",
)
@pytest.mark.parametrize("kind", PAYLOADS)
def test_opening_a_checkpoint_runs_nothing(store, save, tmp_path, kind):
    canary = tmp_path / "canary"
    make, victim = PAYLOADS[kind]
    payload = make(canary)
    victim(payload)
    assert canary.exists()  # the payload works where somebody unpickles it
    canary.unlink()

    path = save(1)
    originals = {file: file.read_bytes() for file in path.iterdir()}
    for file, original in originals.items():
        file.write_bytes(payload)
        refused(path, store)  # its hash is another
        if file.name != files.MANIFEST:
            (path / files.MANIFEST).unlink()
            files._seal(path, {})
            refused(path, store)  # even where a manifest vouches for it
        file.write_bytes(original)
        (path / files.MANIFEST).write_bytes(originals[path / files.MANIFEST])
    # The names under which torch.distributed.checkpoint, torch, numpy and others look for a pickle.
    for name in (".metadata", "__0_0.distcp", "model.pt", "pytorch_model.bin", "meta.pkl", "tokenizer.npy"):
        (path / name).write_bytes(payload)
    store.load(path)
    load_model(path)
    assert not canary.exists()


def refused(path, store):
    """By who opens a model or by who goes on from a checkpoint: each reads files that the other does not."""
    errors = []
    for opened in (load_model, store.load):
        try:
            opened(path)
        except UserError as error:
            errors.append(str(error))
    assert errors
    assert not any("\n" in error for error in errors)


def raw(header, data=b""):
    text = header if isinstance(header, bytes) else header.encode()
    return struct.pack("<Q", len(text)) + text + data


HOSTILE = {
    "a header of 2^63 bytes": struct.pack("<Q", 2**63) + b"{}",
    "a header beyond the file": struct.pack("<Q", 1000) + b"{}",
    "no JSON": raw(b"\xff\xfe"),
    "a shape of 2^62 numbers": raw(
        '{"wte.weight":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,4]}}', b"1234"
    ),
    "a product that overflows": raw(
        '{"wte.weight":{"dtype":"F32","shape":[4294967296,4294967297],"data_offsets":[0,4]}}', b"1234"
    ),
    "data beyond the file": raw('{"wte.weight":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', b"1234"),
    "tensors that overlap": raw(
        '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        b"1234",
    ),
    "a hole": raw('{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}', b"12345678"),
    "a negative offset": raw('{"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}}', b"1234"),
    "nested too deeply": raw('{"a":' + "[" * 100_000 + "]" * 100_000 + "}"),
}


@pytest.mark.fault(
    "B2",
    "safetensors whose header lies: sizes beyond the file, overlaps, holes, overflow; the manifest vouches for it",
    "refused in one line that names the file",
)
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_safetensors_are_refused(store, save, kind):
    path = save(1)
    for name in ("model.safetensors", "training.safetensors"):
        original = (path / name).read_bytes()
        (path / name).write_bytes(HOSTILE[kind])
        (path / files.MANIFEST).unlink()
        files._seal(path, {})
        with pytest.raises(UserError) as error:
            store.load(path)
        assert name in str(error.value)
        assert "\n" not in str(error.value)
        (path / name).write_bytes(original)


@pytest.mark.fault(
    "B3",
    "a config that declares a model far larger than the file beside it",
    "refused before memory for it is taken",
)
@pytest.mark.parametrize(("key", "size"), [("n_embd", 2**20), ("n_layer", 10_000), ("block_size", 2**30)])
def test_a_config_of_a_huge_model_takes_no_memory(save, key, size):
    path = save(1)
    values = json.loads((path / "config.json").read_text())
    values["model"][key] = size
    (path / "config.json").write_text(json.dumps(values))
    (path / files.MANIFEST).unlink()
    files._seal(path, {})
    with pytest.raises(UserError, match="does not fit its config"):
        load_model(path)
