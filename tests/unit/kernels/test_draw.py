"""The draw in one call against the steps of generation/sampling.py in float64."""

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

import needs
from groundup.config.generate import SamplingConfig
from groundup.generation.sampling import apply_min_p, apply_temperature, apply_top_k, apply_top_p, choose
from groundup.kernels.compiled import CompiledKernels, load_kernels

pytestmark = needs.compiler
INF, NAN = math.inf, math.nan
DRAWN = SamplingConfig(temperature=0.7)
GREEDY = SamplingConfig(temperature=0.0)


@pytest.fixture(scope="module")
def compiled():
    kernels = load_kernels(lambda _: None)
    assert isinstance(kernels, CompiledKernels)
    return kernels


@given(
    st.integers(1, 300),
    st.integers(0, 2**31),
    st.integers(0, 80),
    st.just(1.0) | st.floats(0.05, 1),
    st.just(0.0) | st.floats(0, 0.5),
    st.floats(0.1, 3),
    st.floats(0, 1),
)
def test_a_draw_is_that_of_the_filters_one_by_one(compiled, n, seed, k, p, min_p, temperature, number):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randint(-20, 20, (3, n), generator=generator) / 4  # with many equals
    logits[1] = torch.randn(n, generator=generator)
    logits[2] -= 10_000 * torch.rand(n, generator=generator).round()  # half of them impossible
    config = SamplingConfig(temperature=temperature, top_k=k, top_p=p, min_p=min_p)
    scaled = apply_top_k(apply_temperature(logits.double(), temperature), k)
    mass = scaled.softmax(-1).sort(descending=True).values.cumsum(-1)
    shares = apply_top_p(scaled, p).softmax(-1)
    edges = apply_min_p(apply_top_p(scaled, p), min_p).softmax(-1).cumsum(-1)
    near = [edges - number]  # where rounding decides, it may decide either way
    if p < 1:
        near.append(mass - p)
    if min_p:
        near.append(shares / shares.amax(-1, keepdim=True) - min_p)
    assume(all((numbers.abs() > 1e-6).all() for numbers in near))
    uniform = torch.full((3, 1), number, dtype=torch.float64)
    assert torch.equal(compiled.draw(logits, config, uniform), choose(logits.double(), config, uniform))


@pytest.mark.parametrize("config", [DRAWN, SamplingConfig(top_k=2, temperature=0.7), SamplingConfig(top_p=0.9)])
@pytest.mark.parametrize("number", [0.0, 0.4, 1 - 2**-53])
def test_what_is_impossible_is_not_drawn_and_what_is_no_number_is_told(compiled, config, number):
    rows = [
        [-INF, 2.0, -INF],
        [-INF, -INF, -INF],
        [0.0, NAN, 1.0],
        [0.0, INF, 1.0],
        [-1e6, 1.0, -1e6],
        [NAN, -INF, NAN],
    ]
    uniform = torch.full((len(rows), 1), number, dtype=torch.float64)
    logits = torch.tensor(rows)
    assert compiled.draw(logits, config, uniform).tolist() == [1, -1, -1, -1, 1, -1]
    assert choose(logits, config, uniform).tolist() == [1, -1, -1, -1, 1, -1]


@pytest.mark.parametrize("top_p", [0.1, 0.3, 0.5, 0.6, 0.9])
@pytest.mark.parametrize("number", [0.0, 0.3, 0.7, 0.988])
def test_in_heat_logits_that_differ_are_no_equals_for_top_p(compiled, top_p, number):
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [-9.0, 9.0]])
    uniform = torch.full((len(logits), 1), number, dtype=torch.float64)
    for config in (SamplingConfig(temperature=1e30, top_p=top_p), SamplingConfig(temperature=1e9, top_p=top_p)):
        assert torch.equal(compiled.draw(logits, config, uniform), choose(logits, config, uniform))
    if top_p <= 0.5:
        config = SamplingConfig(temperature=1e30, top_p=top_p, min_p=0.5)
        assert compiled.draw(logits, config, uniform).tolist() == [0, 1, int(number >= 0.5), 1]


def test_greedy_takes_the_first_of_equals_wherever_it_is(compiled):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randint(0, 5, (50, 1000), generator=generator).float()
    logits[0, 123], logits[1, 7], logits[2] = NAN, INF, -INF
    expected = choose(logits, GREEDY, None)
    assert expected[0] == -1
    assert torch.equal(compiled.draw(logits, GREEDY, None), expected)


def test_a_row_draws_the_same_in_every_batch(compiled):
    logits = torch.randn(16, 5000, generator=torch.Generator().manual_seed(0))
    uniform = torch.rand(16, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for config in (DRAWN, SamplingConfig(top_k=50), SamplingConfig(top_p=0.9)):
        alone = [compiled.draw(logits[row : row + 1], config, uniform[row : row + 1]).item() for row in range(16)]
        assert compiled.draw(logits, config, uniform).tolist() == alone
        assert compiled.draw(logits.double(), config, uniform).tolist() == alone
        assert compiled.draw(logits.T.contiguous().T, config, uniform).tolist() == alone
