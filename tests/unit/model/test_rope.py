import copy

import pytest
import torch

import needs
from groundup.kernels.compiled import CompiledKernels, load_kernels
from groundup.model.rope import Rotate, rope_angles, rotate


@pytest.fixture
def compiled():
    kernels = load_kernels(lambda _: None)
    assert isinstance(kernels, CompiledKernels)
    return Rotate(kernels)


def angles(positions, head_dim):
    return [part.unsqueeze(-2) for part in rope_angles(positions, head_dim, 10_000.0)]


@needs.compiler
@pytest.mark.parametrize(("B", "T", "H", "D"), [(1, 1, 1, 2), (2, 7, 3, 10), (4, 64, 2, 64), (3, 1, 2, 34)])
@pytest.mark.parametrize("rows", ["shared", "own"])
def test_the_kernel_turns_and_turns_back_as_the_formula(compiled, B, T, H, D, rows):
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(B, T, 3 * H * D, generator=generator, requires_grad=True)
    positions = torch.arange(T) if rows == "shared" else torch.randint(50, (B, T), generator=generator)
    upstream = torch.randn(B, H, T, D, generator=generator).transpose(1, 2)

    def with_gradient(turn):
        parts = [part.view(B, T, H, D) for part in qkv.split(H * D, dim=2)]  # not in one piece
        turned = [turn(part, *angles(positions, D)) for part in parts]
        return *turned, *torch.autograd.grad(turned, qkv, [upstream] * 3)

    for ours, wanted in zip(with_gradient(compiled), with_gradient(rotate), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-6, atol=1e-6)


@needs.compiler
@pytest.mark.parametrize(("B", "T", "H", "D"), [(1, 1, 1, 2), (2, 7, 3, 10), (4, 64, 2, 64), (3, 1, 2, 34)])
@pytest.mark.parametrize("rows", ["shared", "own"])
def test_the_kernel_normalizes_before_as_the_formula(compiled, B, T, H, D, rows):
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(B, T, 3, H, D, generator=generator, dtype=torch.float64)
    qkv[0, 0] *= 1e-3  # where eps counts
    positions = torch.arange(T) if rows == "shared" else torch.randint(50, (B, T), generator=generator)
    upstream = torch.randn(B, H, T, D, generator=generator, dtype=torch.float64).transpose(1, 2)

    def with_gradient(turn, dtype):
        own = qkv.to(dtype).requires_grad_()
        table = [part.unsqueeze(-2) for part in rope_angles(positions, D, 10_000.0, dtype)]
        turned = [turn(part, *table, norm_eps=1e-5) for part in own.unbind(2)]  # tokens lie apart
        return *turned, *torch.autograd.grad(turned, own, [upstream.to(dtype)] * 3)

    for ours, wanted in zip(
        with_gradient(compiled, torch.float32), with_gradient(Rotate(), torch.float64), strict=True
    ):
        assert (ours - wanted).norm() <= 1e-6 * wanted.norm()


@needs.compiler
@pytest.mark.parametrize("eps", [None, 1e-5])
@pytest.mark.parametrize(("B", "T", "H", "D"), [(1, 1, 1, 2), (2, 7, 3, 10), (4, 64, 2, 64), (3, 1, 2, 34)])
def test_the_kernel_rounds_only_its_result_to_bfloat16(compiled, B, T, H, D, eps):
    generator = torch.Generator().manual_seed(0)
    qkv, upstream = (torch.randn(B, T, 3, H, D, generator=generator).bfloat16() for _ in range(2))

    def with_gradient(turn, dtype):
        own = qkv.to(dtype).requires_grad_()
        wide = torch.promote_types(dtype, torch.float32)
        table = [part.unsqueeze(-2) for part in rope_angles(torch.arange(T), D, 10_000.0, wide)]
        turned = [turn(part, *table, norm_eps=eps) for part in own.unbind(2)]  # tokens lie apart
        return *turned, *torch.autograd.grad(turned, own, list(upstream.to(dtype).unbind(2)))

    for ours, wanted in zip(
        with_gradient(compiled, torch.bfloat16), with_gradient(Rotate(), torch.float64), strict=True
    ):
        assert ours.dtype == torch.bfloat16
        assert (ours - wanted).norm() <= 2**-8 * upstream.double().norm()


@needs.compiler
def test_strides_that_no_slice_has_are_copied(compiled):
    x = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    for strange in (x.transpose(1, 2), x[:, :, :, :4], x[::2], x.expand(2, 3, 4, 6)[:1].expand(2, 3, 4, 6)):
        table = angles(torch.arange(strange.shape[1]), strange.shape[3])
        torch.testing.assert_close(compiled(strange, *table), rotate(strange, *table))


@needs.compiler
def test_other_types_and_compiled_code_are_left_to_pytorch(compiled):
    x = torch.randn(1, 3, 2, 8, generator=torch.Generator().manual_seed(0))
    table = angles(torch.arange(3), 8)
    assert torch.equal(compiled(x.double(), *table), rotate(x.double(), *table))
    assert torch.equal(torch.compile(compiled, backend="eager")(x, *table), rotate(x, *table))
    assert torch.equal(copy.deepcopy(compiled)(x, *table), compiled(x, *table))


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.02)]
)
def test_compiled_code_normalizes_and_turns_with_the_gradient_of_the_formula(dtype, tolerance):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 5, 3, 8, generator=generator, dtype=torch.float64)
    x[0, 0, 0] *= 1e-3  # where eps counts
    upstream = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    cos, sin = (part.unsqueeze(-2) for part in rope_angles(torch.arange(5), 8, 10_000.0, torch.float64))

    def with_gradient(turn, dtype):
        own = x.to(dtype).requires_grad_()
        y = turn(own, cos.to(dtype), sin.to(dtype))
        return y.double(), torch.autograd.grad(y, own, upstream.to(dtype))[0].double()

    def formula(x, cos, sin):
        return rotate(x * (x.square().mean(-1, keepdim=True) + 1e-5).rsqrt(), cos, sin)

    turn = torch.compile(lambda *parts: Rotate()(*parts, norm_eps=1e-5), backend="aot_eager", fullgraph=True)
    for ours, wanted in zip(with_gradient(turn, dtype), with_gradient(formula, torch.float64), strict=True):
        assert (ours - wanted).norm() <= tolerance * wanted.norm()
