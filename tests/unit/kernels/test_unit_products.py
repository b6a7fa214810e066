"""Products in bfloat16 by a matrix unit are those of the rounded numbers in double precision."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.kernels.compiled import load_kernels
from groundup.runtime.matmul import Products

UNIT = getattr(load_kernels(lambda _: None), "unit", None)
pytestmark = pytest.mark.skipif(UNIT is None, reason="needs a matrix unit (AMX)")
sizes = st.sampled_from([1, 2, 15, 16, 17, 31, 32, 33, 64, 70, 130])
types = st.sampled_from([torch.float32, torch.bfloat16])


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def rounded(x):
    return x.bfloat16().double()


def assert_exact(ours, expected, dtype):
    assert ours.dtype == dtype
    assert ours.shape == expected.shape
    rtol = 1e-5 if dtype == torch.float32 else 2**-8
    assert (ours - expected).abs().max() <= rtol * expected.abs().max()


@settings(max_examples=60)
@given(rows=sizes, inputs=sizes, outputs=sizes, dtype=types, of_x=types)
def test_all_layouts_and_edges(rows, inputs, outputs, dtype, of_x):
    x, weight, grad = draw(rows, inputs).to(of_x), draw(outputs, inputs, seed=1), draw(rows, outputs, seed=2).bfloat16()
    assert_exact(UNIT.product(x, weight.T, dtype), rounded(x) @ rounded(weight).T, dtype)
    assert_exact(UNIT.product(grad, weight, dtype), rounded(grad) @ rounded(weight), dtype)
    assert_exact(UNIT.of_weight(grad, x), rounded(grad).T @ rounded(x), torch.float32)


@pytest.mark.parametrize("rows", [1023, 1024, 1025, 2500])
def test_sums_over_many_rows(rows):
    grad, x = draw(rows, 40).bfloat16(), draw(rows, 33, seed=1).bfloat16()
    ours = UNIT.of_weight(grad, x)
    assert_exact(ours, rounded(grad).T @ rounded(x), torch.float32)


def test_what_is_no_number_stays_none():
    x = draw(20, 40)
    x[3, 5], x[4, 6] = torch.nan, torch.inf
    y = UNIT.product(x, torch.ones(40, 18), torch.float32)
    assert y[3].isnan().all()
    assert y[4].isinf().all()
    assert y[[0, 1, 2, *range(5, 20)]].isfinite().all()


@pytest.mark.parametrize("bias", [None, draw(24, seed=3)])
def test_a_layers_products_are_pytorchs_up_to_rounding(bias):
    x, weight, grad = draw(50, 64).bfloat16(), draw(24, 64, seed=1), draw(50, 24, seed=2).bfloat16()
    theirs = Products()
    narrow = theirs.weights(weight, torch.bfloat16)
    assert UNIT.weights(weight, torch.bfloat16) is weight
    pairs = (
        (UNIT.outputs(x, weight, bias), theirs.outputs(x, narrow, bias), torch.bfloat16),
        (UNIT.of_inputs(grad, weight), theirs.of_inputs(grad, narrow), torch.float32),
        (UNIT.of_inputs(grad, weight, torch.bfloat16), theirs.of_inputs(grad, narrow, torch.bfloat16), torch.bfloat16),
        (UNIT.of_weight(grad, x), theirs.of_weight(grad, x), torch.float32),
    )
    for a, b, dtype in pairs:
        assert a.dtype == dtype
        torch.testing.assert_close(a.float(), b.float(), rtol=2e-2, atol=2e-2 * b.abs().max().item())
