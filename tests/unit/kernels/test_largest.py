"""The largest logits of a head from weights in 8 bits and a few of its own, against the whole product."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import needs
from groundup.kernels.compiled import CompiledKernels, load_kernels
from groundup.runtime.stored import Stored

pytestmark = needs.compiler
FLOATS = (torch.float32, torch.float16, torch.bfloat16)
V, C = 4096, 96


@pytest.fixture(scope="module")
def compiled():
    kernels = load_kernels(lambda _: None)
    assert isinstance(kernels, CompiledKernels)
    return kernels


def agree(found, logits, k):
    """Whether those that may be drawn are there and to the bit the same, and the others are impossible."""
    there = found > -math.inf
    least = logits.topk(k).values[:, -1:]
    return torch.equal(found[there], logits[there]) and bool(there[logits >= least].all())


@given(
    st.integers(1, 5),
    st.integers(200, 700),
    st.integers(1, 150),
    st.integers(0, 2**31),
    st.integers(1, 9),
    st.sampled_from(FLOATS),
    st.floats(-140, 120),
    st.booleans(),
)
@settings(max_examples=150)
def test_the_largest_are_those_of_the_whole_product(compiled, B, n_rows, width, seed, k, dtype, size, peaked):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(n_rows, width, generator=generator) * torch.rand(n_rows, 1, generator=generator)
    weight[1] = 0
    weight[2] = weight[3]  # equals stay or go together
    x = torch.randn(B, width, generator=generator) * 2**size
    if peaked:  # as GPT-2's last norm leaves it: a few large numbers
        x[:, :: max(1, width // 3)] *= 200
    weight = weight.to(dtype)
    found = compiled.largest(x, weight, compiled.rounded(weight), k)
    assert found is None or agree(found, compiled.linear(x, Stored(weight)), k)


@pytest.mark.parametrize("n_large", [40, C - 1])
def test_the_bound_holds_where_rounding_hides_most(compiled, n_large):
    """Of two rows the larger one is rounded down and the other up, each weight by half a unit."""
    sign = torch.randint(0, 2, (C,), generator=torch.Generator().manual_seed(0)) * 2 - 1
    x = sign * (torch.arange(C) > 0) * (torch.arange(C) <= n_large) * 100.0
    weight = torch.zeros(V, C)
    weight[5] = 9.501 * sign
    weight[7] = 9.499 * sign
    weight[7, : 2 + n_large // 20] = 10.499 * sign[: 2 + n_large // 20]
    weight[:, 0] = 127  # where x is 0: all scales are 1
    rounded = compiled.rounded(weight)
    assert torch.equal(rounded.scale, torch.ones(V))
    logits = compiled.linear(x[None], Stored(weight))
    assert logits.argmax() == 7
    assert (rounded.weight.float() @ x).argmax() == 5
    found = compiled.largest(x[None], weight, rounded, 1)
    assert agree(found, logits, 1)
    assert int(found.isfinite().sum()) == 2


def test_few_are_computed_from_ordinary_weights(compiled):
    weight, x = torch.randn(V, C), torch.randn(3, C)
    found = compiled.largest(x, weight, compiled.rounded(weight), 20)
    assert agree(found, compiled.linear(x, Stored(weight)), 20)
    assert 60 <= int(found.isfinite().sum()) < 250


def test_where_all_are_alike_the_whole_product_is_better(compiled):
    weight = torch.ones(V, C) + 1e-4 * torch.randn(V, C)
    weight[:, ::2] *= -1
    assert compiled.largest(torch.ones(1, C), weight, compiled.rounded(weight), 1) is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["input", "weight"])
def test_what_is_no_number_is_left_to_the_whole_product(compiled, value, where):
    weight, x = torch.randn(V, C), torch.randn(2, C)
    (weight if where == "weight" else x)[1, 5] = value
    assert compiled.largest(x, weight, compiled.rounded(weight), 1) is None


@pytest.mark.parametrize("value", [0.0, 1e-30, 5e-23, 1e-22, 5e-22, 1e-20])
def test_inputs_whose_squares_are_lost_are_left_to_the_whole_product(compiled, value):
    weight, x = torch.randn(V, C), torch.zeros(1, C)
    x[0, 0] = value
    assert compiled.largest(x, weight, compiled.rounded(weight), 1) is None


@pytest.mark.parametrize(("n_rows", "k"), [(33, 1), (1, 0), (1, V + 1)])
def test_what_it_is_not_made_for_is_left_to_the_whole_product(compiled, n_rows, k):
    weight = torch.randn(V, C)
    assert compiled.largest(torch.randn(n_rows, C), weight, compiled.rounded(weight), k) is None


def test_rows_are_rounded_by_no_more_than_half_a_unit(compiled):
    weight = torch.randn(50, 77) * torch.rand(50, 1)
    rounded = compiled.rounded(weight)
    errors = weight / rounded.scale[:, None] - rounded.weight
    assert errors.abs().max() <= 0.5001
    assert rounded.length == pytest.approx(errors.norm(dim=1).max().item(), rel=1e-3)
    assert torch.equal(rounded.scale, weight.abs().amax(1) / 127)
