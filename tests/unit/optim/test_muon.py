import pytest
import torch
from torch import nn

from groundup.optim.muon import Muon, orthogonalize


def test_singular_values_come_close_to_one_and_vectors_stay():
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(2, 24, 48, generator=generator, dtype=torch.float64)
    result = orthogonalize(matrix)
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    turned = u.mT @ result @ vh.mT
    values = turned.diagonal(dim1=1, dim2=2)
    assert values.min() > 0.4
    assert values.max() < 1.3
    assert (turned - torch.diag_embed(values)).abs().max() < 1e-9
    assert s.max() / s.min() > 3  # the input was far from orthogonal


def test_zero_matrix_stays_zero():
    assert orthogonalize(torch.zeros(1, 3, 4)).abs().max() == 0


@pytest.mark.parametrize("shape", [(8, 8), (32, 8), (8, 32)])
def test_equals_torch_muon(shape):
    """PyTorch's runs its iterations in bfloat16, so the paths agree to bfloat16's three digits."""
    torch.manual_seed(1)
    start = torch.randn(shape)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    a = Muon([ours], lr=0.05, weight_decay=0.1, momentum=0.9)
    b = torch.optim.Muon([theirs], lr=0.05, weight_decay=0.1, momentum=0.9)
    for _ in range(5):
        gradient = torch.randn(shape)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        a.step()
        b.step()
    moved = (theirs - start).norm()
    assert (ours - theirs).norm() / moved < 0.02


def test_qkv_is_three_maps():
    torch.manual_seed(2)
    fused = nn.Parameter(torch.zeros(24, 8))
    parts = [nn.Parameter(torch.zeros(8, 8)) for _ in range(3)]
    gradient = torch.randn(24, 8)
    fused.grad = gradient
    for part, piece in zip(parts, gradient.split(8), strict=True):
        part.grad = piece.clone()
    Muon([fused], lr=1.0, maps={fused: 3}).step()
    Muon(parts, lr=1.0).step()
    torch.testing.assert_close(fused.data, torch.cat([p.data for p in parts]))


def test_an_mlp_of_width_3c_is_not_cut():
    torch.manual_seed(5)
    fused, mlp, alone = (nn.Parameter(torch.zeros(24, 8)) for _ in range(3))
    gradient = torch.randn(24, 8)
    for p in (fused, mlp, alone):
        p.grad = gradient.clone()
    Muon([fused, mlp], lr=1.0, maps={fused: 3, mlp: 1}).step()
    Muon([alone], lr=1.0).step()
    torch.testing.assert_close(mlp.data, alone.data)
    expected = -(3**0.5) * orthogonalize(gradient.lerp(gradient * 0.05, 0.95).mT[None])[0].mT
    torch.testing.assert_close(mlp.data, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(mlp.data, fused.data, atol=0.1)


def test_stacking_changes_nothing():
    torch.manual_seed(3)
    together = [nn.Parameter(torch.randn(4, 16)) for _ in range(3)] + [nn.Parameter(torch.randn(16, 4))]
    alone = [nn.Parameter(p.detach().clone()) for p in together]
    for p, q in zip(together, alone, strict=True):
        p.grad = torch.randn(p.shape)
        q.grad = p.grad.clone()
    Muon(together, lr=0.1).step()
    for q in alone:
        Muon([q], lr=0.1).step()
    for p, q in zip(together, alone, strict=True):
        torch.testing.assert_close(p.data, q.data)


def test_parameters_without_gradient_stay():
    p, q = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    p.grad = torch.eye(2)
    optimizer = Muon([p, q], weight_decay=0.5)
    optimizer.step()
    assert torch.equal(q.data, torch.ones(2, 2))
    assert not torch.equal(p.data, torch.ones(2, 2))


def test_only_matrices():
    with pytest.raises(ValueError, match=r"muon takes matrices, got a parameter of shape \(3,\)"):
        Muon([nn.Parameter(torch.zeros(3))])
