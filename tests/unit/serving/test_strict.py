"""Every path of the API, asked wrongly: a model that is not there, an unknown field, a wrong type, a missing field."""

from urllib.parse import quote

import pytest

from groundup.playground.openapi import BODIES, QUERIES
from groundup.serving.bodies import CompletionBody, DetokenizeBody, TokenizeBody
from groundup.serving.models import Models

TEXT = {"text": "hello"}
ASKED = {
    "/v1/completions": {"prompt": "a", "max_tokens": 1},
    "/tokenize": {"prompt": "a"},
    "/detokenize": {"tokens": [1]},
    "/api/logits": TEXT,
    "/api/attention": TEXT | {"layer": 1},
    "/api/cell": TEXT | {"row": 2, "column": 1},
    "/api/lens": TEXT,
    "/api/surprise": TEXT,
    "/api/contributions": TEXT,
    "/api/compare": TEXT | {"other": "mine@4"},
    "/api/ablation": TEXT | {"heads": [[0, 1]]},
    "/api/writing": TEXT | {"max_tokens": 1},
    "/api/importance": TEXT | {"layer": 0},
    "/api/neighbors": {"token": 3},
}
"""A body that is answered with 200, for each path that takes one; those that start and stop runs are not among them."""
TRAIN = {"/api/train": {}, "/api/train/stop": {}}
API = {"/v1/completions", "/tokenize", "/detokenize"}
"""What other programs ask, too."""
REQUIRED = {
    "/tokenize": ["prompt"],
    "/detokenize": ["tokens"],
    "/api/cell": ["row", "column"],
    "/api/compare": ["other"],
    "/api/neighbors": ["token"],
}
ONE_OF_TWO = [path for path, body in ASKED.items() if "text" in body]
"""Text or tokens."""
WRONG = {
    "string": [3, True, ["a"], {"a": 1}],
    "integer": ["1", 1.5, True, [1], {}],
    "number": ["1", True, [1], {}],
    "boolean": ["true", 0, 2, [True]],
    "array": ["a", 1, {}],
    "object": ["a", 1, []],
}
"""Values that are of another type."""


@pytest.fixture
def client(run, serve):
    return serve(Models([run]))


def refused(answer, status, param, code=None):
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["param"] == param, error
    assert code is None or error["code"] == code, error
    assert 0 < len(error["message"]) < 400
    assert "\n" not in error["message"]
    return error["message"]


def types_of(schema, body):
    """The types of JSON that a field may have, as its schema says."""
    if "$ref" in schema:
        schema = body.model_json_schema()["$defs"][schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        return {kind for each in schema["anyOf"] for kind in types_of(each, body)}
    return {"string"} if "enum" in schema else {schema["type"]}


def wrong_values(schema, body):
    """Values of a field that fit none of its types."""
    types = types_of(schema, body)
    fits = types | ({"integer"} if "number" in types else set())
    for kind in types - {"null"}:
        yield from (value for value in WRONG[kind] if type_of(value) not in fits)
    if "null" not in types:
        yield None


def type_of(value):
    """As JSON names it."""
    names = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}
    return names[type(value)]


def test_the_table_has_every_path_that_takes_a_body():
    assert ASKED.keys() | TRAIN.keys() == BODIES.keys()
    assert {path for path, body in BODIES.items() if body in (CompletionBody, TokenizeBody, DetokenizeBody)} == API
    required = {path: body.model_json_schema().get("required", []) for path, body in BODIES.items()}
    assert {path: names for path, names in required.items() if names} == REQUIRED


def test_bodies_of_the_table_are_answered(client):
    for path, body in ASKED.items():
        answer = client.post(path, json=body)
        assert answer.status_code == 200, (path, answer.text)
        assert client.post(path, json=body | {"model": "mine@2"}).status_code == 200, path


@pytest.mark.fault("F4", "a model that is not there, named to any path", "404 with the models there are")
@pytest.mark.parametrize("name", ["nope", "", "mine@3", "mine@", "../mine"])
def test_a_model_that_is_not_there(client, name):
    for path, body in ASKED.items():
        assert "mine" in refused(client.post(path, json=body | {"model": name}), 404, "model", "model_not_found"), path
    refused(client.post("/api/compare", json=ASKED["/api/compare"] | {"other": name}), 404, "other", "model_not_found")
    for path, words in QUERIES.items():
        if "model" in words:
            said = refused(client.get(path, params={"model": name}), 404, "model", "model_not_found")
            assert "mine" in said, path
    refused(client.get(f"/v1/models/{quote(name or 'x', safe='')}"), 404, "model", "model_not_found")


@pytest.mark.fault("F4", "an unknown field in a body of any path", "400 names it, and the fields that there are")
@pytest.mark.parametrize("name", ["modle", "stepz", "é\n", "x" * 500, ""])
@pytest.mark.parametrize("value", [1, None, "a", {"a": 1}], ids=["number", "null", "text", "object"])
def test_a_field_that_is_unknown(client, name, value):
    for path, body in (ASKED | TRAIN).items():
        said = refused(client.post(path, json=body | {name: value}), 400, name, "unknown_field")
        assert all(field in said for field in BODIES[path].model_fields), path
    assert client.get("/api/train").json()["training"] is None


@pytest.mark.parametrize(
    ("path", "name", "meant"),
    [
        ("/v1/completions", "temprature", "temperature"),
        ("/v1/completions", "max_new_tokens", "max_tokens"),
        ("/v1/completions", "max_completion_tokens", "max_tokens"),
        ("/tokenize", "add_special", "add_special_tokens"),
        ("/detokenize", "token", "tokens"),
        ("/api/attention", "layers", "layer"),
    ],
)
def test_a_misspelled_field_is_answered_with_the_one_that_was_meant(client, path, name, meant):
    said = refused(client.post(path, json=ASKED[path] | {name: 3}), 400, name, "unknown_field")
    assert f"did you mean {meant}?" in said


def test_what_is_unknown_within_a_field(client):
    def ask(**options):
        return client.post("/v1/completions", json={"prompt": "a", "stream": True, "stream_options": options})

    said = refused(ask(include_use=True), 400, "stream_options.include_use", "unknown_field")
    assert "did you mean include_usage?" in said
    refused(ask(include_obfuscation=True), 400, "stream_options", "invalid_value")
    assert ask(include_usage=True, include_obfuscation=False).status_code == 200


THEIRS = {
    "best_of": [(1, None), (None, None), (2, "unsupported")],
    "suffix": [("", None), (None, None), ("the end", "unsupported")],
    "user": [("me", None), (None, None), (3, "invalid_value")],
    "ignore_eos": [(True, None), (False, None), (None, None), (1, "invalid_value")],
    "min_tokens": [(0, "unknown_field"), (5, "unknown_field")],
    "use_beam_search": [(False, "unknown_field"), (True, "unknown_field")],
    "stop_token_ids": [([3], "unknown_field")],
    "cache_prompt": [(False, "unknown_field")],
    "messages": [([{"role": "user", "content": "a"}], "unknown_field")],
}
"""Fields of OpenAI, vLLM and llama.cpp: a value, and how it is refused, if it is."""


@pytest.mark.fault("F4", "a field of OpenAI or another server that asks for what is not done", "400 names it")
@pytest.mark.parametrize("name", THEIRS)
def test_fields_of_other_servers(client, name):
    for value, code in THEIRS[name]:
        answer = client.post("/v1/completions", json=ASKED["/v1/completions"] | {name: value})
        if code is None:
            assert answer.status_code == 200, (value, answer.text)
        else:
            assert name in refused(answer, 400, name, code)


@pytest.mark.fault("F4", "a parameter that a path does not know, or twice the same", "400 names it")
def test_words_behind_the_question_mark(client):
    paths = [path for path in QUERIES if path.startswith("/api/")]
    assert len(paths) >= 8
    for path in paths:
        refused(client.get(path, params={"modle": "mine"}), 400, "modle", "unknown_parameter")
        for known in QUERIES[path]:
            value = {"model": "mine", "after": "0"}[known]
            assert client.get(path, params={known: value}).status_code == 200
            refused(client.get(path, params=[(known, value), (known, value)]), 400, known, "invalid_value")
    for path, body in ASKED.items():
        refused(client.post(path, json=body, params={"model": "mine"}), 400, "model", "unknown_parameter")
    refused(client.get("/tokenizer_info", params={"modle": "mine"}), 400, "modle", "unknown_parameter")
    refused(client.get("/api/slots", params={"after": "x"}), 400, "after", "invalid_value")


@pytest.mark.fault("F4", "a value of another type in any field of any body", "400 names the field")
def test_a_value_of_another_type(client):
    n = 0
    for path, kind in BODIES.items():
        for name, schema in kind.model_json_schema()["properties"].items():
            for value in wrong_values(schema, kind):
                said = refused(client.post(path, json=ASKED.get(path, {}) | {name: value}), 400, name, "invalid_value")
                assert said.startswith(f"{name}: "), said
                n += 1
    assert n > 200
    assert client.get("/api/train").json()["training"] is None


@pytest.mark.fault("F4", "a body without a field that it needs", "400 names the field")
def test_a_field_that_is_missing(client):
    for path, names in REQUIRED.items():
        for name in names:
            body = {key: value for key, value in ASKED[path].items() if key != name}
            assert "required" in refused(client.post(path, json=body), 400, name, "invalid_value")
    for path in ONE_OF_TWO:
        body = {key: value for key, value in ASKED[path].items() if key != "text"}
        refused(client.post(path, json=body), 400, "text", "invalid_value")
        refused(client.post(path, json=body | {"text": "a", "tokens": [1]}), 400, "text", "invalid_value")


@pytest.mark.parametrize(
    ("field", "more"),
    [
        ("prompt", {"prompt": [1, 99]}),
        ("prompt", {"prompt": [[1], [2**31 - 1]], "stream": True}),
        ("prompt", {"prompt": "\u20ac"}),
        ("logit_bias", {"logit_bias": {"99": 1}}),
    ],
)
def test_what_is_not_of_the_model_names_its_field(client, field, more):
    body = ASKED["/v1/completions"] | more
    refused(client.post("/v1/completions", json=body), 400, field, "invalid_value")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("GET", "/v1/completions", {"POST"}), ("POST", "/v1/models", {"GET", "HEAD"}), ("GET", "/nowhere", None)],
)
def test_another_method_is_told_which_one_is_taken(client, method, path, allowed):
    answer = client.request(method, path, **({"json": {}} if method == "POST" else {}))
    refused(answer, 404 if allowed is None else 405, None, "not_found" if allowed is None else "wrong_method")
    assert {*answer.headers.get("allow", "").split(", ")} == (allowed or {""})
