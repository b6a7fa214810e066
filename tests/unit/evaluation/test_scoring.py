import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from groundup.config.model import BigramConfig
from groundup.evaluation import scoring
from groundup.evaluation.scoring import Question, log_likelihoods
from groundup.model.bigram import Bigram
from groundup.model.gpt import GPT

IDS = st.lists(st.integers(0, 28), min_size=1, max_size=12)
QUESTIONS = st.lists(st.builds(Question, IDS, st.lists(IDS, min_size=1, max_size=4)), min_size=1, max_size=6)


@torch.no_grad()
def direct(model, question):
    """(sum of ln p, tokens, greedy) of each continuation, on its own, in double precision."""
    model = model.eval().double()
    answers = []
    for continuation in question.continuations:
        ids = torch.tensor([*question.context, *continuation])
        if isinstance(model, GPT):
            ids = ids[-model.config.block_size - 1 :]
        n = min(len(continuation), len(ids) - 1)
        logp = model(ids[None, :-1])[0].log_softmax(-1)[-n:]
        found = logp.gather(-1, ids[-n:, None])
        answers.append((float(found.sum()), n, bool((logp.argmax(-1) == ids[-n:]).all())))
    model.float()
    return answers


def check(model, questions, **options):
    scores = log_likelihoods(model, questions, **options)
    for found, question in zip(scores, questions, strict=True):
        for s, (logprob, n, greedy) in zip(found, direct(model, question), strict=True):
            assert s.logprob == pytest.approx(logprob, rel=1e-5, abs=1e-5)
            assert (s.n_tokens, s.greedy) == (n, greedy)
            assert s.mean == pytest.approx(logprob / n, rel=1e-5, abs=1e-5)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(questions=QUESTIONS, batch_tokens=st.sampled_from([1, 5, 16, 40, 1000]), block_size=st.sampled_from([6, 64]))
def test_equals_each_continuation_on_its_own(make_model, questions, batch_tokens, block_size):
    check(make_model(block_size=block_size), questions, batch_tokens=batch_tokens)


@pytest.mark.parametrize("options", [{"position": "rope"}, {"bias": False}, {"dropout": 0.5}])
def test_every_kind_of_model(make_model, options):
    questions = [Question(range(n, n + 5), [[1, 2, 3], [4], [5, 6]]) for n in range(8)]
    check(make_model(**options).train(), questions)


def test_a_bigram_needs_no_context():
    model = Bigram(BigramConfig(vocab_size=29))
    with torch.no_grad():
        model.table.weight.normal_(generator=torch.Generator().manual_seed(0))
    check(model, [Question([1, 2, 3, n], [[4, 5], [6], [7, 8, 9]]) for n in range(5)])


def test_what_is_longer_than_the_context_is_cut_from_the_left(make_model):
    model = make_model(block_size=8)
    context = list(range(20))
    short, long, longest = [1, 2], list(range(8)), list(range(3, 23))
    (scores,) = log_likelihoods(model, [Question(context, [short, long, longest])])
    assert [s.n_tokens for s in scores] == [2, 8, 8]  # 8 tokens of context foresee at most 8 tokens
    check(model, [Question(context, [short, long, longest])])
    same = log_likelihoods(
        model, [Question(context[-7:], [short]), Question([19], [long]), Question([14], [longest[-8:]])]
    )
    for cut, whole in zip(scores, [s for (s,) in same], strict=True):
        assert cut.logprob == pytest.approx(whole.logprob, rel=1e-5)


def test_the_order_is_that_of_the_questions(make_model):
    model = make_model()
    questions = [Question(range(1 + n % 7), [[n], [n, n], [28 - n] * (1 + n % 5)]) for n in range(20)]
    together = log_likelihoods(model, questions, batch_tokens=64)
    for question, scores in zip(questions, together, strict=True):
        (alone,) = log_likelihoods(model, [question])
        assert [s.n_tokens for s in scores] == [len(c) for c in question.continuations]
        assert [s.logprob for s in scores] == pytest.approx([s.logprob for s in alone], rel=1e-5)


def test_the_context_is_read_once_and_padding_is_rare(make_model, monkeypatch):
    """30 tokens of context and 4 endings of 5: 29 + 4 * 5 tokens instead of 4 * 34."""
    seen = []
    hidden = GPT.hidden
    monkeypatch.setattr(
        GPT, "hidden", lambda self, idx, *, cache: seen.append(idx.numel()) or hidden(self, idx, cache=cache)
    )
    log_likelihoods(
        make_model(),
        [Question(range(29), [[n] * 5 for n in range(4)]), Question(range(29), [[n] * 5 for n in range(4)])],
    )
    assert sum(seen) == 2 * (28 + 4 * 5)
    seen.clear()
    log_likelihoods(
        make_model(), [Question([n], [[1] * length]) for n in range(5) for length in (2, 30)], batch_tokens=30
    )
    assert sum(seen) == 5 * (2 + 30)


def test_logits_are_made_in_chunks(make_model, monkeypatch):
    questions = [Question([n, 1], [[2, 3, 4], [5, 6]]) for n in range(9)]
    whole = log_likelihoods(make_model(), questions)
    monkeypatch.setitem(scoring.HEAD_BYTES, "cpu", 4 * 29 * 2)
    for a, b in zip(whole, log_likelihoods(make_model(), questions), strict=True):
        assert [s.logprob for s in a] == pytest.approx([s.logprob for s in b], rel=1e-6)


def test_of_equal_logits_the_first_is_the_greedy_one():
    model = Bigram(BigramConfig(vocab_size=5))  # all zeros
    ((first, second),) = log_likelihoods(model, [Question([3], [[0, 0], [0, 1]])])
    assert first.logprob == second.logprob
    assert (first.greedy, second.greedy) == (True, False)


def test_the_model_and_chance_are_left_as_they_were(make_model):
    model = make_model(dropout=0.5).train()
    state = torch.get_rng_state()
    log_likelihoods(model, [Question([1], [[2]])])
    assert model.training
    assert torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("question", [Question([], [[1]]), Question([1], [[2], []])])
def test_there_must_be_something_to_score(make_model, question):
    with pytest.raises(ValueError, match="question 1 has an empty context or continuation"):
        log_likelihoods(make_model(), [Question([1], [[2]]), question])


def test_nothing_asked_nothing_answered(make_model):
    assert log_likelihoods(make_model(), []) == []
