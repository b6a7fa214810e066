"""The protocol, field by field, against the generator and the model themselves."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from groundup.checkpoint.model_folder import save_model
from groundup.config.generate import SamplingConfig
from groundup.generation.text import TextGenerator
from groundup.model.bigram import fit_bigram
from groundup.serving import loop as engine_loop
from groundup.serving.models import Models

PROMPT = "hello world"


def complete(client, code=200, **body):
    answer = client.post("/v1/completions", json=body)
    assert answer.status_code == code, answer.text
    return answer.json()


def streamed(client, **body):
    with client.stream("POST", "/v1/completions", json=body | {"stream": True}) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = [line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    return [json.loads(event) for event in events[:-1]]


@pytest.fixture
def generator(served):
    return TextGenerator(served.loaded.model, served.loaded.tokenizer)


def test_text_is_what_the_generator_draws(client, generator):
    answer = complete(client, prompt=PROMPT, max_tokens=5, seed=7, n=2, temperature=0.7, top_k=9)
    expected = generator.generate(
        PROMPT, max_new_tokens=5, seed=7, num_samples=2, sampling=SamplingConfig(temperature=0.7, top_k=9)
    )
    assert [choice["text"] for choice in answer["choices"]] == expected
    assert [choice["finish_reason"] for choice in answer["choices"]] == ["length", "length"]
    assert answer["object"] == "text_completion"
    assert answer["usage"] | {"prompt_tokens_details": None} == {
        "prompt_tokens": 11,
        "completion_tokens": 10,
        "total_tokens": 21,
        "prompt_tokens_details": None,
    }


@pytest.mark.parametrize("max_tokens", [1, 40])
def test_a_table_of_pairs_writes_as_the_generator_does(tmp_path, serve, alphabet, max_tokens):
    pairs = fit_bigram(np.array(alphabet.encode("hello world again")), alphabet.vocab_size)
    save_model(tmp_path / "pairs", pairs, alphabet, {})
    client = serve(Models([tmp_path / "pairs"]))
    for prompt in (PROMPT, alphabet.encode(PROMPT)):
        answer = complete(client, prompt=prompt, max_tokens=max_tokens, seed=7, echo=True)
        (expected,) = TextGenerator(pairs, alphabet).generate(PROMPT, max_new_tokens=max_tokens, seed=7)
        assert answer["choices"][0]["text"] == PROMPT + expected
    told = complete(client, 400, prompt=PROMPT, max_tokens=max_tokens, echo=True, logprobs=1)  # it never sees the text
    assert (told["error"]["code"], told["error"]["param"]) == ("context_length_exceeded", "prompt")


@pytest.mark.parametrize("given", ["ab\r\ncd\re", ["ab\r\ncd\re"]])
def test_line_ends_of_a_prompt_are_those_that_the_model_reads(client, given):
    read = "ab\ncd\ne"
    answers = []
    for prompt in (given, read):
        (choice,) = complete(client, prompt=prompt, max_tokens=2, seed=1, echo=True, logprobs=0)["choices"]
        answers.append((choice["text"], choice["logprobs"]["tokens"], choice["logprobs"]["text_offset"]))
    assert answers[0] == answers[1]
    assert answers[0][2] == list(range(9))
    cut = [client.post("/tokenize", json={"prompt": p}).json() for p in ("".join(given), read)]
    assert cut[0] == cut[1]
    assert cut[0]["count"] == 7


@pytest.mark.fault("F8", "an answer is streamed", "one JSON object per event, then [DONE]; the pieces are the answer")
@pytest.mark.parametrize("more", [{}, {"n": 3}, {"echo": True}, {"echo": True, "logprobs": 2}, {"stop": ["e", "a"]}])
def test_the_stream_is_the_answer_in_pieces(client, more):
    body = {"prompt": [PROMPT, "ab"], "max_tokens": 4, "seed": 3} | more
    whole = complete(client, **body)
    chunks = streamed(client, **body)
    for choice in whole["choices"]:
        mine = [part for chunk in chunks for part in chunk["choices"] if part["index"] == choice["index"]]
        assert "".join(part["text"] for part in mine) == choice["text"]
        assert [part["finish_reason"] for part in mine if part["finish_reason"]] == [choice["finish_reason"]]
        if choice["logprobs"]:
            for key, values in choice["logprobs"].items():
                joined = [value for part in mine for value in part["logprobs"][key]]
                if key in ("token_logprobs", "top_logprobs"):
                    assert [v is None for v in joined] == [v is None for v in values]
                else:
                    assert joined == values
    assert all(chunk["choices"] for chunk in chunks)


def test_tokens_that_come_together_are_one_event(client, monkeypatch):
    monkeypatch.setattr(engine_loop, "FRAME", 3600)  # the first and the last do not wait
    body = {"prompt": "a", "max_tokens": 9, "n": 2, "seed": 3, "logprobs": 2}
    events = [chunk["choices"] for chunk in streamed(client, **body)]
    assert len(events) <= 4
    assert sum(len(choice["logprobs"]["tokens"]) for (choice,) in events) == 18


def test_usage_comes_last_where_it_is_asked_for(client):
    chunks = streamed(client, prompt="a", max_tokens=2, seed=1, stream_options={"include_usage": True})
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 2


def test_a_prompt_is_text_or_ids_one_or_many_or_nothing(client, alphabet):
    ids = alphabet.encode(PROMPT)
    forms = [PROMPT, ids, [PROMPT], [ids]]
    texts = [complete(client, prompt=form, max_tokens=4, seed=5)["choices"][0]["text"] for form in forms]
    assert len(set(texts)) == 1
    for seed in (5, 2**63 - 2):  # each prompt of a list has a seed of its own, counted up from the given one
        told = complete(client, prompt=[PROMPT] * 3, max_tokens=4, n=2, seed=seed, temperature=2)
        of_places = [choice["text"] for choice in told["choices"]]
        alone = [
            complete(client, prompt=PROMPT, max_tokens=4, n=2, seed=(seed + place) % 2**63, temperature=2)
            for place in range(3)
        ]
        assert of_places == [choice["text"] for one in alone for choice in one["choices"]]
        assert len(set(of_places)) == 6
    both = complete(client, prompt=[PROMPT, "ab"], max_tokens=2, n=2, seed=5)
    assert [choice["index"] for choice in both["choices"]] == [0, 1, 2, 3]
    new = complete(client, max_tokens=3, seed=5)["choices"][0]["text"]
    assert new == complete(client, prompt="", max_tokens=3, seed=5)["choices"][0]["text"]


@torch.no_grad()
def test_logprobs_are_the_models_own(client, served, alphabet):
    answer = complete(client, prompt=PROMPT, max_tokens=3, seed=2, temperature=0.5, top_k=3, logprobs=4, echo=True)
    choice = answer["choices"][0]
    logprobs = choice["logprobs"]
    assert "".join(logprobs["tokens"]) == choice["text"]
    ids = alphabet.encode(choice["text"])
    expected = served.loaded.model(torch.tensor([ids]))[0].log_softmax(-1)
    assert logprobs["token_logprobs"][0] is None
    assert logprobs["top_logprobs"][0] is None
    for i, (value, top, offset) in enumerate(
        zip(logprobs["token_logprobs"], logprobs["top_logprobs"], logprobs["text_offset"], strict=True)
    ):
        assert offset == i
        if i:
            assert value == pytest.approx(expected[i - 1, ids[i]].item(), abs=1e-5)
            assert 4 <= len(top) <= 5
            assert top[logprobs["tokens"][i]] == value  # the same float: a client compares them
            assert max(top.values()) == pytest.approx(expected[i - 1].max().item(), abs=1e-5)


def test_a_prompt_can_be_scored_alone(client):
    answer = complete(client, prompt="hello", max_tokens=0, echo=True, logprobs=0)
    choice = answer["choices"][0]
    assert choice["text"] == "hello"
    assert len(choice["logprobs"]["token_logprobs"]) == 5
    assert answer["usage"]["completion_tokens"] == 0


def test_text_offsets_count_from_the_start_of_the_prompt(client):
    choice = complete(client, prompt=PROMPT, max_tokens=2, seed=1, logprobs=1)["choices"][0]
    assert choice["logprobs"]["text_offset"] == [11, 12]


def test_a_stop_string_ends_a_text_and_is_not_in_it(client, generator):
    whole = generator.generate("ab", max_new_tokens=10, seed=4)[0]
    stop = whole[4:6]
    choice = complete(client, prompt="ab", max_tokens=10, seed=4, stop=stop, logprobs=1)["choices"][0]
    assert choice["text"] == whole[: whole.find(stop)]
    assert choice["finish_reason"] == "stop"
    assert "".join(choice["logprobs"]["tokens"]) == choice["text"]


@pytest.mark.fault("F3", "a prompt longer than the context", "400 with both numbers; nothing is cut off")
@pytest.mark.parametrize("prompt", ["a" * 17, [1] * 17, ["a", "a" * 17], [[1], [1] * 17]])
def test_a_prompt_longer_than_the_context(client, prompt):
    error = complete(client, 400, prompt=prompt)["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", "prompt")
    assert "context is 16 tokens; the prompt has 17" in error["message"]


@pytest.mark.fault("F4", "a field is out of its bounds, of another type, or cannot be done", "400 names it")
@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"prompt": "a" * 17}, "context is 16 tokens; the prompt has 17"),
        ({"prompt": "a" * 16, "max_tokens": 2}, "max_tokens is 2"),
        ({"prompt": [27]}, "27"),
        (
            {"prompt": [-1]},
            "prompt: must be a text, a list of texts, a list of ids, or a list of lists of ids, got [-1]",
        ),
        ({"prompt": [2**31]}, "a list of ids"),
        ({"prompt": [10**30]}, "a list of ids"),
        ({"prompt": [1.0]}, "a list of ids"),
        ({"prompt": [True]}, "got [true]"),
        ({"prompt": [None]}, "got [null]"),
        ({"prompt": [[1], [2, -1]]}, "a list of lists of ids"),
        ({"prompt": [[[1]]]}, "got [[[1]]]"),
        ({"prompt": [[1], []]}, "at least one"),
        ({"prompt": [[]]}, "at least one"),
        ({"prompt": []}, "empty list"),
        ({"prompt": "Ä"}, "Ä"),
        ({"prompt": 3}, "prompt"),
        ({"prompt": ["a", 3]}, "prompt"),
        ({"prompt": "a", "max_tokens": -1}, "max_tokens"),
        ({"prompt": "a", "max_tokens": "1"}, "max_tokens"),
        ({"prompt": "a", "max_tokens": True}, "max_tokens"),
        ({"prompt": "a", "max_tokens": 0}, "echo"),
        ({"prompt": "a", "temperature": -0.1}, "temperature"),
        ({"prompt": "a", "temperature": "hot"}, "temperature"),
        ({"prompt": "a", "top_p": 0}, "top_p"),
        ({"prompt": "a", "top_p": 1.01}, "top_p"),
        ({"prompt": "a", "n": 0}, "n:"),
        ({"prompt": "a", "n": 65}, "n:"),
        ({"prompt": ["a"] * 33, "n": 2}, "33 x 2"),
        ({"prompt": "a", "logprobs": 21}, "logprobs"),
        ({"prompt": "a", "stop": ""}, "stop"),
        ({"prompt": "a", "stop": ["a"] * 5}, "stop: must be a text, or a list of at most 4 texts"),
        ({"prompt": "a", "stop": ["a", ""]}, "at least one character"),
        ({"prompt": "a", "suffix": "b"}, "suffix"),
        ({"prompt": "a", "best_of": 3}, "best_of"),
        ({"prompt": "a", "best_of": 10**30, "n": 2}, "best_of"),
        ({"prompt": ["a"] * 65}, "65 x 1"),
        ({"prompt": "a", "stream_options": {}}, "stream_options"),
        ({"prompt": "a", "logit_bias": {"x": 1}}, 'logit_bias: keys are ids, got "x"'),
        *[
            ({"prompt": "a", "logit_bias": {key: 1}}, "logit_bias: keys are ids, got ")
            for key in ("", " 1", "+1", "-1", "1_0", "01", "1.0", "0x1", "٣", "9" * 5000)
        ],
        ({"prompt": "a", "logit_bias": {"1": 101}}, "logit_bias"),
        ({"prompt": "a", "logit_bias": {"99": 1}}, "99"),
        ({"prompt": "a", "presence_penalty": 2.1}, "presence_penalty"),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_reason(client, body, says):
    answer = client.post("/v1/completions", json=body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert says in error["message"]
    assert "\n" not in error["message"]
    assert error["type"] == "invalid_request_error"


@pytest.mark.fault("F5", "bodies that are no JSON, no UTF-8, no object, too deep or too large", "4xx with a reason")
@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b'"a"', 400),
        (b'{"prompt": "\xff"}', 400),
        (b'{"prompt": "\\ud800"}', 400),
        (b'{"temperature": NaN}', 400),
        (b'{"temperature": 1e999}', 400),
        (b'{"seed": 1' + b"0" * 5000 + b"}", 400),
        (b"[" * 100_000, 400),
        (b'{"prompt": "a", "x": ' + b'{"a": ' * 2000 + b"1" + b"}" * 2001, 400),
        (b'{"prompt": "a", "prompt": "b"}', 400),
        (b'{"prompt": "a", "logit_bias": {"1": 1, "1": -100}}', 400),
        (b'{"prompt": "a", "\\udfff": 1}', 400),
        ('{"prompt": "a"}'.encode("utf-16"), 400),
        ('{"prompt": "a"}'.encode("utf-32"), 400),
        (b'{"prompt": "' + b"a" * (1 << 20) + b'"}', 413),
    ],
)
def test_bodies_that_are_no_request(client, data, code):
    answer = client.post("/v1/completions", content=data, headers={"content-type": "application/json"})
    assert answer.status_code == code
    message = answer.json()["error"]["message"]
    assert 0 < len(message) < 200
    assert "\n" not in message


def test_a_body_may_begin_with_a_mark_of_utf_8(client):
    data = b'\xef\xbb\xbf{"prompt": "a", "max_tokens": 1}'
    assert client.post("/v1/completions", content=data, headers={"content-type": "application/json"}).status_code == 200


def test_a_text_goes_on_behind_the_end_of_a_document_where_that_is_asked(client, served, alphabet, monkeypatch):
    monkeypatch.setattr(type(served.loaded.tokenizer), "eot_id", 4)
    ask = {"prompt": "a", "max_tokens": 3, "logit_bias": {"4": 100}, "temperature": 0}
    for ends in ({}, {"ignore_eos": False}, {"ignore_eos": None}):
        choice = complete(client, **ask, **ends)["choices"][0]
        assert (choice["text"], choice["finish_reason"]) == ("", "stop")
    choice = complete(client, **ask, ignore_eos=True)["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == (alphabet.decode([4]) * 3, "length")


def test_chat_models_and_unknown_models(client):
    assert client.post("/v1/chat/completions", json={"messages": []}).json()["error"]["code"] == "no_chat_template"
    assert complete(client, 404, prompt="a", model="gpt-9")["error"]["code"] == "model_not_found"
    assert client.get("/v1/models").json()["data"][0]["id"] == "tiny"
    assert client.get("/v1/models/tiny").json()["max_model_len"] == 16


def test_text_and_ids_and_back(client, alphabet):
    ids = client.post("/tokenize", json={"prompt": PROMPT}).json()["tokens"]
    assert ids == alphabet.encode(PROMPT)
    assert client.post("/detokenize", json={"tokens": ids}).json() == {"prompt": PROMPT}
    assert client.post("/detokenize", json={"tokens": [99]}).status_code == 400
    assert client.post("/tokenize", json={"prompt": "Ä"}).status_code == 400
    assert client.get("/tokenizer_info").json()["vocab_size"] == 27


@pytest.mark.fault("F1", "one text more than the queue holds", "429 with Retry-After, before anything is done for it")
def test_more_than_the_queue_holds_is_refused_at_once(client, loop):
    loop.max_waiting = 4
    for prompt in ("a", "Ä"):  # which the model cannot even read: nothing was done for the request
        answer = client.post("/v1/completions", json={"prompt": prompt, "n": 5})
        assert answer.status_code == 429
        assert answer.headers["retry-after"] == "1"
    assert complete(client, prompt="a", n=4, max_tokens=1)["choices"][3]["index"] == 3
    assert loop.load == 0


def test_a_model_that_fails_says_so_and_answers_again_when_it_works(client, served, monkeypatch):
    engine = served.engine
    tick, works = engine.tick, []

    def once(only=None):
        if not works:
            raise RuntimeError("no\nluck")
        return tick(only)

    monkeypatch.setattr(engine, "tick", once)
    answer = client.post("/v1/completions", json={"prompt": "a", "seed": 1})
    assert answer.status_code == 500
    assert answer.headers["x-should-retry"] == "false"
    assert "no luck" in answer.json()["error"]["message"]
    works.append(True)
    assert complete(client, prompt="a", seed=1, max_tokens=2)["choices"][0]["finish_reason"] == "length"


@pytest.mark.fault("F11", "a text for which the model fails, among others", "it gets a 500, the others their own text")
def test_one_requests_failure_is_nobody_elses(client, served, loop):
    """Position 12 is no number: a text that comes so far fails."""
    bodies = [{"prompt": "hello", "max_tokens": 7, "seed": seed, "n": 2} for seed in range(4)]
    expected = [complete(client, **body)["choices"] for body in bodies]
    with torch.no_grad():
        served.loaded.model.wpe.weight[12:] = torch.nan
    with ThreadPoolExecutor(12) as pool:
        for _ in range(4):
            bad = [
                pool.submit(client.post, "/v1/completions", json={"prompt": "a" * 14, "max_tokens": 2})
                for _ in range(4)
            ]
            good = [pool.submit(complete, client, **body) for body in bodies]
            assert [answer.result()["choices"] for answer in good] == expected
            for answer in bad:
                assert answer.result().status_code == 500
                assert "not numbers" in answer.result().json()["error"]["message"]
    for _ in range(4):
        complete(client, 500, prompt="a" * 14, max_tokens=2)
    assert (loop.ready, loop.load) == (True, 0)


@pytest.mark.fault("F11", "the model fails for everybody, three times in a row", "/readyz says so with 503")
def test_a_model_that_always_fails_is_not_ready(client, served, loop):
    with torch.no_grad():
        served.loaded.model.wpe.weight[:] = torch.nan
    for _ in range(3):
        assert client.get("/readyz").status_code == 200
        complete(client, 500, prompt="a")
    assert client.get("/readyz").status_code == 503
    assert client.get("/livez").status_code == 200
    assert complete(client, 503, prompt="a")["error"]["code"] == "not_ready"


def test_a_client_that_goes_away_frees_its_slots(served, loop):
    from groundup.generation.requests import Request

    async def leave():
        events = loop.stream(served.engine, [Request(prompt=(1, 2), max_new_tokens=10_000, n=3)] * 2)
        await anext(events)
        await events.aclose()
        for _ in range(200):
            if not served.engine.busy:
                return True
            await asyncio.sleep(0.02)
        return False

    assert asyncio.run(leave())
    assert loop.load == 0


def test_health_and_metrics(client, loop):
    assert client.get("/livez").status_code == client.get("/readyz").status_code == 200
    complete(client, prompt="abc", max_tokens=2)
    text = client.get("/metrics").text
    assert "groundup_prompt_tokens_total 3.0" in text
    assert "groundup_drawn_tokens_total 2.0" in text
    assert 'groundup_requests_total{status="200"}' in text
    loop.close()
    assert client.get("/readyz").status_code == 503
    assert complete(client, 503, prompt="a")["error"]["code"] == "not_ready"
