import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from groundup.config.errors import UsageError, UserError
from groundup.config.generate import SamplingConfig
from groundup.generation import sampling
from groundup.generation.sampling import (
    Row,
    apply_count_penalties,
    apply_logit_bias,
    apply_min_p,
    apply_repetition_penalty,
    apply_temperature,
    apply_top_k,
    apply_top_p,
    sample,
)

INF = math.inf
# Quarters: exact in float32, with many ties.
logit_arrays = npst.arrays(
    np.float32, st.tuples(st.integers(1, 4), st.integers(1, 30)), elements=st.integers(-40, 40).map(lambda n: n / 4)
)


def tensor(*rows):
    return torch.tensor(rows, dtype=torch.float32)


def generators(n, seed=0):
    """n names for one generator: consecutive numbers of one stream."""
    return [torch.Generator().manual_seed(seed)] * n


def draw_ids(logits, config, generators):
    """The next id of every row, all under one config and with nothing seen."""
    rows = [Row(config=config, generator=generator) for generator in generators]
    return torch.tensor([drawn.token for drawn in sample(logits, rows)])


def mask(ids, vocab):
    return torch.zeros(len(ids), vocab, dtype=torch.bool).scatter(1, ids, True)


def random_logits(rows=5, vocab=200, scale=3.0):
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(3)) * scale


# What each function is, on numbers one can check by hand.


def test_repetition_penalty_divides_positive_and_multiplies_negative_logits_of_seen_tokens():
    out = apply_repetition_penalty(tensor([4.0, -4.0, 0.0, 3.0]), mask(torch.tensor([[0, 1, 2, 1, 0]]), 4), 2.0)
    assert out.tolist() == [[2.0, -8.0, 0.0, 3.0]]


def test_repetition_penalty_sees_each_row_alone():
    out = apply_repetition_penalty(tensor([2.0, 2.0], [2.0, 2.0]), mask(torch.tensor([[0], [1]]), 2), 4.0)
    assert out.tolist() == [[0.5, 2.0], [2.0, 0.5]]


def test_top_k_keeps_equals_of_the_kth():
    assert apply_top_k(tensor([1.0, 3.0, 2.0, 2.0, 0.0]), 2).tolist() == [[-INF, 3.0, 2.0, 2.0, -INF]]


@pytest.mark.parametrize("k", [0, 3, 4])
def test_top_k_of_nothing_or_everything_keeps_everything(k):
    assert apply_top_k(tensor([1.0, 3.0, 2.0]), k).tolist() == [[1.0, 3.0, 2.0]]


@pytest.mark.parametrize(
    ("p", "kept"),
    [(0.01, {1}), (0.49, {1}), (0.51, {1, 3}), (0.74, {1, 3}), (0.76, {0, 1, 2, 3}), (0.99, {0, 1, 2, 3}), (1.0, None)],
)
def test_top_p_keeps_the_smallest_set_with_at_least_p(p, kept):
    logits = tensor([0.125, 0.5, 0.125, 0.25, 0.0]).log()
    kept = {0, 1, 2, 3} if kept is None else kept
    assert set((apply_top_p(logits, p) > -INF)[0].nonzero()[:, 0].tolist()) == kept


def test_top_p_of_nearly_everything():
    """More than the probabilities, rounded, may sum to."""
    logits = random_logits(20, 3000)
    kept = apply_top_p(logits, 1 - 2**-53) > -INF
    assert ((logits.softmax(-1) * kept).sum(-1) > 1 - 1e-5).all()


def test_top_p_keeps_at_least_one():
    assert (apply_top_p(tensor([0.0, 9.0, 1.0]), 1e-9) > -INF).tolist() == [[False, True, False]]


@pytest.mark.parametrize(("p", "kept"), [(0.0, 5), (0.1, 4), (0.25, 4), (0.26, 2), (0.5, 2), (0.51, 1), (1.0, 1)])
def test_min_p_keeps_what_has_this_share_of_the_likeliest(p, kept):
    logits = tensor([0.125, 0.5, 0.125, 0.25, 0.001], [9.0, 9.0, 9.0, 9.0, 9.0]).log()
    assert (apply_min_p(logits, p) > -INF).sum(-1).tolist() == [kept, 5]


def test_presence_counts_once_and_frequency_each_time():
    logits, counts = tensor([1.0, 1.0, 1.0]), torch.tensor([[0, 1, 3]])
    assert apply_count_penalties(logits, counts, 0.5, 0.0).tolist() == [[1.0, 0.5, 0.5]]
    assert apply_count_penalties(logits, counts, 0.0, 0.25).tolist() == [[1.0, 0.75, 0.25]]
    assert apply_count_penalties(logits, counts, -1.0, 0.25).tolist() == [[1.0, 1.75, 1.25]]


def test_bias_is_added():
    assert apply_logit_bias(tensor([1.0, 2.0, 3.0]), [(0, 4.0), (2, -1.0)]).tolist() == [[5.0, 2.0, 2.0]]
    assert apply_logit_bias(tensor([1.0, 2.0], [3.0, 4.0]), [(1, 4), (1, 0.5)]).tolist() == [[1.0, 6.5], [3.0, 8.5]]
    assert apply_logit_bias(tensor([1.0, 2.0]), []).tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"min_p": 1.5}, "min-p"),
        ({"presence_penalty": INF}, "presence-penalty"),
        ({"frequency_penalty": math.nan}, "frequency-penalty"),
        ({"logit_bias": ((-1, 1.0),)}, "logit-bias.*-1"),
        ({"logit_bias": ((1, INF),)}, "logit-bias.*inf"),
    ],
)
def test_settings_without_a_meaning(changes, message):
    with pytest.raises(UsageError, match=message):
        SamplingConfig(**changes)


# The filters against transformers' own.


@pytest.mark.parametrize("p", [0.001, 0.05, 0.3, 1.0])
def test_min_p_equals_transformers(p):
    oracle = pytest.importorskip("transformers").generation.logits_process
    for logits in (random_logits(), random_logits(3, 3000, 0.1)):
        assert torch.equal(apply_min_p(logits, p), oracle.MinPLogitsWarper(p)(None, logits))


def test_penalty_and_temperature_equal_transformers():
    oracle = pytest.importorskip("transformers").generation.logits_process
    logits, seen = random_logits(), torch.randint(200, (5, 40), generator=torch.Generator().manual_seed(1))
    for value in (0.3, 1.0, 1.7):
        theirs = oracle.RepetitionPenaltyLogitsProcessor(value)(seen, logits)
        assert torch.equal(apply_repetition_penalty(logits, mask(seen, 200), value), theirs)
        assert torch.equal(apply_temperature(logits, value), oracle.TemperatureLogitsWarper(value)(seen, logits))


@pytest.mark.parametrize("k", [1, 2, 50, 199, 200, 500])
def test_top_k_equals_transformers(k):
    oracle = pytest.importorskip("transformers").generation.logits_process
    for logits in (random_logits(), random_logits().round()):  # rounded: ties
        assert torch.equal(apply_top_k(logits, k), oracle.TopKLogitsWarper(k)(None, logits))


@pytest.mark.parametrize("p", [0.001, 0.1, 0.5, 0.9, 0.95, 0.999])
@pytest.mark.parametrize(("vocab", "scale"), [(20, 1.0), (200, 3.0), (3000, 3.0), (3000, 0.1)])
def test_top_p_equals_transformers(p, vocab, scale):
    """Sharp and flat: the set fits the first guess, needs the second, needs the whole vocabulary."""
    oracle = pytest.importorskip("transformers").generation.logits_process
    logits = random_logits(3, vocab, scale)
    assert torch.equal(apply_top_p(logits, p), oracle.TopPLogitsWarper(p)(None, logits))


# For any logits.


@given(logit_arrays, st.integers(1, 40))
def test_top_k_keeps_k_or_more_only_for_ties(array, k):
    logits = torch.from_numpy(array)
    kept = apply_top_k(logits, k) > -INF
    for row, keep in zip(logits, kept, strict=True):
        in_, out = row[keep], row[~keep]
        assert len(in_) >= min(k, len(row))
        assert (in_ > in_.min()).sum() < k
        assert not len(out) or out.max() < in_.min()


@given(logit_arrays, st.floats(1e-6, 1))
def test_top_p_keeps_enough_and_not_more(array, p):
    logits = torch.from_numpy(array)
    kept = apply_top_p(logits, p) > -INF
    probabilities = logits.double().softmax(-1)
    for row, keep in zip(probabilities, kept, strict=True):
        in_, out = row[keep], row[~keep]
        assert len(in_) >= 1
        assert in_.sum() >= p - 1e-5
        assert in_[in_ > in_.min()].sum() < p + 1e-5  # without the least likely ones it is not enough
        assert not len(out) or out.max() < in_.min()


@given(logit_arrays, st.floats(0.01, 1), st.integers(0, 30))
def test_filters_do_not_depend_on_the_order_of_the_vocabulary(array, p, k):
    logits = torch.from_numpy(array)
    mass = logits.double().softmax(-1).sort(descending=True).values.cumsum(-1)
    assume((mass - p).abs().min() > 1e-5)  # where rounding decides, it may decide either way
    order = torch.randperm(logits.shape[1], generator=torch.Generator().manual_seed(0))
    for filter_ in (lambda x: apply_top_k(x, k), lambda x: apply_top_p(x, p)):
        assert torch.equal(filter_(logits)[:, order], filter_(logits[:, order]))


@given(logit_arrays, st.integers(1, 3))
def test_first_guess_changes_nothing(array, guess):
    """Top-p by the largest few equals top-p by all."""
    logits = torch.from_numpy(array)
    for p in (0.2, 0.7, 0.95):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sampling, "FIRST_GUESSES", (guess,))
            few = apply_top_p(logits, p)
            patch.setattr(sampling, "FIRST_GUESSES", ())
            assert torch.equal(few, apply_top_p(logits, p))


# Drawing.


def draw(config, logits, n, seed=0):
    """Frequencies of n draws from one row of logits."""
    rows = tensor(logits).expand(n, -1)
    ids = draw_ids(rows, config, generators(n, seed))
    return torch.bincount(ids, minlength=len(logits)).double()


@pytest.mark.parametrize(
    "config",
    [
        SamplingConfig(),
        SamplingConfig(temperature=0.5),
        SamplingConfig(temperature=3.0, top_k=4),
        SamplingConfig(top_p=0.8),
        SamplingConfig(temperature=1.5, top_k=5, top_p=0.9),
    ],
    ids=str,
)
def test_frequencies_are_the_probabilities(config):
    """Pearson's chi-square, with the seed fixed: a biased draw fails, the same draw never does."""
    logits = [0.3, 2.0, -1.0, 1.2, 0.0, 0.7, -3.0]
    n = 20_000
    expected = tensor(logits).double() / config.temperature
    expected = apply_top_p(apply_top_k(expected, config.top_k), config.top_p).softmax(-1)[0]
    observed = draw(config, logits, n)
    possible = expected > 0
    assert observed[~possible].sum() == 0
    chi2 = ((observed - n * expected)[possible] ** 2 / (n * expected)[possible]).sum()
    assert chi2 < 22.5  # 99.9 % quantile for 6 degrees of freedom


def test_neighboring_seeds_draw_independently():
    """The first numbers of generators seeded 0, 1, 2, ... are as good as those of one generator."""
    n = 5_000
    ids = draw_ids(torch.zeros(n, 10), SamplingConfig(), [torch.Generator().manual_seed(i) for i in range(n)])
    observed = torch.bincount(ids, minlength=10).double()
    assert ((observed - n / 10) ** 2 / (n / 10)).sum() < 27.9  # 99.9 % for 9 degrees of freedom


def test_impossible_tokens_are_never_drawn(monkeypatch):
    """Not even by the smallest and the largest number a generator can give."""
    logits = tensor([-INF, 1.0, -INF, 0.0, -INF])
    for number, expected in ((0.0, 1), (1 - 2**-53, 3)):
        monkeypatch.setattr(torch, "rand", lambda *_, n=number, **__: torch.tensor([n], dtype=torch.float64))
        assert draw_ids(logits, SamplingConfig(), generators(1)).tolist() == [expected]


def test_largest_number_falls_on_a_possible_token_however_probabilities_round(monkeypatch):
    logits = random_logits(200, 300)
    logits[:, -1] = -INF
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.tensor([1 - 2**-53], dtype=torch.float64))
    assert (logits.softmax(-1).double().sum(-1) < 1 - 1e-8).any()
    assert (draw_ids(logits, SamplingConfig(), generators(200)) < 299).all()


@pytest.mark.parametrize("temperature", [0.0, 5e-324, 1e-40, 1e-30])
def test_temperature_towards_zero_takes_the_largest(temperature):
    logits = random_logits(50, 300, 30.0)
    ids = draw_ids(logits, SamplingConfig(temperature=temperature), generators(50))
    assert torch.equal(ids, logits.argmax(-1))


@pytest.mark.parametrize("temperature", [1e-30, 3e-21, 1e-19])
def test_large_penalties_in_the_cold_are_numbers(temperature):
    config = SamplingConfig(temperature=temperature, frequency_penalty=-1_000_000)
    rows = [Row(config=config, generator=torch.Generator().manual_seed(0), drawn=[place] * 450) for place in (0, 1)]
    assert [drawn.token for drawn in sample(tensor([1.0, 5.0, 9.0], [1.0, -90.0, 9.0]), rows)] == [0, 1]
    equals = Row(config=SamplingConfig(temperature=temperature), generator=torch.Generator().manual_seed(1))
    assert {sample(tensor([3.0, 7.0, 7.0]), [equals])[0].token for _ in range(50)} == {1, 2}


def test_a_number_of_0_falls_on_no_token_that_is_all_but_impossible(monkeypatch):
    monkeypatch.setattr(sampling.torch, "rand", lambda *_, **__: torch.zeros(1, dtype=torch.float64))
    assert draw_ids(tensor([-90.0, 0.0, 0.0]), SamplingConfig(), generators(1)).tolist() == [1]


def test_greedy_takes_the_first_of_equals_and_draws_nothing():
    generator = torch.Generator().manual_seed(5)
    before = generator.get_state()
    assert draw_ids(tensor([1.0, 3.0, 3.0]), SamplingConfig(temperature=0.0), [generator]).tolist() == [1]
    assert torch.equal(generator.get_state(), before)


def test_greedy_obeys_the_penalty():
    config = SamplingConfig(temperature=0.0, repetition_penalty=2.0)
    (drawn,) = sample(tensor([1.0, 3.0, 2.0]), [Row(config=config, generator=generators(1)[0], prompt=[1])])
    assert drawn.token == 2


def test_rows_draw_from_their_own_generators():
    logits = random_logits(4, 50)
    together = draw_ids(logits, SamplingConfig(), [torch.Generator().manual_seed(i) for i in range(4)])
    alone = [draw_ids(logits[i : i + 1], SamplingConfig(), [torch.Generator().manual_seed(i)]).item() for i in range(4)]
    assert together.tolist() == alone


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_sampled_in_single_precision(dtype):
    logits = random_logits(500, 300).to(dtype)
    config = SamplingConfig(temperature=0.7, top_p=0.9)
    draws = [draw_ids(x, config, generators(500)) for x in (logits, logits.float())]
    assert torch.equal(*draws)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_nan_is_an_error_and_not_a_token(temperature):
    with pytest.raises(UserError, match="not numbers"):
        draw_ids(tensor([1.0, math.nan]), SamplingConfig(temperature=temperature), generators(1))


# Many rows at once.

SETTINGS = [
    SamplingConfig(),
    SamplingConfig(temperature=0.0),
    SamplingConfig(temperature=0.7, top_k=20),
    SamplingConfig(repetition_penalty=1.7, presence_penalty=0.5, frequency_penalty=-0.3),
    SamplingConfig(logit_bias=((3, 100.0),)),
    SamplingConfig(top_p=0.6, min_p=0.02),
]


def rows_of(configs, past=(1, 2, 2, 5)):
    return [
        Row(config=config, generator=torch.Generator().manual_seed(7 + n), prompt=past[:n], drawn=list(past[n:]))
        for n, config in enumerate(configs)
    ]


@given(st.lists(st.integers(0, len(SETTINGS) - 1), min_size=1, max_size=8))
def test_a_row_among_others_draws_what_it_draws_alone(kinds):
    logits = random_logits(len(kinds), 60).double()
    configs = [SETTINGS[kind] for kind in kinds]
    together = sample(logits, rows_of(configs))
    alone = [sample(logits[n : n + 1], [row])[0] for n, row in enumerate(rows_of(configs))]
    assert together == alone


def test_penalties_of_the_drawn_leave_the_prompt_alone():
    config = SamplingConfig(temperature=0.0, presence_penalty=2.0)
    logits = tensor([1.0, 3.0, 2.0])
    for prompt, drawn, want in (([1], [], 1), ([], [1], 2), ([1], [1], 2)):
        row = Row(config=config, generator=torch.Generator(), prompt=prompt, drawn=drawn)
        assert sample(logits, [row])[0].token == want


def test_frequency_is_the_difference_that_openai_documents():
    """mu[j] - c[j] * alpha_frequency - (c[j] > 0) * alpha_presence, written out."""
    config = SamplingConfig(temperature=0.0, presence_penalty=0.5, frequency_penalty=0.25)
    drawn = [3, 3, 3, 1]
    logits = random_logits(1, 5)
    expected = [
        mu - drawn.count(j) * 0.25 - (0.5 if j in drawn else 0.0) for j, mu in enumerate(logits[0].double().tolist())
    ]
    (got,) = sample(logits, [Row(config=config, generator=torch.Generator(), drawn=drawn)])
    assert got.token == expected.index(max(expected))


# What the model thinks of a token.


@pytest.mark.parametrize("config", SETTINGS, ids=str)
def test_scores_are_the_models_and_the_chosen_is_the_same_float_as_among_the_likeliest(config):
    logits = random_logits(1, 40)
    (row,) = rows_of([config])
    row.n_top = 40
    (drawn,) = sample(logits, [row])
    p = logits[0].double().softmax(-1)
    assert drawn.score.logprob == dict(drawn.score.top)[drawn.token]
    assert drawn.score.logprob == pytest.approx(p[drawn.token].log().item(), abs=1e-6)
    assert drawn.score.entropy == pytest.approx(-(p * p.log()).sum().item(), abs=1e-5)
    assert [token for token, _ in drawn.score.top] == p.argsort(descending=True).tolist()


def test_each_row_is_told_as_much_as_it_asks_for():
    rows = rows_of([SamplingConfig()] * 4)
    for row, n_top in zip(rows, (None, 0, 2, 99), strict=True):
        row.n_top = n_top
    scores = [drawn.score for drawn in sample(random_logits(4, 10), rows)]
    assert scores[0] is None
    assert [len(score.top) for score in scores[1:]] == [0, 2, 10]


def test_scores_change_no_token():
    logits = random_logits(4, 50)
    plain, scored = rows_of([SamplingConfig()] * 4), rows_of([SamplingConfig()] * 4)
    for row in scored:
        row.n_top = 3
    assert [d.token for d in sample(logits, plain)] == [d.token for d in sample(logits, scored)]


class OnApple(torch.Tensor):
    """Logits on a device that has no float64."""

    device = property(lambda self: torch.device("mps"))

    def double(self):
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype")

    def cpu(self):
        return self.as_subclass(torch.Tensor)


def test_ids_are_drawn_where_the_device_has_no_float64():
    config = SamplingConfig(temperature=1.3, top_p=0.9)
    logits = random_logits()
    there = draw_ids(logits.as_subclass(OnApple), config, generators(5))
    assert there.tolist() == draw_ids(logits, config, generators(5)).tolist()
