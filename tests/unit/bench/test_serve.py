import importlib.util
import json
import multiprocessing
import subprocess
from types import SimpleNamespace

import pytest

from forked import ForkedPopen, server
from groundup.bench.serve import Options, bench
from groundup.config.errors import UsageError
from groundup.config.model import GPTConfig
from groundup.contestants import servers
from groundup.contestants.clients import Answers, Load
from groundup.serving.models import MAX_SLOTS

MODEL = GPTConfig(n_layer=1, n_head=2, n_embd=64, block_size=24, vocab_size=300)


def test_all_clients_of_all_servers_are_answered(monkeypatch):
    context = server()  # of processes that need not import anything
    monkeypatch.setattr(multiprocessing, "get_context", lambda _: context)
    monkeypatch.setattr(servers, "subprocess", SimpleNamespace(Popen=ForkedPopen, PIPE=subprocess.PIPE))
    lines = []
    options = Options(
        model=MODEL, weights="fp32", clients=(1, 3), requests=2, prompt_tokens=4, new_tokens=8, threads=1, rounds=1
    )
    result = bench(options, lines.append)
    assert json.loads(json.dumps(result)) == result
    there = importlib.util.find_spec("xllamacpp") is not None
    assert list(result["servers"]) == ["groundup", "llama.cpp F32"][: 1 + there]
    assert len(lines) == 2 * len(result["servers"])
    for rows in result["servers"].values():
        assert list(rows) == ["1", "3"]
        for row in rows.values():
            assert row["tokens_per_sec"] > 0
            assert 0 < row["first_token_p50_ms"] <= row["first_token_p99_ms"]
            assert 0 <= row["between_tokens_p50_ms"] <= row["between_tokens_p99_ms"]
    assert result["servers"]["groundup"]["3"]["engine_tokens_per_sec"] > 0


def test_figures_are_the_arithmetic_of_what_clients_saw():
    told = Answers(first=[0.1, 0.3, 0.2], between=[0.01] * 98 + [0.5, 0.7], tokens=50, seconds=4.0)
    told.add(Answers(first=[0.4], tokens=10, seconds=1.0))
    assert told.figures() == {
        "tokens_per_sec": 12.0,
        "first_token_p50_ms": 250.0,
        "first_token_p99_ms": 400.0,
        "between_tokens_p50_ms": 10.0,
        "between_tokens_p99_ms": 700.0,
    }


def test_no_prompt_is_asked_twice():
    """A server that has read a prompt before need not read it again: it would seem faster than it is."""
    load = Load(vocab_size=300, requests=3, prompt_tokens=8, new_tokens=1)
    asked = [
        tuple(prompt)
        for n_clients in (1, 2, 8)
        for turn in (0, 1, 2)
        for client in load.prompts(n_clients, turn)
        for prompt in client
    ]
    assert len(set(asked)) == len(asked) == 3 * 3 * (1 + 2 + 8)


def test_the_engine_alone_has_the_slots_of_the_server():
    assert servers.MAX_SLOTS == MAX_SLOTS


def test_bad_options():
    with pytest.raises(UsageError, match="prompt-tokens and new-tokens are 28"):
        Options(model=MODEL, prompt_tokens=20, new_tokens=8)
    with pytest.raises(UsageError, match="1 to 64"):
        Options(clients=(1, 65))
