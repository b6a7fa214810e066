"""Whoever else is served: each gets what it gets alone, in good time."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.config.generate import SamplingConfig
from groundup.config.model import GPTConfig, ModernConfig
from groundup.generation.engine import Engine
from groundup.generation.requests import Request
from groundup.model.build import build_model
from groundup.model.init import init_weights

GREEDY = SamplingConfig(temperature=0.0)
CONFIG = GPTConfig(n_layer=1, n_head=2, n_embd=8, block_size=12, vocab_size=11)


def model_of(position="learned"):
    """In float64, where rounding decides nothing."""
    shape = dataclasses.asdict(CONFIG)
    config = GPTConfig(**shape) if position == "learned" else ModernConfig(**shape, position=position)
    model = init_weights(build_model(config), seed=4).double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(p * 20 if p.dim() == 2 else p)
    return model.eval()


MODELS = {position: model_of(position) for position in ("learned", "rope")}


def alone(model, request):
    """Tokens of every choice, with nobody else there, no chunks and nothing to find."""
    texts = []
    for choice in range(request.n):
        engine = Engine(model, n_slots=1, chunk=CONFIG.block_size)
        id_ = engine.submit(request)
        for other in range(request.n):
            if other != choice:
                engine.cancel(id_, other)
        tokens = []
        while engine.busy:
            tokens += [event.token for event in engine.tick()]
        texts.append(tokens)
    return texts


samplings = st.sampled_from(
    [
        GREEDY,
        SamplingConfig(),
        SamplingConfig(temperature=0.7, top_k=4),
        SamplingConfig(top_p=0.8, repetition_penalty=1.5, frequency_penalty=0.3),
    ]
)
requests = st.builds(
    Request,
    # Few ids: prompts with common beginnings.
    prompt=st.lists(st.integers(0, 2), min_size=1, max_size=12).map(tuple),
    max_new_tokens=st.integers(1, 20),
    sampling=samplings,
    n=st.integers(1, 3),
    seed=st.integers(0, 3),
    stop_ids=st.sets(st.integers(0, 10), max_size=1).map(frozenset),
    n_top=st.sampled_from([None, 2]),
    score_prompt=st.booleans(),
)
actions = st.lists(
    st.one_of(
        requests,
        st.integers(1, 6),  # so many ticks
        st.tuples(st.integers(0, 9), st.none() | st.integers(0, 2)),  # cancel
    ),
    max_size=14,
)


class Client:
    """Notes what the engine tells, and that it tells nothing of what is over."""

    def __init__(self, engine):
        self.engine = engine
        self.submitted, self.got, self.ended, self.canceled, self.told = {}, {}, set(), set(), []

    def do(self, action):
        if isinstance(action, Request):
            id_ = self.engine.submit(action)
            self.submitted[id_] = action
            self.got |= {(id_, choice): [] for choice in range(action.n)}
        elif isinstance(action, int):
            for _ in range(action):
                self.tick()
        elif self.submitted:
            place, choice = action
            id_ = list(self.submitted)[place % len(self.submitted)]
            self.engine.cancel(id_, choice)
            self.canceled |= {key for key in self.got if key[0] == id_ and choice in (None, key[1])} - self.ended

    def tick(self):
        for event in self.engine.tick():
            key = event.request, event.choice
            assert key not in self.ended | self.canceled
            self.got[key].append(event.token)
            if event.finish:
                self.ended.add(key)
            if event.prompt_scores:
                self.told.append(event.request)
                assert len(event.prompt_scores) == len(self.submitted[event.request].prompt)


@pytest.mark.fault(
    "F12",
    "requests come, are canceled and share slots and prompts in any order",
    "each gets the tokens it gets alone (float64)",
)
@settings(max_examples=60)
@given(actions, st.integers(1, 4), st.integers(1, 12), st.sampled_from(sorted(MODELS)))
def test_any_interleaving_gives_each_request_what_it_gets_alone(actions, n_slots, chunk, position):
    model = MODELS[position]
    client = Client(Engine(model, n_slots=n_slots, chunk=chunk))
    for action in actions:
        client.do(action)
    n_ticks = 0
    while client.engine.busy:
        client.tick()
        n_ticks += 1
        assert n_ticks < 2000
    assert client.ended | client.canceled == set(client.got)
    for id_, request in client.submitted.items():
        for choice, text in enumerate(alone(model, request)):
            tokens = client.got[id_, choice]
            assert tokens == (text if (id_, choice) in client.ended else text[: len(tokens)])
        if request.score_prompt and any(client.got[id_, choice] for choice in range(request.n)):
            assert client.told.count(id_) == 1


def test_a_long_prompt_stops_running_texts_for_no_more_than_a_chunk():
    """Every text that runs draws a token in every tick, while long prompts come in; and no forward reads more."""
    model, n_read = model_of(), []
    hidden = model.hidden
    model.hidden = lambda idx, **kw: n_read.append(idx.shape[1]) or hidden(idx, **kw)
    engine = Engine(model, n_slots=4, chunk=2)
    short = [engine.submit(Request(prompt=(k,), max_new_tokens=10, sampling=GREEDY)) for k in range(2)]
    engine.tick()
    for k in range(3):
        engine.submit(Request(prompt=(5, k) * 6, max_new_tokens=1))
    for _ in range(9):
        drawn = [event.request for event in engine.tick()]
        assert set(short) <= set(drawn)
    assert max(n_read) == 2


def test_prompts_are_read_in_turn():
    """A short prompt that comes second is read before a long one is through."""
    engine = Engine(MODELS["learned"], n_slots=2, chunk=2)
    long = engine.submit(Request(prompt=tuple(range(11)), max_new_tokens=1))
    short = engine.submit(Request(prompt=(1, 2, 3, 4), max_new_tokens=1))
    order = []
    while engine.busy:
        order += [event.request for event in engine.tick()]
    assert order == [short, long]


def test_many_choices_of_one_request_starve_nobody():
    engine = Engine(MODELS["learned"], n_slots=2, chunk=4)
    many = engine.submit(Request(prompt=(1, 2), max_new_tokens=3, n=40))
    for _ in range(4):
        engine.tick()
    others = [engine.submit(Request(prompt=(k, 1), max_new_tokens=3)) for k in range(3)]
    ends = []
    while engine.busy:
        ends += [event.request for event in engine.tick() if event.finish]
    # They are among the first ten to end, though more than 30 choices were there before them.
    assert max(ends.index(other) for other in others) < 10
    assert ends.count(many) > 30


def test_cancel_frees_slots_at_once():
    engine = Engine(MODELS["learned"], n_slots=2, chunk=4)
    first = engine.submit(Request(prompt=(1, 2, 3, 4, 5, 6, 7, 8, 9), max_new_tokens=1000, n=9))
    engine.tick()  # in the middle of its prompt
    second = engine.submit(Request(prompt=(1,), max_new_tokens=2, n=2))
    engine.cancel(first)
    assert {(event.request, event.choice) for event in engine.tick()} == {(second, 0), (second, 1)}
    engine.cancel(second)
    assert not engine.busy
    assert engine.tick() == []
    engine.cancel(first)  # what is over, and what never was
    engine.cancel(99)


def test_when_the_choice_that_reads_the_prompt_is_canceled_another_reads_it():
    model = MODELS["learned"]
    request = Request(prompt=tuple(range(9)), max_new_tokens=4, n=3, score_prompt=True)
    engine = Engine(model, n_slots=3, chunk=2)
    id_ = engine.submit(request)
    engine.tick()
    engine.cancel(id_, 0)
    got = {1: [], 2: []}
    scores = []
    while engine.busy:
        for event in engine.tick():
            got[event.choice].append(event.token)
            scores += [event.prompt_scores] if event.prompt_scores else []
    assert [got[1], got[2]] == alone(model, request)[1:]
    assert [len(told) for told in scores] == [9]


def test_a_prompt_that_fills_its_slot_between_two_running_texts():
    model = MODELS["learned"]
    running = Request(prompt=(1,), max_new_tokens=8, sampling=GREEDY)
    full = Request(prompt=(0,) * 12, max_new_tokens=3, sampling=GREEDY)
    engine = Engine(model, n_slots=3, chunk=12)
    for _ in range(3):
        engine.submit(running)
    engine.tick()
    engine.cancel(2)
    last = engine.submit(full)
    tokens = []
    while engine.busy:
        tokens += [event.token for event in engine.tick() if event.request == last]
    assert tokens == alone(model, full)[0]


# What is found in slots.


def n_tokens_read(model, engine, request):
    """How many tokens a request reads, its events, and what they say was found."""
    count = []
    hidden = type(model).hidden
    model.hidden = lambda idx, **kw: count.append(idx.numel()) or hidden(model, idx, **kw)
    engine.submit(request)
    events = []
    while engine.busy:
        events += engine.tick()
    del model.hidden
    return sum(count), [event.token for event in events], events[0].n_reused


def test_a_common_beginning_is_read_once_in_whole_chunks():
    model = model_of()
    engine = Engine(model, n_slots=2, chunk=4)
    first = Request(prompt=(1, 2, 3, 4, 5, 6, 7, 8, 9), max_new_tokens=1, sampling=GREEDY)
    assert n_tokens_read(model, engine, first)[0::2] == (9, 0)
    assert n_tokens_read(model, engine, first)[0::2] == (1, 8)  # one is always read
    other = dataclasses.replace(first, prompt=(1, 2, 3, 4, 5, 6, 0, 0))
    assert n_tokens_read(model, engine, other)[0::2] == (4, 4)
    assert n_tokens_read(model, engine, dataclasses.replace(first, score_prompt=True))[0::2] == (9, 0)


@pytest.mark.parametrize("position", sorted(MODELS))
def test_what_was_found_changes_no_token(position):
    model = MODELS[position]
    prompts = [(1, 2, 3, 4, 5), (1, 2, 3, 4, 0, 6, 7), (1, 2, 3, 0), (1, 2, 3, 4, 0, 6, 7, 8)]
    used, fresh = Engine(model, n_slots=3, chunk=2), []
    found = []
    for prompt in prompts:
        request = Request(prompt=prompt, max_new_tokens=4, seed=5)
        _, tokens, n_reused = n_tokens_read(model, used, request)
        found.append(n_reused)
        fresh.append(tokens == alone(model, request)[0])
    assert found == [0, 4, 2, 6]
    assert all(fresh)


def test_a_running_text_lends_its_beginning():
    model = MODELS["learned"]
    engine = Engine(model, n_slots=2, chunk=2)
    request = Request(prompt=(1, 2, 3, 4, 5), max_new_tokens=7)
    engine.submit(request)
    engine.tick()
    engine.tick()
    second = engine.submit(dataclasses.replace(request, seed=1))
    events = []
    while engine.busy:
        events += [event for event in engine.tick() if event.request == second]
    assert events[0].n_reused == 4
    assert [event.token for event in events] == alone(model, dataclasses.replace(request, seed=1))[0]


# What is guessed.

greedy_requests = st.builds(
    Request,
    prompt=st.lists(st.integers(0, 2), min_size=1, max_size=12).map(tuple),
    max_new_tokens=st.integers(1, 40),
    sampling=st.sampled_from([GREEDY, SamplingConfig(temperature=0.0, logit_bias=((3, 2.0),))]),
    stop_ids=st.sets(st.integers(0, 10), max_size=1).map(frozenset),
    n_top=st.sampled_from([None, 2]),
    score_prompt=st.booleans(),
)


def events_of(model, requests, *, speculate, **shape):
    engine, events = Engine(model, speculate=speculate, **shape), {}
    for request in requests:
        engine.submit(request)
    n_ticks = 0
    while engine.busy:
        n_ticks += 1
        for event in engine.tick():
            events.setdefault(event.request, []).append((event.token, event.finish, event.score))
    return events, n_ticks


@settings(max_examples=40)
@given(
    st.lists(greedy_requests, min_size=1, max_size=3),
    st.integers(1, 2),
    st.integers(1, 12),
    st.sampled_from(sorted(MODELS)),
)
def test_guesses_change_no_token(requests, n_slots, chunk, position):
    shape = {"n_slots": n_slots, "chunk": chunk}
    guessed, _ = events_of(MODELS[position], requests, speculate=True, **shape)
    plain, _ = events_of(MODELS[position], requests, speculate=False, **shape)
    assert guessed.keys() == plain.keys()
    for id_, told in plain.items():
        assert [one[:2] for one in guessed[id_]] == [one[:2] for one in told]
        for (_, _, ours), (_, _, theirs) in zip(guessed[id_], told, strict=True):
            assert (ours is None) == (theirs is None)
            if ours is not None:
                assert ours.logprob == pytest.approx(theirs.logprob, abs=1e-9)


def repeating():
    """A model whose greedy text goes round in a circle of four."""
    model = init_weights(build_model(dataclasses.replace(CONFIG, block_size=64)), seed=4).double().eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.zero_() if "wte" not in name and "ln" not in name else None
        model.wte.weight.copy_(torch.eye(11, 8) * 5)
        model.ln_f.weight.fill_(1)
    turn = [1, 2, 3, 0, *range(4, 11)]
    logits = model.logits
    model.logits = lambda hidden: logits(hidden)[..., [turn.index(k) for k in range(11)]]
    return model


def test_a_text_that_repeats_itself_takes_few_ticks():
    request = Request(prompt=(0,), max_new_tokens=60, sampling=GREEDY)
    guessed, n_guessed = events_of(repeating(), [request], speculate=True)
    plain, n_plain = events_of(repeating(), [request], speculate=False)
    assert guessed == plain
    assert [token for token, *_ in plain[1]][:8] == [1, 2, 3, 0, 1, 2, 3, 0]
    assert n_plain == 60
    assert n_guessed < 20
