"""Which weights are fastest here: measured once, and remembered."""

import json

import pytest
import torch

from groundup.inference import pick as module
from groundup.runtime import timing
from groundup.runtime.stored import PlainKernels


class TestChoosing:
    @pytest.fixture(autouse=True)
    def _cache(self, monkeypatch, tmp_path):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setattr(module, "OUT_OF_CACHE", 0)
        monkeypatch.setattr(module, "load_kernels", lambda say: PlainKernels())
        self.file = tmp_path / "groundup" / "weights.json"
        self.pick = lambda **kwargs: module.pick_weights(
            torch.device("cpu"), **{"n_embd": 32, "rows": 1, "say": pytest.fail} | kwargs
        )

    def test_a_choice_is_measured_once_per_shape(self, monkeypatch):
        first = self.pick()
        assert first in module.CANDIDATES
        monkeypatch.setattr(module, "_fastest", lambda *shape: "bf16")
        assert self.pick() == first
        assert self.pick(rows=2) == "bf16"
        assert len(json.loads(self.file.read_text())) == 2

    @pytest.mark.parametrize("text", ["{", "[]", "{}", '["x"]', '{"x": ["fp32"]}', "[" * 100_000])
    def test_a_damaged_file_is_measured_again(self, text):
        self.file.parent.mkdir()
        self.file.write_text(text)
        assert self.pick() in module.CANDIDATES
        assert len(json.loads(self.file.read_text())) == 1

    def test_fewer_bits_must_be_faster(self, monkeypatch):
        clock = iter(range(1000))  # every product takes as long as every other
        monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))
        assert self.pick() == "fp32"
