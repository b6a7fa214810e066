"""Who computes the products of training: measured once and remembered."""

import json

import pytest
import torch

import needs
from groundup.config.model import GPTConfig, ModernConfig
from groundup.kernels.compiled import load_kernels
from groundup.parts import pick_blocks
from groundup.parts.pick_blocks import pick_products
from groundup.runtime.stored import PlainKernels

pytestmark = needs.compiler
SHAPE = ModernConfig(n_layer=1, n_head=2, n_embd=32, block_size=16, vocab_size=7)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    kernels = load_kernels(lambda _: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(pick_blocks, "pick_matmul", lambda *_, **__: "default")
    return kernels


@pytest.fixture
def kernels(cache):
    return cache


def least(monkeypatch, one_call):
    """Seconds in place of measured ones; and how often the real steps ran without an error."""
    ran = []

    def turns(ways):
        ran.extend(way() for way in ways.values())
        return {"one call": one_call, "library": 1.0}

    monkeypatch.setattr(pick_blocks, "turns", turns)
    return ran


@pytest.mark.parametrize(("seconds", "expected"), [(0.5, True), (1.04, True), (1.1, False)])
def test_a_library_must_be_faster_by_far(kernels, monkeypatch, seconds, expected):
    ran = least(monkeypatch, seconds)
    assert pick_products(kernels, SHAPE, half=False, rows=64) == ("default", expected)
    assert len(ran) == 2
    assert pick_products(kernels, SHAPE, half=False, rows=64) == ("default", expected)
    assert len(ran) == 2


def test_it_is_measured_once_a_shape(kernels, monkeypatch, tmp_path):
    ran = least(monkeypatch, 0.5)
    for shape in (SHAPE, GPTConfig(n_layer=9, n_head=2, n_embd=32, block_size=16, vocab_size=99)):
        assert pick_products(kernels, shape, half=False, rows=64)[1]
    assert pick_products(kernels, SHAPE, half=False, rows=32)[1]
    assert len(ran) == 4
    assert len(json.loads((tmp_path / "groundup" / "blocks.json").read_text())) == 2


def test_measuring_leaves_no_trace(kernels):
    before = torch.get_rng_state()
    assert pick_products(kernels, SHAPE, half=False, rows=64)[0] == "default"
    assert before.equal(torch.get_rng_state())


@pytest.mark.parametrize("change", [{"norm": "rms"}, {"n_embd": 400, "n_head": 25}, {"n_head": 4}], ids=str)
def test_what_the_kernels_do_not_compute_is_left_to_the_library(kernels, monkeypatch, change):
    ran = least(monkeypatch, 0.1)
    shape = ModernConfig(**{"n_layer": 1, "n_head": 2, "n_embd": 32, "block_size": 16, "vocab_size": 7, **change})
    assert pick_products(kernels, shape, half=False, rows=64) == ("default", False)
    assert pick_products(kernels, SHAPE, half=False, rows=64, lora=True) == ("default", False)
    assert pick_products(PlainKernels(), SHAPE, half=False, rows=64) == ("default", False)
    assert not ran


def test_in_16_bits_what_the_kernels_multiply_decides(kernels):
    assert pick_products(kernels, SHAPE, half=True, rows=64) == ("default", kernels.has_bf16)
    assert pick_products(kernels, SHAPE, half=True, rows=64, lora=True) == ("default", False)
    assert pick_products(PlainKernels(), SHAPE, half=True, rows=64) == ("default", False)
