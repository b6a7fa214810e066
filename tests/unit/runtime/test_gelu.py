import pytest
import torch
import torch.nn.functional as F

from groundup.runtime.gelu import SigmoidGELU


def test_values_and_gradients_are_pytorchs():
    x = torch.cat((torch.linspace(-60, 60, 4001), torch.tensor([-1e4, 1e4]))).double().requires_grad_()
    ours, theirs = SigmoidGELU()(x), F.gelu(x, approximate="tanh")
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)
    upstream = torch.randn(len(x), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pairs = (torch.autograd.grad(y, x, upstream)[0] for y in (ours, theirs))
    torch.testing.assert_close(*pairs, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_types_are_left_to_pytorch(dtype):
    x = torch.randn(100, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert torch.equal(SigmoidGELU()(x), F.gelu(x, approximate="tanh"))


def test_compiled_code_is_left_to_pytorch():
    x = torch.randn(100, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.compile(SigmoidGELU(), backend="eager")(x), F.gelu(x, approximate="tanh"))
