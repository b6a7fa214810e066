import copy

import pytest
import torch
import torch.nn.functional as F

import needs
from groundup.kernels.activations import SigmoidGELU
from groundup.kernels.compiled import CompiledKernels, load_kernels


def test_values_and_gradients_are_pytorchs():
    x = torch.cat((torch.linspace(-60, 60, 4001), torch.tensor([-1e4, 1e4]))).double().requires_grad_()
    ours, theirs = SigmoidGELU()(x), F.gelu(x, approximate="tanh")
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)
    upstream = torch.randn(len(x), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pairs = (torch.autograd.grad(y, x, upstream)[0] for y in (ours, theirs))
    torch.testing.assert_close(*pairs, rtol=1e-11, atol=1e-13)


@needs.compiler
@pytest.mark.parametrize("size", [1, 77, 40_000])
def test_the_kernels_give_pytorchs_values_and_gradients(size):
    kernels = load_kernels(lambda _: None)
    assert isinstance(kernels, CompiledKernels)
    x = torch.cat((torch.linspace(-12, 12, size), torch.tensor([-1e4, 0.0, 1e4]))).requires_grad_()
    exact = x.detach().double().requires_grad_()
    upstream = torch.randn(len(x), generator=torch.Generator().manual_seed(0))
    ours, theirs = SigmoidGELU(kernels)(x), F.gelu(exact, approximate="tanh")
    torch.testing.assert_close(ours.double(), theirs, rtol=2e-6, atol=1e-6)
    (grad,) = torch.autograd.grad(ours, x, upstream)
    (wanted,) = torch.autograd.grad(theirs, exact, upstream.double())
    torch.testing.assert_close(grad.double(), wanted, rtol=5e-6, atol=5e-6)


@needs.compiler
def test_the_kernels_take_what_does_not_lie_in_one_piece_and_tell_what_is_no_number():
    gelu = SigmoidGELU(load_kernels(lambda _: None))
    x = torch.randn(6, 8, generator=torch.Generator().manual_seed(0)).T.requires_grad_()
    y = gelu(x)
    torch.testing.assert_close(y, F.gelu(x, approximate="tanh"))
    (grad,) = torch.autograd.grad(y, x, torch.ones(1, 1).expand(8, 6))
    (wanted,) = torch.autograd.grad(F.gelu(x, approximate="tanh").sum(), x)
    torch.testing.assert_close(grad, wanted, rtol=1e-5, atol=1e-6)
    assert gelu(torch.tensor([float("nan")])).isnan().all()
    assert copy.deepcopy(gelu)(x).equal(y)


@needs.compiler
def test_bfloat16_is_rounded_once():
    x, upstream = torch.randn(2, 5000, generator=torch.Generator().manual_seed(0)).bfloat16()
    gelu = SigmoidGELU(load_kernels(lambda _: None))
    told = []
    for function, at in ((gelu, x), (lambda x: F.gelu(x, approximate="tanh"), x.double())):
        at = at.clone().requires_grad_()
        y = function(at)
        told.append((y, torch.autograd.grad(y, at, upstream.to(at.dtype))[0]))
    for ours, exact in zip(*told, strict=True):
        assert ours.dtype == torch.bfloat16
        torch.testing.assert_close(ours.double(), exact, rtol=2**-8, atol=1e-6)  # half a unit in the last place


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_types_are_left_to_pytorch(dtype):
    x = torch.randn(100, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert torch.equal(SigmoidGELU()(x), F.gelu(x, approximate="tanh"))


def test_compiled_code_is_left_to_pytorch():
    x = torch.randn(100, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.compile(SigmoidGELU(), backend="eager")(x), F.gelu(x, approximate="tanh"))
