"""Ticks that fail: whoever is not to blame gets what it would have got."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.config.errors import UserError
from groundup.config.generate import SamplingConfig
from groundup.config.model import GPTConfig
from groundup.generation.engine import Engine
from groundup.generation.requests import Request
from groundup.model.gpt import GPT
from groundup.model.init import init_weights

CONFIG = GPTConfig(n_layer=2, n_head=2, n_embd=8, block_size=12, vocab_size=11)


class Failing(GPT):
    """Raises, or makes NaN of its hidden states, at the calls that it is told."""

    n_calls, raising, nan = 0, frozenset(), frozenset()

    def hidden(self, idx, *, cache=None):
        self.n_calls += 1
        found = super().hidden(idx, cache=cache)
        if self.n_calls in self.raising:
            raise MemoryError("no room")  # after the keys and values were written
        return found * torch.nan if self.n_calls in self.nan else found


def model_of():
    """In float64, where rounding decides nothing."""
    model = init_weights(Failing(CONFIG), seed=4).double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(p * 20 if p.dim() == 2 else p)
    return model.eval()


def run(engine, requests):
    """Tokens and scores of all choices, in spite of ticks that fail; and how many did."""
    ids = [engine.submit(request) for request in requests]
    got = {(id_, choice): [] for id_, request in zip(ids, requests, strict=True) for choice in range(request.n)}
    n_failed = 0
    while engine.busy:
        try:
            events = engine.tick()
        except (MemoryError, UserError):
            n_failed += 1
            continue
        for event in events:
            scores = event.prompt_scores and tuple(score and round(score.logprob, 9) for score in event.prompt_scores)
            got[event.request, event.choice].append((event.token, event.finish, scores))
    return got, n_failed


requests = st.builds(
    Request,
    prompt=st.lists(st.integers(0, 2), min_size=1, max_size=9).map(tuple),
    max_new_tokens=st.integers(1, 15),
    sampling=st.sampled_from(
        [SamplingConfig(temperature=0.0), SamplingConfig(), SamplingConfig(top_p=0.8, repetition_penalty=1.5)]
    ),
    n=st.integers(1, 2),
    seed=st.integers(0, 3),
    score_prompt=st.booleans(),
)
calls = st.frozensets(st.integers(1, 40), max_size=12)


@settings(max_examples=40)
@given(st.lists(requests, min_size=1, max_size=4), st.integers(1, 4), st.integers(1, 12), calls, calls)
def test_a_tick_that_fails_and_is_done_again_changes_nothing(requests, n_slots, chunk, raising, nan):
    model = model_of()
    expected, n_failed = run(Engine(model, n_slots=n_slots, chunk=chunk), requests)
    assert n_failed == 0
    model.n_calls, model.raising, model.nan = 0, raising, nan
    got, n_failed = run(Engine(model, n_slots=n_slots, chunk=chunk), requests)
    assert got == expected
    if 1 in raising:
        assert n_failed > 0


@pytest.mark.parametrize("sampling", [SamplingConfig(temperature=0.0), SamplingConfig()])
def test_a_tick_of_one_request_finds_who_is_to_blame(sampling):
    """Position 8 is no number: texts that come so far fail, shorter ones beside them and after them do not."""
    model = model_of()
    short = [Request(prompt=(k, 1), max_new_tokens=6, seed=k, sampling=sampling) for k in range(3)]
    expected, _ = run(Engine(model, n_slots=4, chunk=4), short)
    with torch.no_grad():
        model.wpe.weight[8:] = torch.nan
    engine = Engine(model, n_slots=4, chunk=4)
    ids = [engine.submit(request) for request in short]
    bad = engine.submit(Request(prompt=(1, 2, 3, 4, 5, 6, 7), max_new_tokens=5))
    got, blamed = {id_: [] for id_ in (*ids, bad)}, []

    def take(events):
        for event in events:
            got[event.request].append(event.token)

    while engine.busy:
        try:
            take(engine.tick())
        except UserError:
            for id_ in (*ids, bad):
                try:
                    take(engine.tick(only=id_))
                except UserError:
                    engine.cancel(id_)
                    blamed.append(id_)
    assert blamed == [bad]
    assert [got[id_] for id_ in ids] == [[token for token, *_ in told] for told in expected.values()]
    again, n_failed = run(engine, short + short)  # in the slot of the one that failed, too
    assert n_failed == 0
    assert [list(told) for told in again.values()] == 2 * list(expected.values())
