"""Runs and their kept steps, by id."""

import asyncio
import gc
import shutil
import threading
import weakref
from pathlib import Path

import pytest
import torch

from groundup.checkpoint.model_folder import load_model, save_model
from groundup.files.lock import RunLock
from groundup.playground import offers
from groundup.records.history import read_run
from groundup.serving import models as module
from groundup.serving.bodies import CompletionBody
from groundup.serving.completions import Completion
from groundup.serving.models import MAX_STEPS, Models
from groundup.tokenizer.char import CharTokenizer

TEXT = "hello world"


@pytest.fixture
def client(run, serve):
    return serve(Models([run]))


def test_steps_are_listed_and_each_answers_with_its_own_weights(client, run, alphabet):
    told = client.get("/api/steps").json()
    assert told["steps"] == [0, 1, 2, 4, 8, 9]
    assert told["ids"][3] == "mine@4"
    assert client.get("/api/steps?model=other").json()["steps"] == [3]
    idx = torch.tensor([alphabet.encode(TEXT)])
    model = next(iter(Models([run]))).loaded.model
    for step in (0, 4, 9):
        with torch.no_grad():
            model.ln_f.bias.fill_(step / 10)
            expected = model(idx)[0].log_softmax(-1)
        body = {"model": f"mine@{step}", "prompt": TEXT, "max_tokens": 0, "echo": True, "logprobs": 0}
        got = client.post("/v1/completions", json=body).json()
        assert got["model"] == f"mine@{step}"
        for i, value in enumerate(got["choices"][0]["logprobs"]["token_logprobs"][1:]):
            assert value == pytest.approx(expected[i, idx[0, i + 1]].item(), abs=1e-5)


def test_threads_that_load_a_model_end_so_that_the_engine_alone_keeps_a_team_of_openmp(client, run, monkeypatch):
    loaders, load = [], module.load_model

    def noted(*args, **kwargs):
        loaders.append(threading.current_thread())
        return load(*args, **kwargs)

    monkeypatch.setattr(module, "load_model", noted)
    models = Models([run])
    asyncio.run(models.find("mine@4"))
    assert len(loaders) == 2
    assert not any(thread.is_alive() for thread in loaders)


def test_two_steps_are_compared_on_one_text(client, run):
    body = {"model": "mine@0", "other": "mine@9", "text": TEXT}
    told = client.post("/api/compare", json=body).json()
    alone = [client.post("/api/surprise", json={"model": name, "text": TEXT}).json() for name in ("mine@0", "mine@9")]
    losses = [answer["loss"] for answer in alone]
    assert told["loss"] == pytest.approx(losses[0], rel=1e-4)
    assert told["other_loss"] == pytest.approx(losses[1], rel=1e-4)
    assert told["difference"] == pytest.approx([b - a for a, b in zip(*losses, strict=True)], abs=1e-3)
    assert min(told["divergence"]) > 0
    same = client.post("/api/compare", json=body | {"other": "mine@0"}).json()
    assert max(map(abs, same["difference"] + same["divergence"])) < 1e-5


def test_models_of_other_tokenizers_are_not_compared_token_by_token(run, serve, tiny_model, alphabet):
    other = CharTokenizer("".join(chr(0x4E00 + i) for i in range(alphabet.vocab_size)))
    save_model(run.parent / "chinese", tiny_model, other, {})
    client = serve(Models([run, run.parent / "chinese"]))
    answer = client.post("/api/compare", json={"other": "chinese", "text": TEXT})
    assert answer.status_code == 400
    assert "other tokens" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("mine@3", 'there is no step 3 of "mine"; there are 0, 1, 2, 4, 8, 9'),
        ("mine@", "there is no model"),
        ("mine@-1", "there is no model"),
        ("mine@٣", "there is no model"),
        ("mine@04", "there is no model"),
        ("mine@" + "9" * 400, "there is no model"),
        ("no run", "there is no model"),
        ("../runs/mine", "there is no model"),
        ("../runs/mine@1", "there is no model"),
        ("/etc", "there is no model"),
        ("", "there is no model"),
    ],
)
def test_no_name_is_a_path(client, name, says):
    answer = client.post("/v1/completions", json={"model": name, "prompt": "a"})
    assert answer.status_code == 404
    assert says in answer.json()["error"]["message"]


def test_neighbors_of_a_run_are_found_and_listed(client):
    assert client.post("/v1/completions", json={"model": "other", "prompt": "a", "max_tokens": 1}).status_code == 200
    runs = client.get("/api/runs").json()["runs"]
    assert [(run["name"], run["step"], run["max_steps"]) for run in runs] == [("mine", 9, 20), ("other", None, None)]
    told = client.get("/api/run?model=mine").json()
    assert (told["bigram"], told["train"], told["val"]) == (2.5, [[1, 3.0]], [[9, 2.0]])
    assert client.get("/api/run?model=nothing").status_code == 404


def test_a_run_is_read_again_when_something_of_it_changed(client, run, monkeypatch):
    read = []
    monkeypatch.setattr(offers, "read_run", lambda path: read.append(path.name) or read_run(path))

    def look():
        read.clear()
        runs = client.get("/api/runs").json()["runs"]
        return [(run["name"], run["state"], run["step"]) for run in runs], list(read)

    other = ("other", "crashed", None)
    assert look() == ([("mine", "crashed", 9), other], ["mine", "other"])
    assert look() == ([("mine", "crashed", 9), other], [])
    with RunLock(run):
        assert look() == ([("mine", "running", 9), other], ["mine"])
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 20, "tokens": 60}\n')
    assert look() == ([("mine", "finished", 20), other], ["mine"])
    (run / "config.json").write_text('{"max_steps": 30}')
    assert look() == ([("mine", "crashed", 20), other], ["mine"])
    shutil.rmtree(run.parent / "other")
    assert look() == ([("mine", "crashed", 20)], [])


def test_an_answer_names_the_model_as_it_was_asked_for_whoever_asked_before(client):
    for name in ("other", "other@3", "other"):  # without a folder model: both are the checkpoint of step 3
        told = client.post("/v1/completions", json={"model": name, "prompt": "a", "max_tokens": 1}).json()
        assert told["model"] == name


def test_a_sample_of_kept_weights_is_told_of_their_step(client, run):
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 8, "sample": "b"}\n{"step": 9, "kept_step": 4, "sample": "a"}\n')
    assert client.get("/api/run?model=mine").json()["samples"] == [[4, "a"], [8, "b"]]


def test_a_few_steps_are_held_and_the_one_used_last_goes_last(run):
    models = Models([run])

    async def ask():
        first = await models.find("mine@0")
        for step in (1, 2, 4):
            await models.find(f"mine@{step}")
        assert await models.find("mine@0") is first  # used again
        await models.find("mine@8")
        assert await models.find("mine@0") is first
        assert len(models._steps) == MAX_STEPS == 4

    asyncio.run(ask())


def test_a_step_that_is_dropped_leaves_memory_while_its_ticks_are_remembered(run, loop):
    models = Models([run])

    async def ask():
        engines = []
        for step in (0, 1, 2, 4, 8, 9):
            served = await models.find(f"mine@{step}")
            await Completion(served, CompletionBody(prompt=TEXT, max_tokens=1)).whole(loop)
            engines.append(weakref.ref(served.engine))
        return engines

    engines = asyncio.run(ask())
    gc.collect()
    assert [engine() is not None for engine in engines] == [False] * 2 + [True] * MAX_STEPS
    assert [tick.engine() for tick in loop.rounds] == [engine() for engine in engines]


@pytest.mark.parametrize(("name", "kind", "step"), [("mine@4", "growth", 4), ("other", "checkpoints", 3)])
def test_a_run_that_is_trained_again_answers_with_its_new_weights(client, run, alphabet, name, kind, step):
    body = {"model": name, "prompt": TEXT, "max_tokens": 0, "echo": True, "logprobs": 0}

    def scores():
        told = client.post("/v1/completions", json=body).json()
        return told["system_fingerprint"], told["choices"][0]["logprobs"]["token_logprobs"][1:]

    before = scores()
    folder = run.parent / name.partition("@")[0] / kind / f"step-{step:07d}"
    model = load_model(folder).model
    shutil.rmtree(folder)
    with torch.no_grad():
        model.ln_f.bias.fill_(5.0)
        expected = model(torch.tensor([alphabet.encode(TEXT)]))[0].log_softmax(-1)
    save_model(folder, model, alphabet, {"step": step, "again": True})
    after = scores()
    wanted = [expected[i, token].item() for i, token in enumerate(alphabet.encode(TEXT)[1:])]
    assert after[1] == pytest.approx(wanted, abs=1e-5)
    assert after[0] != before[0]
    told = client.get("/api/facts", params={"model": name}).json()
    assert told["models"][-1]["info"]["again"] is True


def test_a_damaged_step_is_one_line_and_no_other_is_touched(client, run):
    (run / "growth" / "step-0000002" / "model.safetensors").write_bytes(b"damaged")
    answer = client.post("/v1/completions", json={"model": "mine@2", "prompt": "a"})
    assert answer.status_code == 404
    assert "\n" not in answer.json()["error"]["message"]
    assert client.post("/v1/completions", json={"model": "mine@4", "prompt": "a"}).status_code == 200


def test_a_run_at_any_place_has_a_name(run, tmp_path):
    assert [served.id for served in Models([run, run / "model", run / "growth" / "step-0000004"])][0::2] == [
        "mine",
        "mine@step-0000004",
    ]
    moved = run.rename(tmp_path / "model")  # a run that is called as the folder of a run's model
    assert next(iter(Models([moved]))).id == "model"
    assert next(iter(Models([moved / "model"]))).id == "model"
    assert module._name_of(Path("/model"), {}) == module._name_of(Path("/"), {}) == "model"  # as in a container


def test_a_curve_leaves_losses_of_a_part_of_the_split_out(client, run):
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 9, "val/loss": 0.9, "val/tokens": 65536}\n')
    assert client.get("/api/run?model=mine").json()["val"] == [[9, 2.0]]
