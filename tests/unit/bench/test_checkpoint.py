import json

import pytest
import torch

from groundup.bench import checkpoint as module
from groundup.bench.checkpoint import Options, bench
from groundup.checkpoint.state import CheckpointStore
from groundup.cli.main import main
from groundup.config.errors import UserError
from groundup.config.model import GPTConfig

MODEL = GPTConfig(n_layer=1, n_head=2, n_embd=8, block_size=16, vocab_size=50257)


def test_every_way_is_measured_and_nothing_is_left(tmp_path):
    lines = []
    result = bench(Options(model=MODEL, folder=tmp_path, rounds=2), lines.append)
    assert list(tmp_path.iterdir()) == []
    assert len(lines) == 7
    assert result["parameters"] == 50257 * 8 + 16 * 8 + 12 * 8 * 8 + 13 * 8 + 2 * 8  # wte, wpe, block, ln_f
    assert result["bytes"] > 3 * 4 * result["parameters"]
    assert all(result[key] >= 0 for key in result if key.endswith(("_seconds", "_ms")))
    assert result["longest_stall_ms"] >= result["stall_ms"]
    assert json.loads(json.dumps(result)) == result


def test_it_compares_what_is_loaded(tmp_path, monkeypatch):
    load = CheckpointStore.load

    def wrong(self, path):
        checkpoint = load(self, path)
        checkpoint.tensors["optimizer0"]["0.exp_avg"][0, 0] += 1
        return checkpoint

    monkeypatch.setattr(module.CheckpointStore, "load", wrong)
    with pytest.raises(UserError, match="what was loaded is not what was saved"):
        bench(Options(model=MODEL, folder=tmp_path, rounds=1), lambda line: None)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_one_line(tmp_path, capsys):
    assert (
        main(["bench", "checkpoint", f"--folder={tmp_path / 'nowhere'}", "--model.n-layer=1", "--model.n-embd=12"]) == 1
    )
    assert "nowhere does not exist" in capsys.readouterr().err


def test_the_state_is_one_of_training():
    contents = module._contents(MODEL, torch.device("cpu"))
    assert len(contents.tensors["optimizer0"]) == 3 * len(contents.model)
