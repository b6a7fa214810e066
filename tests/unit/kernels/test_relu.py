import copy

import pytest
import torch
import torch.nn.functional as F

import needs
from groundup.config.model import ModernConfig
from groundup.kernels.activations import CompiledReLUSquared
from groundup.kernels.compiled import CompiledKernels, load_kernels
from groundup.model.build import build_model
from groundup.model.swap import use_kernels

pytestmark = needs.compiler


def by_kernels():
    kernels = load_kernels(lambda _: None)
    assert isinstance(kernels, CompiledKernels)
    return CompiledReLUSquared(kernels)


def by_pytorch(x):
    return F.relu(x).square()


@pytest.mark.parametrize("size", [1, 77, 40_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_and_gradients_are_pytorchs_bit_for_bit(size, dtype):
    x = (3 * torch.randn(size, generator=torch.Generator().manual_seed(0))).to(dtype)
    upstream = torch.randn(size, generator=torch.Generator().manual_seed(1)).to(dtype)
    told = []
    for function in (by_kernels(), by_pytorch):
        at = x.clone().requires_grad_()
        y = function(at)
        told.append((y, torch.autograd.grad(y, at, upstream)[0]))
    for ours, theirs in zip(*told, strict=True):
        assert torch.equal(ours, theirs)


def test_what_does_not_lie_in_one_piece_is_taken_and_what_is_no_number_told():
    function = by_kernels()
    x = torch.randn(6, 8, generator=torch.Generator().manual_seed(0)).T.requires_grad_()
    y = function(x)
    assert torch.equal(y, by_pytorch(x))
    upstream = torch.ones(1, 1).expand(8, 6)
    ours, theirs = (torch.autograd.grad(y, x, upstream)[0] for y in (y, by_pytorch(x)))
    assert torch.equal(ours, theirs)
    assert function(torch.tensor([torch.nan])).isnan().all()
    assert torch.equal(copy.deepcopy(function)(x), y)
    assert function(x.double()).dtype == torch.float64


def test_the_output_alone_is_kept():
    function, kept = by_kernels(), []
    x = torch.randn(100).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        y = function(x)
    assert [tensor.data_ptr() for tensor in kept] == [y.data_ptr()]


def test_a_model_gets_it():
    model = build_model(ModernConfig(n_layer=1, n_head=2, n_embd=64, block_size=8, vocab_size=9, activation="relu2"))
    use_kernels(model, load_kernels(lambda _: None))
    assert isinstance(model.blocks[0].mlp.act, CompiledReLUSquared)
