"""What multiplies many rows: measured on a machine, and remembered."""

import json
from typing import get_args

import pytest
import torch

from groundup.inference import many_rows as module
from groundup.runtime.stored import PlainKernels


@pytest.fixture(autouse=True)
def _cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def pick(**kwargs):
    return module.pick_many.__wrapped__(PlainKernels(), "int8", **{"n_embd": 16} | kwargs)


def test_the_fastest_way_is_taken_and_measured_once(monkeypatch, tmp_path):
    slow = {"default": 3.0, "onednn": 2.0, "kernels": 1.0}
    monkeypatch.setattr(module, "turns", lambda ways: {way: slow[way] for way in ways})
    first = pick()
    assert first == ("onednn" if module.onednn_is_there(torch.device("cpu")) else "default")
    monkeypatch.setattr(module, "turns", pytest.fail)
    assert pick() == first
    assert list(json.loads((tmp_path / "groundup" / "many-rows.json").read_text()).values()) == [first]
    monkeypatch.setattr(module, "turns", lambda ways: dict.fromkeys(ways, 1.0))
    assert pick(n_embd=24) == "default"


def test_it_is_really_measured():
    assert pick() in get_args(module.Many)
