import json

import pytest

import needs
from groundup.bench import eval as module
from groundup.bench.eval import Options, bench
from groundup.cli.main import main
from groundup.config.errors import UserError
from groundup.config.model import GPTConfig
from groundup.contestants.contest import Timing

MODEL = GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=256, vocab_size=50257)


@pytest.fixture
def raced(monkeypatch):
    """No process is started; everybody takes a known time."""
    seconds = {"groundup": [1.0, 2.0, 4.0], "one at a time": [4.0, 6.0, 12.0]}
    monkeypatch.setattr(
        module, "race", lambda names, *_, **__: {name: Timing(seconds[name], 5_000_000) for name in names}
    )
    monkeypatch.setattr(module, "keep_freed_memory", lambda: True)


def test_scores_are_compared_before_speeds(raced):
    lines = []
    result = bench(Options(model=MODEL, examples=7, device="cpu"), lines.append)
    assert 0 < result["largest_difference"] <= 1e-5
    assert result["examples"] == 7
    assert result["contestants"]["groundup"]["examples_per_sec"] == 3.5
    assert result["ratio"] == 3.0
    assert len(lines) == 2
    assert json.loads(json.dumps(result)) == result


def test_other_scores_end_the_race(raced, monkeypatch):
    monkeypatch.setattr(module, "_ours", lambda model, questions: [[-1.0] * len(q.continuations) for q in questions])
    with pytest.raises(UserError, match=r"the scores differ by .*: this is no fair comparison"):
        bench(Options(model=MODEL, examples=2, device="cpu"), lambda line: None)


def test_examples_of_a_file(raced, tmp_path):
    needs.gpt2_vocabulary()
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"ctx": "A man sits on a roof. he", "endings": ["starts pulling up roofing.", "sleeps"], "label": 0}\n'
    )
    assert bench(Options(model=MODEL, path=path, device="cpu"), lambda line: None)["context_tokens"] == 8
    with pytest.raises(UserError, match="--path needs a model of 50257 ids, got 65"):
        bench(Options(model=GPTConfig(vocab_size=65), path=path, device="cpu"), lambda line: None)


@pytest.mark.slow
def test_the_race_itself(capsys):
    words = ["--model.n-layer=1", "--model.n-embd=16", "--model.n-head=2", "--examples=3", "--rounds=1", "--device=cpu"]
    assert main(["bench", "eval", *words]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(result["contestants"]) == {"groundup", "one at a time"}
    assert result["ratio"] > 0
