"""EleutherAI's harness asks the server by its own command, and finds what `groundup eval` finds."""

import json
import os
import re
import subprocess
import sys

import pytest
import torch

import needs
from forked import ForkedPopen
from groundup.checkpoint.model_folder import save_model
from groundup.config.model import GPTConfig
from groundup.model.gpt import GPT
from groundup.model.init import init_weights
from groundup.tokenizer.gpt2 import load_gpt2

pytestmark = pytest.mark.slow
WORDS = ["the sea", "was calm", "and", "old ships", "sailed", "on", "through fog", "while", "a gull", "cried", "above"]
CONTEXT = 64
TASKS = {
    "choice": """
output_type: multiple_choice
doc_to_text: "{{ctx}}"
doc_to_target: "{{label}}"
doc_to_choice: "{{endings}}"
metric_list: [{metric: acc}]
""",
    "words": """
output_type: loglikelihood
doc_to_text: "{{text.rpartition(' ')[0]}}"
doc_to_target: " {{text.rpartition(' ')[2]}}"
metric_list: [{metric: acc}, {metric: perplexity}]
""",
    "whole": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: bits_per_byte}]
""",
}


@pytest.fixture
def folder(tmp_path):
    needs.gpt2_vocabulary()
    shape = GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=CONTEXT, vocab_size=50257)
    model = init_weights(GPT(shape), seed=0)
    with torch.no_grad():
        model.wte.weight.mul_(8)  # sharper than as drawn: answers differ by more than rounding
    save_model(tmp_path / "ours", model, load_gpt2(), {})
    return tmp_path / "ours"


@pytest.fixture
def url(folder):
    process = ForkedPopen(
        [sys.executable, "-m", "groundup", "serve", str(folder), "--port=0", "--no-open"],
        stdout=subprocess.PIPE,
        text=True,
    )
    yield re.search(r"http://\S+:\d+/", process.stdout.readline())[0]
    process.kill()
    process.wait()


@pytest.fixture
def files(tmp_path):
    """Data of each task, made of a few words."""
    generator = torch.Generator().manual_seed(0)

    def sentence(n):
        return " ".join(WORDS[i] for i in torch.randint(len(WORDS), (n,), generator=generator).tolist())

    rows = {
        "choice": [
            {"ctx": sentence(2 + n), "endings": [sentence(1 + (n + k) % 4) for k in range(3)], "label": n % 3}
            for n in range(12)
        ],
        "words": [{"text": sentence(4 + n % 8)} for n in range(12)],
        "whole": [{"text": sentence(20)}],
    }
    for name, found in rows.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    (tmp_path / "whole.txt").write_text(rows["whole"][0]["text"])
    return tmp_path


# Scored prompts hold their last token, which a model need not see; so the server takes one token less of a text than
# `groundup eval` does where a text does not fit. Here all fit.
def test_lm_eval_against_the_server_finds_the_numbers_of_groundup_eval(folder, url, files, record_property):
    pytest.importorskip("lm_eval")
    pytest.importorskip("tenacity")
    tasks = files / "tasks"
    tasks.mkdir()
    for name, text in TASKS.items():
        data = f"dataset_path: json\ndataset_kwargs:\n  data_files:\n    validation: {files / name}.jsonl\n"
        (tasks / f"{name}.yaml").write_text(f"task: {name}\n{data}validation_split: validation\n{text}")
    model_args = f"model=ours,base_url={url}v1/completions,tokenizer_backend=remote,max_length={CONTEXT + 1}"
    words = ["run", "--model", "local-completions", "--model_args", model_args, "--tasks", ",".join(TASKS)]
    more = ["--include_path", str(tasks), "--batch_size", "4", "--output_path", str(files / "out"), "--log_samples"]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(files / "cache")}
    subprocess.run([sys.executable, "-m", "lm_eval", *words, *more], check=True, env=os.environ | offline)
    (found,) = (files / "out").rglob("results_*.json")
    theirs = json.loads(found.read_text())["results"]

    given = [str(files / name) for name in ("choice.jsonl", "words.jsonl", "whole.txt")]
    subprocess.run([sys.executable, "-m", "groundup", "eval", str(folder), f"--tasks={','.join(given)}"], check=True)
    ours = json.loads((folder / "eval.json").read_text())["tasks"]
    assert 0 < ours["choice.jsonl"]["acc"] < 1
    pairs = [
        (theirs["choice"]["acc,none"], ours["choice.jsonl"]["acc"]),
        (theirs["words"]["acc,none"], ours["words.jsonl"]["acc"]),
        (theirs["words"]["perplexity,none"], ours["words.jsonl"]["perplexity"]),
        (theirs["whole"]["bits_per_byte,none"], ours["whole.txt"]["bits_per_byte"]),
    ]
    for by_server, by_us in pairs:
        assert by_server == pytest.approx(by_us, rel=1e-6, abs=1e-6)
    record_property("figure", f"differ by at most {max(abs(a / b - 1) for a, b in pairs if b):.1e}")
