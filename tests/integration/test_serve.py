"""The server as a process, called by the official client."""

import os
import re
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest

from forked import ForkedPopen
from groundup.checkpoint.model_folder import save_model
from groundup.config.generate import SamplingConfig
from groundup.generation.text import TextGenerator


@pytest.fixture
def openai():
    """The official client, which takes a second to import: where no test of it runs, nobody waits."""
    return pytest.importorskip("openai")


@pytest.fixture
def folder(tmp_path, tiny_model, alphabet):
    save_model(tmp_path / "tiny", tiny_model, alphabet, {})
    return tmp_path / "tiny"


@pytest.fixture
def start():
    """Start servers, and end them with the test."""
    running = []

    def begin(*words, env=()):
        process = ForkedPopen(
            [sys.executable, "-m", "groundup", "serve", *map(str, words), "--no-open"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | dict(env),
        )
        running.append(process)
        line = process.stdout.readline()
        found = re.search(r"http://\S+:\d+/", line)
        return process, found[0] if found else line + process.stderr.read()

    yield begin
    for process in running:
        process.kill()
        process.wait()


def test_the_official_client_runs_what_is_documented(openai, start, folder, tiny_model, alphabet):
    process, url = start(folder, "--port", 0)
    client = openai.OpenAI(base_url=f"{url}v1", api_key="none", max_retries=0)
    assert [model.id for model in client.models.list()] == ["tiny"]
    sampling = SamplingConfig(temperature=0.8, top_p=0.9, presence_penalty=0.5)
    expected = TextGenerator(tiny_model.eval(), alphabet).generate(
        "hello", max_new_tokens=8, seed=3, sampling=sampling, num_samples=2
    )
    options = {"temperature": 0.8, "top_p": 0.9, "presence_penalty": 0.5, "seed": 3, "n": 2, "max_tokens": 8}
    answer = client.completions.create(model="tiny", prompt="hello", **options)
    assert [choice.text for choice in answer.choices] == expected
    assert answer.usage.completion_tokens == 16

    texts = ["", ""]
    usage = None
    stream = client.completions.create(
        model="tiny", prompt="hello", stream=True, stream_options={"include_usage": True}, **options
    )
    for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] += choice.text
        usage = chunk.usage or usage
    assert texts == expected
    assert usage.completion_tokens == 16

    scored = client.completions.create(model="tiny", prompt="hello", max_tokens=0, echo=True, logprobs=2)
    assert scored.choices[0].logprobs.token_logprobs[0] is None
    assert len(scored.choices[0].logprobs.top_logprobs[1]) in (2, 3)
    biased = client.completions.create(model="tiny", prompt="hello", max_tokens=3, logit_bias={"4": 100}, temperature=0)
    assert biased.choices[0].text == alphabet.decode([4]) * 3
    more = client.completions.create(
        model="tiny", prompt="hello", user="me", extra_body={"top_k": 50, "min_p": 0.0, "ignore_eos": True}, **options
    )
    assert [choice.text for choice in more.choices] == expected
    with pytest.raises(openai.BadRequestError, match="did you mean max_tokens") as told:
        client.completions.create(model="tiny", prompt="hello", extra_body={"max_new_tokens": 3})
    assert (told.value.param, told.value.code) == ("max_new_tokens", "unknown_field")
    with pytest.raises(openai.BadRequestError, match="context is 16 tokens"):
        client.completions.create(model="tiny", prompt="a" * 20)
    with pytest.raises(openai.NotFoundError, match="there is no model"):
        client.completions.create(model="other", prompt="a")
    with pytest.raises(openai.BadRequestError, match="base model"):
        client.chat.completions.create(model="tiny", messages=[])

    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 0
    assert process.stderr.read() == ""


def test_a_key_is_asked_for(openai, start, folder):
    _, url = start(folder, "--port", 0, env={"GROUNDUP_API_KEY": "secret"}.items())
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{url}v1", api_key="wrong", max_retries=0).models.list()
    assert openai.OpenAI(base_url=f"{url}v1", api_key="secret").models.list().data[0].id == "tiny"
    assert httpx.get(url, timeout=60).status_code == 200


def test_texts_that_are_written_end_before_the_server_does(openai, start, folder):
    process, url = start(folder, "--port", 0)
    client = openai.OpenAI(base_url=f"{url}v1", api_key="none", max_retries=0)
    stream = client.completions.create(model="tiny", prompt="a", max_tokens=15, stream=True, n=8)
    next(stream)
    process.send_signal(signal.SIGTERM)
    reasons = [choice.finish_reason for chunk in stream for choice in chunk.choices if choice.finish_reason]
    assert len(reasons) == 8
    process.wait(timeout=40)


def test_clients_that_vanish_leave_room_for_others(start, folder):
    _, url = start(folder, "--port", 0)
    body = {"prompt": "a", "max_tokens": 15, "n": 16, "stream": True}
    for _ in range(12):
        with httpx.stream("POST", f"{url}v1/completions", json=body, timeout=60) as answer:
            next(answer.iter_lines())  # and away
    deadline = time.monotonic() + 30
    while "groundup_load 0.0" not in httpx.get(f"{url}metrics", timeout=60).text:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert httpx.post(f"{url}v1/completions", json=body | {"stream": False}, timeout=60).status_code == 200


def test_what_cannot_be_served_is_one_line(start, folder, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process, said = start(folder, "--port", port)
        assert (
            said
            == f"groundup: cannot listen on 127.0.0.1 port {port}: Address already in use; take another with"
            + (" --port, or --port 0\n")
        )
        assert process.wait() == 1
    (folder / "model.safetensors").write_bytes(b"damaged")
    process, said = start(folder, "--port", 0)
    assert said.startswith("groundup: ")
    assert said.count("\n") == 1
    assert process.wait() == 1
    process, said = start(tmp_path / "nothing", "--port", 0)
    assert "does not exist" in said
