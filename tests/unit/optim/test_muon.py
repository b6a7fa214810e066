import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import needs
from groundup.kernels.compiled import load_kernels
from groundup.optim.muon import Muon, orthogonalize

KERNELS = load_kernels(lambda _: None)


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


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="PyTorch has one from 2.9 on")
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


def test_matrices_of_one_shape_whose_maps_are_not():
    torch.manual_seed(4)
    shapes = (24, 12), (12, 24)  # of two maps each, one below the other
    both, alone = ([nn.Parameter(torch.zeros(shape)) for shape in shapes] for _ in range(2))
    for p, q in zip(both, alone, strict=True):
        p.grad = torch.randn_like(p)
        q.grad = p.grad.clone()
        Muon([q], lr=1.0, maps={q: 2}).step()
    Muon(both, lr=1.0, maps=dict.fromkeys(both, 2)).step()
    for p, q in zip(both, alone, strict=True):
        torch.testing.assert_close(p.data, q.data)


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


def written_out(p, g, average, *, lr, decay, momentum, cautious, peak):
    """One step in plain steps: momentum, look ahead, five iterations of the quintic, decay, update."""
    average = momentum * average + (1 - momentum) * g
    x = (1 - momentum) * g + momentum * average
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x - 4.7750 * gram @ x + 2.0315 * gram @ gram @ x
    if cautious:
        p = p - lr * decay * (lr / peak) * torch.where(p * x > 0, p, torch.zeros_like(p))
    else:
        p = p * (1 - lr * decay)
    return p - lr * max(1, p.shape[0] / p.shape[1]) ** 0.5 * x, average


@pytest.mark.parametrize("cautious", [False, True])
@pytest.mark.parametrize("shape", [(6, 6), (12, 5), (5, 12)])
def test_equals_a_step_written_out(shape, cautious):
    generator = torch.Generator().manual_seed(3)
    p = nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64))
    expected, average = p.detach().clone(), torch.zeros(shape, dtype=torch.float64)
    muon = Muon([p], lr=0.05, weight_decay=0.4, cautious=cautious)
    muon.param_groups[0]["initial_lr"] = 0.1
    for momentum in (0.85, 0.9, 0.95):
        p.grad = torch.randn(shape, generator=generator, dtype=torch.float64)
        muon.param_groups[0]["momentum"] = momentum
        muon.step()
        expected, average = written_out(
            expected, p.grad, average, lr=0.05, decay=0.4, momentum=momentum, cautious=cautious, peak=0.1
        )
        torch.testing.assert_close(p.detach(), expected, rtol=1e-10, atol=1e-12)


SIDES = st.integers(1, 9).map(lambda n: 16 * n)


@needs.compiler
@settings(max_examples=30, deadline=None)
@given(rows=SIDES, columns=SIDES, maps=st.integers(1, 3), cautious=st.booleans(), rank=st.integers(1, 200))
def test_a_step_of_the_kernels_is_the_step_in_double_precision(rows, columns, maps, cautious, rank):
    """Up to three digits: rounding where a matrix is nearly singular grows, up to 500 times."""
    generator = torch.Generator().manual_seed(3)
    start = torch.randn(maps * rows, columns, generator=generator)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.double())
    how = {"lr": 0.05, "weight_decay": 0.4, "cautious": cautious}
    optimizers = Muon([ours], **how, maps={ours: maps}, kernels=KERNELS), Muon([theirs], **how, maps={theirs: maps})
    gradient = torch.randn(maps, rows, rank, generator=generator) @ torch.randn(
        maps, rank, columns, generator=generator
    )
    for _ in range(2):
        ours.grad = gradient.flatten(0, 1)
        theirs.grad = ours.grad.double()
        for optimizer in optimizers:
            optimizer.step()
    averages = (optimizer.state[p]["momentum_buffer"] for optimizer, p in zip(optimizers, (ours, theirs), strict=True))
    torch.testing.assert_close(*averages, rtol=1e-5, atol=1e-5, check_dtype=False)
    far = (ours - theirs).detach()
    if cautious:  # where a direction has no sign beyond rounding, a number may shrink in one and stay in the other
        unmoved = nn.Parameter(start.double())
        unmoved.grad = theirs.grad
        Muon([unmoved], lr=1.0, maps={unmoved: maps}).step()
        direction = start - unmoved.detach()
        sure = direction.abs() > 0.01 * direction.std()
        assert (far[~sure].abs() <= 0.05 * start[~sure].abs() + 1e-3).all()
        far = far[sure]
    assert far.norm() < 1e-3 * (theirs - start).norm()


def direction(matrix, *, maps=1):
    """What a step of the kernels goes against, from zero and without momentum, where no side is weighed."""
    p = nn.Parameter(torch.zeros_like(matrix))
    p.grad = matrix.clone()
    Muon([p], lr=1.0, momentum=0.0, maps={p: maps}, kernels=KERNELS).step()
    return -p.detach() / max(1, len(p) / maps / p.shape[1]) ** 0.5


@needs.compiler
@pytest.mark.parametrize("rank", [1, 5, 16])
def test_a_long_matrix_of_any_rank_is_what_double_precision_says(rank):
    """Its iterations work on x.mT @ x, whose small values are more rounding than number."""
    generator = torch.Generator().manual_seed(3)
    matrix = torch.randn(16, rank, generator=generator) @ torch.randn(rank, 64, generator=generator)
    (expected,) = orthogonalize(matrix.double()[None]).float()
    for ours in (direction(matrix), direction(matrix.T.contiguous()).T):
        assert (ours - expected).norm() / expected.norm() < 1e-3


@needs.compiler
@pytest.mark.parametrize("shape", [(3, 48, 48), (2, 160, 32)])
def test_the_kernels_give_what_pytorch_gives(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    ours = direction(matrices.flatten(0, 1), maps=len(matrices)).view(shape)
    torch.testing.assert_close(ours, orthogonalize(matrices.double()).float(), rtol=1e-3, atol=1e-4)


@needs.compiler
@pytest.mark.parametrize("shape", [(16, 16), (48, 48), (20, 20), (32, 50), (16, 4112), (1040, 1040)])
def test_the_kernels_take_what_fills_vectors_and_is_not_too_large(shape, monkeypatch):
    p = nn.Parameter(torch.ones(shape))
    p.grad = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    expected = nn.Parameter(p.detach().clone())
    expected.grad = p.grad.clone()
    optimizer, taken = Muon([p], kernels=KERNELS), []
    take = optimizer._steps._step
    monkeypatch.setattr(optimizer._steps, "_step", lambda *args: taken.append(1) or take(*args))
    optimizer.step()
    Muon([expected]).step()
    assert bool(taken) == (shape in ((16, 16), (48, 48)))
    torch.testing.assert_close(p, expected, rtol=1e-4, atol=1e-4)


@needs.compiler
def test_a_step_of_the_kernels_is_the_same_with_any_number_of_threads():
    told, threads = [], torch.get_num_threads()
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            generator = torch.Generator().manual_seed(0)
            parts = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((96, 32), (32, 96), (48, 48))]
            for p in parts:
                p.grad = torch.randn(p.shape, generator=generator)
            Muon(parts, kernels=KERNELS).step()
            told.append(parts)
    finally:
        torch.set_num_threads(threads)
    assert all(a.equal(b) for parts in told[1:] for a, b in zip(told[0], parts, strict=True))


def test_cautious_decay_shrinks_only_what_the_update_shrinks():
    p = nn.Parameter(torch.tensor([[1.0, -1.0], [2.0, 3.0]]))
    p.grad = torch.tensor([[1.0, 0.0], [0.0, -1.0]])  # the first entry shrinks, the last grows
    start = p.detach().clone()
    free = nn.Parameter(start.clone())
    free.grad = p.grad.clone()
    Muon([p], lr=0.1, weight_decay=0.5, cautious=True).step()
    Muon([free], lr=0.1, weight_decay=0.0).step()
    torch.testing.assert_close(free.detach() - p.detach(), torch.tensor([[0.05, 0.0], [0.0, 0.0]]))
