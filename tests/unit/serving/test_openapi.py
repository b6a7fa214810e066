"""The description of the API, and a fuzzer that reads it."""

import importlib.util

import pytest

from groundup.playground.openapi import document


def test_every_path_of_the_api_is_described(client):
    described = {(path, method.upper()) for path, methods in document()["paths"].items() for method in methods}
    answered = {
        (route.path, method)
        for route in client.app.app.routes
        for method in route.methods - {"HEAD"}
        if route.path not in ("/v1/models/{id:path}", "/v1/chat/completions", "/openapi.json")
    }
    assert described == answered
    assert client.get("/openapi.json").json() == document()


@pytest.mark.slow
@pytest.mark.fault("F4", "requests drawn from the API's description, right and wrong", "none is answered by a 5xx")
@pytest.mark.skipif(importlib.util.find_spec("schemathesis") is None, reason="needs schemathesis")
def test_no_request_of_a_fuzzer_is_our_fault(client, record_property):
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import strategies as st

    schema = schemathesis.openapi.from_dict(document())
    seen = {}
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) == sum(map(len, document()["paths"].values()))
    for operation in operations:
        if operation.path.startswith("/api/train"):
            continue  # would start a process per case; bodies of these are in test_trainings.py

        @settings(max_examples=60, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
                  suppress_health_check=list(HealthCheck))  # fmt: skip
        @given(
            case=st.one_of(
                operation.as_strategy(generation_mode=schemathesis.GenerationMode.POSITIVE),
                operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE),
            )
        )
        def ask(case):
            body = case.body if isinstance(case.body, dict | list | str | int | float | bool | None) else None
            kind = {"json": body} if case.method == "POST" else {}
            query = {key: str(value) for key, value in (case.query or {}).items()}
            answer = client.request(case.method, case.path, params=query, **kind)
            status = answer.status_code
            seen[status] = seen.get(status, 0) + 1
            assert status < 500, (case.path, body, answer.text)
            if status >= 400:
                assert answer.json()["error"]["message"]

        ask()
    assert {200, 400} <= seen.keys()
    record_property("figure", f"{sum(seen.values()):,} requests")
