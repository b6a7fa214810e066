import dataclasses

import pytest
import torch

from groundup.config.errors import UsageError
from groundup.config.generate import SamplingConfig
from groundup.config.model import BigramConfig, GPTConfig, ModernConfig
from groundup.generation.engine import Engine, generate_ids
from groundup.generation.requests import Request
from groundup.model.bigram import Bigram
from groundup.model.build import Transformer, build_model
from groundup.model.gpt import GPT
from groundup.model.init import init_weights

GREEDY = SamplingConfig(temperature=0.0)
CONFIG = GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=16, vocab_size=50)


def gpt(*, position="learned", **changes) -> Transformer:
    """Weights ten times GPT-2's: attention that looks somewhere, and greedy text that does not repeat one token."""
    shape = dataclasses.asdict(CONFIG) | changes
    config = GPTConfig(**shape) if position == "learned" else ModernConfig(**shape, position=position)
    model = init_weights(build_model(config), seed=4)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(p * 10 if p.dim() == 2 else p)
    return model.eval()


def generate(model, prompt, n, *, sampling=GREEDY, num_samples=1, seed=0):
    """The new ids of every sample, a row each."""
    steps = generate_ids(model, prompt, max_new_tokens=n, sampling=sampling, num_samples=num_samples, seed=seed)
    return torch.tensor(list(steps)).T.tolist()


def serve(engine, *requests):
    """All events of each choice, by (place of the request, choice)."""
    places = {engine.submit(request): place for place, request in enumerate(requests)}
    events = {(place, choice): [] for place, request in enumerate(requests) for choice in range(request.n)}
    while engine.busy:
        for event in engine.tick():
            events[places[event.request], event.choice].append(event)
    return events


def logprobs_of(score):
    """The distribution, of a score that tells all of it."""
    return torch.tensor([value for _, value in sorted(score.top)])


@torch.no_grad()
def logprobs_without_cache(model, prompt, *texts):
    """What the engine promises of each text, (N, T, V), with the whole context read anew for every token."""
    contexts, steps = torch.tensor([prompt] * len(texts)), []
    for tokens in torch.tensor(texts).T:
        if contexts.shape[1] > model.config.block_size:
            contexts = contexts[:, -max(1, model.config.block_size // 2) :]
        steps.append(model(contexts)[:, -1].float().log_softmax(-1))
        contexts = torch.cat((contexts, tokens[:, None]), dim=1)
    return torch.stack(steps, dim=1)


@pytest.mark.parametrize("position", ["learned", "rope"])
@pytest.mark.parametrize(
    ("block_size", "prompt_length"), [(1, 1), (1, 5), (2, 1), (2, 2), (7, 1), (7, 5), (16, 1), (16, 15), (16, 16)]
)
def test_cached_decoding_equals_the_full_forward_at_every_position(position, block_size, prompt_length):
    """Far beyond the context, so that the window is cut several times."""
    model = gpt(position=position, block_size=block_size)
    prompt = tuple(range(prompt_length))
    request = Request(prompt=prompt, max_new_tokens=45, n=3, n_top=50)
    texts = [serve(Engine(model, n_slots=3, chunk=chunk), request).values() for chunk in (3, 16)]
    texts = [events for of_chunk in texts for events in of_chunk]
    assert [len(events) for events in texts] == [45] * 6
    ours = torch.stack([torch.stack([logprobs_of(event.score) for event in events]) for events in texts])
    expected = logprobs_without_cache(model, prompt[-block_size:], *([event.token for event in t] for t in texts))
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_vectors_of_runs_know_the_tokens_before_a_piece():
    """Also where a slot goes on from what another has read, and where the context is cut."""
    model = gpt(position="rope", ngram=4)
    torch.nn.init.normal_(model.ngrams.weight, generator=torch.Generator().manual_seed(6))
    prompt = tuple(range(9))
    asked = [Request(prompt=p, max_new_tokens=20, n=2, n_top=50) for p in (prompt, (*prompt[:8], 30, 31))]
    for (place, _), events in serve(Engine(model, n_slots=3, chunk=4), *asked).items():
        ours = torch.stack([logprobs_of(event.score) for event in events])
        (expected,) = logprobs_without_cache(model, asked[place].prompt, [event.token for event in events])
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_half_precision_weights():
    model = gpt().bfloat16()
    (events,) = serve(Engine(model), Request(prompt=(1, 2, 3), max_new_tokens=30, n_top=50)).values()
    (expected,) = logprobs_without_cache(model, [1, 2, 3], [event.token for event in events])
    torch.testing.assert_close(
        torch.stack([logprobs_of(event.score) for event in events]), expected, atol=0.25, rtol=0.05
    )


GOLDEN = [
    (
        SamplingConfig(),
        [33, 3, 18, 7, 32, 25, 2, 4, 20, 24, 48, 44, 31, 3, 13, 43, 17, 4, 4, 42, 34, 21, 17, 35],
        [17, 43, 31, 0, 0, 33, 48, 28, 23, 4, 23, 12, 22, 41, 34, 30, 3, 32, 21, 35, 22, 8, 27, 24],
    ),
    (
        SamplingConfig(temperature=0.8, top_k=5),
        [17, 8, 8, 9, 30, 30, 4, 4, 4, 4, 32, 42, 8, 8, 27, 18, 4, 4, 4, 24, 8, 8, 8, 32],
        [8, 42, 30, 4, 4, 32, 37, 6, 24, 4, 24, 8, 8, 41, 8, 8, 8, 30, 27, 8, 27, 8, 27, 13],
    ),
    (
        SamplingConfig(top_p=0.8, repetition_penalty=1.3),
        [28, 7, 16, 4, 34, 30, 3, 5, 10, 9, 48, 41, 8, 0, 13, 43, 22, 4, 8, 42, 40, 22, 18, 37],
        [16, 42, 30, 0, 0, 32, 45, 28, 23, 5, 24, 8, 17, 41, 33, 26, 1, 40, 19, 35, 19, 18, 19, 28],
    ),
]
"""Tokens of version 0.1: a seed goes on drawing what it drew."""


@pytest.mark.parametrize(("sampling", "first", "second"), GOLDEN, ids=str)
def test_seeds_draw_what_they_always_drew(sampling, first, second):
    assert generate(gpt(), [1, 2], 24, sampling=sampling, num_samples=2, seed=11) == [first, second]


def test_greedy_equals_transformers():
    transformers = pytest.importorskip("transformers")
    ours = gpt(block_size=64)
    config = transformers.GPT2Config(n_layer=2, n_head=2, n_embd=32, n_positions=64, vocab_size=50)
    theirs = transformers.GPT2LMHeadModel(config).eval()
    transposed = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
    state = {f"transformer.{k}": v.T if k.endswith(transposed) else v for k, v in ours.state_dict().items()}
    assert not theirs.load_state_dict(state, strict=False).unexpected_keys
    theirs.tie_weights()
    options = {"max_new_tokens": 50, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    for penalty in (1.0, 1.3):
        expected = theirs.generate(
            torch.tensor([[7, 8, 9]]), attention_mask=torch.ones(1, 3), repetition_penalty=penalty, **options
        )
        got = generate(ours, [7, 8, 9], 50, sampling=SamplingConfig(temperature=0.0, repetition_penalty=penalty))
        assert got == expected[:, 3:].tolist()
        assert len(set(got[0])) > 5


@pytest.mark.parametrize("sampling", [SamplingConfig(), SamplingConfig(top_k=5), SamplingConfig(top_p=0.8)], ids=str)
def test_a_sample_depends_on_the_seed_and_its_place_only(sampling):
    model = gpt()
    five = generate(model, [1, 2], 40, sampling=sampling, num_samples=5, seed=11)
    assert five == generate(model, [1, 2], 40, sampling=sampling, num_samples=5, seed=11)
    assert five[:2] == generate(model, [1, 2], 40, sampling=sampling, num_samples=2, seed=11)
    assert [row[:9] for row in five] == generate(model, [1, 2], 9, sampling=sampling, num_samples=5, seed=11)
    assert len({tuple(row) for row in five}) == 5
    other = generate(model, [1, 2], 40, sampling=sampling, num_samples=5, seed=12)
    assert not {tuple(row) for row in five} & {tuple(row) for row in other}


def test_global_random_state_is_neither_read_nor_moved():
    model = gpt()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = generate(model, [3], 20, sampling=SamplingConfig())
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert generate(model, [3], 20, sampling=SamplingConfig()) == first


def test_choices_that_end_leave_the_others_as_they_are():
    model = gpt()
    whole = generate(model, [1, 2], 40, sampling=SamplingConfig(), num_samples=4, seed=3)
    batches = []
    hidden = model.hidden
    model.hidden = lambda idx, **kw: batches.append(len(idx)) or hidden(idx, **kw)
    engine = Engine(model, n_slots=4)
    request = engine.submit(Request(prompt=(1, 2), max_new_tokens=40, n=4, seed=3))
    got = [[], [], [], []]
    while engine.busy:
        for event in engine.tick():
            got[event.choice].append(event.token)
        if len(got[1]) == 6:
            engine.cancel(request, 1)
        if len(got[2]) == 21:  # after the window was cut
            engine.cancel(request, 0)
            engine.cancel(request, 3)
    assert got[1] == whole[1][:6]
    assert got[2] == whole[2]
    assert got[0] == whole[0][: len(got[0])]
    assert len(got[0]) < 25
    assert batches[-10:] == [1] * 10


def test_head_runs_for_the_last_position_only():
    model, n_logits = gpt(), []
    logits = model.logits
    model.logits = lambda hidden: n_logits.append(hidden.shape[:-1].numel()) or logits(hidden)
    generate(model, [1, 2, 3], 16, sampling=SamplingConfig())
    assert n_logits == [1] * 16


@pytest.fixture
def read(monkeypatch):
    """Shapes of what every forward reads."""
    shapes = []
    hidden = GPT.hidden
    monkeypatch.setattr(
        GPT, "hidden", lambda self, idx, **kw: shapes.append(tuple(idx.shape)) or hidden(self, idx, **kw)
    )
    return shapes


def test_prompt_is_read_once_and_then_one_token_a_step(read):
    model = gpt()
    generate(model, [1, 2, 3], 10, num_samples=4, sampling=SamplingConfig())
    assert read == [(1, 3)] + [(4, 1)] * 9 + [(3, 1)]  # samples 1 to 3 begin a step later: at the prompt's last token
    read.clear()
    generate(
        model, [1, 2, 3], 20, sampling=SamplingConfig()
    )  # 3 + 13 fill the context of 16; then the last 8 are read again
    assert read == [(1, 3)] + [(1, 1)] * 13 + [(1, 8)] + [(1, 1)] * 5


def test_a_model_without_a_use_for_the_cache():
    table = torch.full((5, 5), -9.0)
    for token in range(5):
        table[token, (token + 2) % 5] = 9.0
    model = Bigram(BigramConfig(vocab_size=5))
    model.load_state_dict({"table.weight": table})
    assert generate(model, [4, 4, 1], 6, num_samples=2) == [[3, 0, 2, 4, 1, 3]] * 2


@pytest.mark.parametrize(("length", "message"), [(0, "empty"), (17, "17 tokens.*context is 16")])
def test_prompts_that_cannot_be_continued(length, message):
    with pytest.raises(UsageError, match=message):
        generate(gpt(), range(length), 5)


@pytest.mark.parametrize("token", [-1, 50])
def test_ids_that_the_model_does_not_have(token):
    with pytest.raises(UsageError, match="0 to 49"):
        generate(gpt(), [1, token], 5)
    if token > 0:
        with pytest.raises(UsageError, match="logit-bias names token 50"):
            generate(gpt(), [1], 5, sampling=SamplingConfig(logit_bias=((token, 1.0),)))


def test_nothing_to_do():
    for n, num_samples in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="nothing to do"):
            generate(gpt(), [1], n, num_samples=num_samples)


# What is told.


def test_stop_ids_end_a_text_and_are_told():
    model = gpt()
    (whole,) = generate(model, [1, 2], 30)
    stop = whole[7]
    request = Request(prompt=(1, 2), max_new_tokens=30, sampling=GREEDY, stop_ids=frozenset({stop, 49}))
    (events,) = serve(Engine(model), request).values()
    assert [event.token for event in events] == whole[: whole.index(stop) + 1]
    assert [event.finish for event in events] == [None] * whole.index(stop) + ["stop"]
    (events,) = serve(Engine(model), Request(prompt=(1, 2), max_new_tokens=3)).values()
    assert [event.finish for event in events] == [None, None, "length"]


@pytest.mark.parametrize("chunk", [1, 2, 5, 16])
@pytest.mark.parametrize("length", [1, 2, 5, 6, 16])
def test_scores_of_the_prompt_are_those_of_one_forward(chunk, length):
    model = gpt()
    prompt = tuple(range(3, 3 + length))
    logprobs = model(torch.tensor([prompt]))[0].detach().log_softmax(-1)
    engine = Engine(model, n_slots=2, chunk=chunk)
    serve(engine, Request(prompt=prompt, max_new_tokens=2))  # what it left in a slot must not be used
    for max_new_tokens, n in ((0, 1), (2, 1), (2, 2)):
        request = Request(prompt=prompt, max_new_tokens=max_new_tokens, n=n, n_top=3, score_prompt=True)
        events = serve(engine, request)
        first = events[0, 0][0]
        assert first.prompt_scores[0] is None
        got = torch.tensor([score.logprob for score in first.prompt_scores[1:]])
        torch.testing.assert_close(got, logprobs[:-1].gather(1, torch.tensor(prompt)[1:, None])[:, 0])
        for score, row in zip(first.prompt_scores[1:], logprobs, strict=False):
            assert [token for token, _ in score.top] == row.topk(3).indices.tolist()
        told = [event.prompt_scores for choice in events.values() for event in choice]
        assert sum(scores is not None for scores in told) == 1
        assert [event.token is None for event in events[0, 0]] == ([True] if not max_new_tokens else [False] * 2)
        assert events[0, 0][-1].finish == "length"


def test_greedy_is_told_by_equal_floats():
    """As lm-evaluation-harness asks: is ln p of the token the largest of all?"""
    model = gpt()
    (new,) = generate(model, [1, 2, 3], 4)
    request = Request(prompt=(1, 2, 3, *new), max_new_tokens=0, n_top=1, score_prompt=True)
    (events,) = serve(Engine(model), request).values()
    for score in events[0].prompt_scores[3:]:
        assert score.logprob == score.top[0][1]
