"""Bodies drawn at random: none is our own fault, and what is answered is what was asked."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from groundup.playground.openapi import BODIES

QUICK = settings(max_examples=120, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
ids = st.integers(-1, 30) | st.integers(-(2**70), 2**70)
texts = st.text("ab \nÄ漢\x00", max_size=20) | st.text(max_size=3)
values = st.recursive(
    st.none() | st.booleans() | ids | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
prompts = texts | st.lists(st.integers(0, 30), max_size=18) | st.lists(texts | st.lists(ids, max_size=3), max_size=3)
fields = {
    "prompt": prompts,
    "max_tokens": st.integers(-1, 17),
    "temperature": st.floats(-1, 101) | st.sampled_from([0, 1e-40, 1e308]),
    "top_p": st.floats(-0.5, 1.5),
    "top_k": st.integers(-1, 40) | ids,
    "min_p": st.floats(-0.5, 1.5),
    "repetition_penalty": st.floats(-1, 101) | st.just(1e-300),
    "presence_penalty": st.floats(-3, 3),
    "frequency_penalty": st.floats(-3, 3),
    "logit_bias": st.dictionaries(ids.map(str) | texts, st.floats(-110, 110), max_size=3),
    "n": st.integers(-1, 66),
    "best_of": st.integers(-1, 3),
    "stream": st.booleans(),
    "stream_options": st.dictionaries(st.sampled_from(["include_usage", "x"]), st.booleans()),
    "logprobs": st.integers(-1, 22) | st.booleans(),
    "echo": st.booleans(),
    "stop": texts | st.lists(texts, max_size=5),
    "seed": ids,
    "suffix": texts,
    "return_tokens_as_token_ids": st.booleans(),
    "text": texts,
    "tokens": st.lists(ids, max_size=18),
    "position": st.integers(-20, 20),
    "token": ids,
    "layer": st.integers(-1, 3),
    "heads": st.lists(st.lists(st.integers(-1, 3), max_size=3), max_size=3),
    "mlps": st.lists(st.integers(-1, 3), max_size=2),
    "head": st.integers(-1, 3),
    "row": st.integers(-1, 12),
    "column": st.integers(-1, 6),
    "instead": st.sampled_from(["zero", "mean", "nothing"]),
    "other": st.sampled_from(["tiny", "none"]),
}
COMPLETION = list(fields)[:20]
ASKED = ["logits", "attention", "cell", "lens", "surprise", "contributions", "compare"]
ASKED += ["ablation", "writing", "importance"]
PATHS = ["/tokenize", "/detokenize", "/api/neighbors", *(f"/api/{name}" for name in ASKED)]
LOOKED_AT = [(path, [name for name in BODIES[path].model_fields if name in fields]) for path in PATHS]


def bodies(names):
    """A few fields of a request: most as they should be, some anything at all."""
    one = {name: st.one_of(fields[name], fields[name], fields[name], values) for name in names}
    return st.lists(st.sampled_from(names), unique=True, max_size=6).flatmap(
        lambda chosen: st.fixed_dictionaries({name: one[name] for name in chosen})
    )


def ask(client, path, body):
    answer = client.post(path, json=body)
    assert answer.status_code < 500, (path, body, answer.text)
    if answer.status_code != 200:
        message = answer.json()["error"]["message"]
        assert message, (path, body)
        assert "\n" not in message
    return answer


@pytest.mark.fault("F4", "bodies of completions with any values in any fields", "answered, or refused with a reason")
@QUICK
@given(body=bodies(COMPLETION))
def test_completions(client, body):
    answer = ask(client, "/v1/completions", body)
    if answer.status_code == 200 and not body.get("stream"):
        told = answer.json()
        prompt = body.get("prompt")
        n_prompts = len(prompt) if isinstance(prompt, list) and not isinstance(prompt[0], int) else 1
        assert [choice["index"] for choice in told["choices"]] == list(range(n_prompts * (body.get("n") or 1)))
        assert {choice["finish_reason"] for choice in told["choices"]} <= {"stop", "length"}
    elif answer.status_code == 200:
        events = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
        assert events.pop() == "[DONE]"
        assert not [event for event in map(json.loads, events) if "error" in event]


@pytest.mark.fault("F4", "bodies of the page's questions with any values in any fields", "answered, or refused")
@QUICK
@given(
    asked=st.sampled_from(LOOKED_AT).flatmap(
        lambda known: st.tuples(st.just(known[0]), bodies([*known[1], *known[1], "echo"]))
    )
)
def test_what_the_page_asks(client, asked):
    ask(client, *asked)


@pytest.mark.fault("F5", "bodies of any bytes", "refused as no JSON, or as no object")
@QUICK
@given(data=st.binary(max_size=40) | values.map(lambda value: json.dumps(value).encode()[:-1]) | st.just(b"[1]"))
def test_any_bytes(client, data):
    answer = client.post("/v1/completions", content=data, headers={"content-type": "application/json"})
    assert answer.status_code == 400 or json.loads(data) is not None
    if answer.status_code == 400:
        assert answer.json()["error"]["message"]
