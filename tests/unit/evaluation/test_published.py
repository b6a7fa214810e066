"""GPT-2's published weights give the published scores (make test-network; minutes on a GPU, hours on a CPU)."""

import json
from pathlib import Path

import pytest

from groundup.cli.main import main

HELLASWAG = {"acc": 0.2859, "acc_norm": 0.2955}
"""build-nanogpt's completion style, over all 10,042 examples."""
HARNESS = {"lambada": 40.0554, "wikitext": 37.37}
"""lm-evaluation-harness's lambada_openai (perplexity of the last word) and wikitext (perplexity per word)."""
PAPER = {"lambada": 35.13, "wikitext": 37.50}
"""Radford et al. 2019, table 3. Nobody has told how its LAMBADA was read; with OpenAI's file and whole last words, the
harness and we are 14 % above it."""


@pytest.mark.network
@pytest.mark.timeout(6 * 3600)
def test_scores_of_the_published_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["import", "hf:gpt2"]) == 0
    assert main(["eval", "models/gpt2", "--tasks", "hellaswag,lambada,wikitext"]) == 0
    found = json.loads(Path("models/gpt2/eval.json").read_text())["tasks"]
    assert found["hellaswag"]["examples"] == 10_042
    for key, value in HELLASWAG.items():
        assert found["hellaswag"][key] == pytest.approx(value, abs=0.0005)
    assert found["lambada"]["examples"] == 5_153
    assert found["lambada"]["acc"] == pytest.approx(0.3256, abs=0.0005)
    measured = {"lambada": found["lambada"]["perplexity"], "wikitext": found["wikitext"]["word_perplexity"]}
    assert measured == pytest.approx(HARNESS, rel=1e-3)
    assert measured == pytest.approx(PAPER, rel=0.15)
    assert measured["wikitext"] == pytest.approx(PAPER["wikitext"], rel=0.005)
