"""vLLM serves an exported folder, and answers as `groundup serve` does but for what docs/guide/laptop-to-vllm.md names.

Needs the program `vllm` on the PATH, or its path in VLLM: it wants an environment of its own.
"""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import httpx
import pytest
import torch

import needs
from groundup.checkpoint.model_folder import save_model
from groundup.cli.main import main
from groundup.config.model import GPTConfig
from groundup.contestants.servers import our_server
from groundup.model.gpt import GPT
from groundup.model.init import init_weights
from groundup.tokenizer.gpt2 import load_gpt2

VLLM = os.environ.get("VLLM") or shutil.which("vllm")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(VLLM is None, reason="needs vLLM")]
CONTEXT = 64


@pytest.fixture(scope="module")
def ask(tmp_path_factory):
    """Ask both servers the same: the answers of ours and of vLLM."""
    needs.gpt2_vocabulary()
    folder = tmp_path_factory.mktemp("models")
    shape = GPTConfig(n_layer=2, n_head=2, n_embd=64, block_size=CONTEXT, vocab_size=50257)
    model = init_weights(GPT(shape), seed=0)
    with torch.no_grad():
        model.wte.weight.mul_(8)  # sharper than as drawn: tokens differ by more than rounding
    save_model(folder / "tiny", model, load_gpt2(), {})
    assert main(["export", str(folder / "tiny"), str(folder / "hf"), "--format", "hf"]) == 0
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [str(folder / "hf"), "--served-model-name", "tiny", "--port", str(port), "--dtype", "float32"]
    path = f"{Path(VLLM).parent}{os.pathsep}{os.environ['PATH']}"  # its compiler calls programs from there
    with our_server(folder / "tiny", "fp32", 1) as ours, (folder / "log").open("wb") as log:
        theirs = subprocess.Popen([VLLM, "serve", *words], stdout=log, stderr=log, env=os.environ | {"PATH": path})
        servers = [f"http://127.0.0.1:{of}/" for of in (ours, port)]
        try:
            while not answers(f"{servers[1]}health"):
                assert theirs.poll() is None, (folder / "log").read_text()
                time.sleep(1)
            yield lambda path, **body: [httpx.post(f"{url}{path}", json=body, timeout=60) for url in servers]
        finally:
            theirs.terminate()
            theirs.wait()


def answers(url):
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False


def completions(ask, **body):
    """The choices of both."""
    found = ask("v1/completions", model="tiny", **body)
    assert [answer.status_code for answer in found] == [200, 200], [answer.text for answer in found]
    return [answer.json()["choices"][0] for answer in found]


@pytest.mark.parametrize("prompt", ["Hello world, this is", "1 + 1 =", [50256], [15496] * 40])
def test_the_same_tokens_with_the_same_probabilities(ask, prompt):
    asked = {"max_tokens": 20, "temperature": 0, "logprobs": 5, "echo": True, "return_tokens_as_token_ids": True}
    ours, theirs = (choice["logprobs"] for choice in completions(ask, prompt=prompt, ignore_eos=True, **asked))
    assert ours["tokens"] == theirs["tokens"]
    assert ours["token_logprobs"][0] is theirs["token_logprobs"][0] is None
    torch.testing.assert_close(
        torch.tensor(ours["token_logprobs"][1:]), torch.tensor(theirs["token_logprobs"][1:]), rtol=1e-5, atol=1e-4
    )
    for mine, other in zip(ours["top_logprobs"][1:], theirs["top_logprobs"][1:], strict=True):
        assert mine == pytest.approx(other, rel=1e-5, abs=1e-4)


@pytest.mark.parametrize(
    "more",
    [
        {"logit_bias": {"50": 100}},
        {"repetition_penalty": 1.5},
        {"presence_penalty": 2.0, "frequency_penalty": 2.0},
        {"stop": [" the", "e"]},
        {"temperature": 2.0, "top_k": 1},
    ],
    ids=lambda more: next(iter(more)),
)
def test_fields_mean_the_same(ask, more):
    ours, theirs = completions(ask, **({"prompt": "the ships of the sea", "max_tokens": 20, "temperature": 0} | more))
    assert ours["text"] == theirs["text"]
    assert ours["finish_reason"] == theirs["finish_reason"]


def test_tokens_of_a_text(ask):
    ours, theirs = (answer.json() for answer in ask("tokenize", model="tiny", prompt="Łódź is a city"))
    assert ours["tokens"] == theirs["tokens"]
    ours, theirs = (answer.json() for answer in ask("detokenize", model="tiny", tokens=ours["tokens"]))
    assert ours["prompt"] == theirs["prompt"] == "Łódź is a city"


class TestWhatThePageSaysDiffers:
    def test_seeds(self, ask):
        asked = {"prompt": "a", "max_tokens": 12, "seed": 7}
        first, second = completions(ask, **asked), completions(ask, **asked)
        assert [choice["text"] for choice in first] == [choice["text"] for choice in second]
        assert first[0]["text"] != first[1]["text"]

    def test_text_offset(self, ask):
        ours, theirs = completions(ask, prompt="Hello", max_tokens=3, temperature=0, logprobs=1)
        assert ours["logprobs"]["text_offset"][0] == len("Hello")
        assert theirs["logprobs"]["text_offset"][0] == 0

    def test_a_text_that_would_not_fit(self, ask):
        ours, theirs = ask("v1/completions", model="tiny", prompt=[5] * 60, max_tokens=10)
        assert ours.status_code == 400
        assert theirs.json()["usage"]["completion_tokens"] == 4

    @pytest.mark.parametrize(
        ("body", "codes"),
        [
            ({"prompt": [5] * 70}, [400, 400]),
            ({"prompt": ""}, [200, 400]),
            ({"prompt": "a", "temprature": 0}, [400, 200]),
            ({"prompt": "a", "logprobs": 21}, [400, 400]),
            ({"prompt": [60000]}, [400, 400]),
            ({"prompt": "a", "temperature": 2.5}, [200, 400]),
        ],
    )
    def test_what_is_refused(self, ask, body, codes):
        found = ask("v1/completions", model="tiny", max_tokens=2, **body)
        assert [answer.status_code for answer in found] == codes

    def test_chat_is_refused_by_both(self, ask):
        found = ask("v1/chat/completions", model="tiny", messages=[{"role": "user", "content": "hi"}])
        assert [answer.status_code for answer in found] == [400, 400]
