import copy
import subprocess
import sys

import pytest
import torch

from groundup.kernels.compiled import load_kernels
from groundup.optim.eager import AdamW
from groundup.runtime.stored import PlainKernels

CODE = """
import dataclasses, sys, torch
from groundup.config.model import ModernConfig
from groundup.config.train import OptimConfig
from groundup.contestants.ours import How, our_trainer
from groundup.runtime.precision import Precision
device = torch.device("cpu")
config = ModernConfig(n_layer=1, n_head=1, n_embd=16, block_size=16, vocab_size=9, dropout=0.1, ngram=2, ngram_rows=50)
how = How(optim=OptimConfig(name="muon"))
trainer = our_trainer(config, 1, device=device, precision=Precision("fp32", device, ""), how=how)
assert len(trainer.optimizers) == 3
trainer.train_step()
for optimizer in trainer.optimizers:
    optimizer.load_state_dict(optimizer.state_dict())
import groundup.training.run
print([name for name in ("sympy", "torch._dynamo", "torch.distributed.tensor") if name in sys.modules])
"""


def test_training_loads_neither_pytorchs_compiler_nor_its_shares():
    """70 and 50 MB, and a second each: a fresh process, because others have them."""
    result = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert result.stdout == "[]\n", result.stdout + result.stderr


@pytest.mark.parametrize("fused", [True, False])
def test_steps_and_state_are_those_of_pytorchs_adamw(fused):
    torch.manual_seed(0)
    start, gradients = torch.randn(7, 5), torch.randn(4, 7, 5)
    told = []
    for kind in (AdamW, torch.optim.AdamW):
        p = torch.nn.Parameter(start.clone())
        optimizer = kind([{"params": [p], "weight_decay": 0.1}], lr=0.01, betas=(0.9, 0.95), fused=fused)
        for gradient in gradients:
            p.grad = gradient.clone()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            assert p.grad is None
        again = torch.nn.Parameter(p.detach().clone())
        later = kind([{"params": [again], "weight_decay": 0.1}], lr=0.01, betas=(0.9, 0.95), fused=fused)
        later.load_state_dict(optimizer.state_dict())
        again.grad = gradients[0].clone()
        later.step()
        told.append((p.detach(), again.detach(), *later.state_dict()["state"][0].values()))
    assert all(map(torch.equal, *told))


def adamw_in_double(p, gradients, *, lr, betas, decay, eps=1e-8):
    """The paper's algorithm 2, in float64."""
    p, average, square = p.double(), torch.zeros_like(p).double(), torch.zeros_like(p).double()
    for step, gradient in enumerate(gradients, start=1):
        average = betas[0] * average + (1 - betas[0]) * gradient
        square = betas[1] * square + (1 - betas[1]) * gradient.double() ** 2
        ahead = (average / (1 - betas[0] ** step)) / ((square / (1 - betas[1] ** step)).sqrt() + eps)
        p = p - lr * ahead - lr * decay * p
    return p, average, square


@pytest.mark.parametrize("kernels", [PlainKernels(), load_kernels(print)])
def test_steps_are_those_of_the_paper(kernels):
    """Parameters longer than a part, of one number, and one that has no gradient at first; and how far both are off."""
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=generator) for shape in ((300, 200), (1,), (3, 5))]
    gradients = [[torch.randn(p.shape, generator=generator) for _ in range(20)] for p in start]
    parameters = [torch.nn.Parameter(p.clone()) for p in start]
    groups = [{"params": parameters[:1], "weight_decay": 0.1}, {"params": parameters[1:], "weight_decay": 0.0}]
    optimizer = AdamW(groups, kernels=kernels, lr=0.01, betas=(0.9, 0.95), fused=True)
    for step in range(20):
        for p, of_p in zip(parameters, gradients, strict=True):
            p.grad = of_p[step].clone()
        if step < 3:
            parameters[2].grad = None
        optimizer.step()
        assert all(p.grad is None or p.grad.equal(of_p[step]) for p, of_p in zip(parameters, gradients, strict=True))
    for p, of_p, first, decay, skipped in zip(parameters, gradients, start, (0.1, 0, 0), (0, 0, 3), strict=True):
        expected = adamw_in_double(first, of_p[skipped:], lr=0.01, betas=(0.9, 0.95), decay=decay)
        state = optimizer.state[p]
        for ours, theirs in zip((p, state["exp_avg"], state["exp_avg_sq"]), expected, strict=True):
            torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-6)
        assert state["step"].item() == 20 - skipped
    later = torch.optim.AdamW(groups)
    later.load_state_dict(optimizer.state_dict())  # PyTorch goes on from it
    later.step()


@pytest.mark.parametrize("change", ["state is loaded", "state is dropped", "the parameter lies elsewhere"])
def test_kernels_move_what_is_there_now(change):
    """They look up once where parameters and state lie."""
    generator = torch.Generator().manual_seed(0)
    start, *gradients = torch.randn(7, 5, 3, generator=generator)
    told = []
    for kernels in (load_kernels(print), PlainKernels()):
        first, p = (torch.nn.Parameter(start.clone()) for _ in range(2))
        optimizer = AdamW([{"params": [first]}, {"params": [p], "lr": 0.02}], kernels=kernels, lr=0.01)
        for step, gradient in enumerate(gradients):
            if step == 2:
                early = copy.deepcopy(optimizer.state_dict())
            if step == 3 and change == "state is loaded":
                optimizer.load_state_dict(early)
            elif step == 3 and change == "state is dropped":
                optimizer.state.clear()
            elif step == 3:
                p.data = start.clone()
            first.grad, p.grad = gradient.clone(), gradient.clone()
            optimizer.step()
        told.append([t.detach() for part in (first, p) for t in (part, *optimizer.state[part].values())])
    for ours, theirs in zip(*told, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kernels", [PlainKernels(), load_kernels(print)])
def test_the_length_of_gradients_is_that_of_all_together(kernels):
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(shape, generator=generator) for shape in ((300, 200), (1,), (64,))]
    parts.append(torch.randn(40, 30, generator=generator).T)  # kernels leave it to PyTorch
    for some in (parts[:3], parts, [part.double() for part in parts]):
        expected = torch.cat([part.flatten().double() for part in some]).norm()
        assert kernels.length(some).item() == pytest.approx(expected.item(), rel=1e-6)
    assert not kernels.length([parts[0], torch.tensor([torch.nan])]).isfinite()
    assert not kernels.length([parts[0], torch.tensor([-torch.inf])]).isfinite()
    assert kernels.length([torch.zeros(3)]) == kernels.length([]) == 0


def test_a_step_can_be_hooked_and_leaves_no_graph():
    p, seen = torch.nn.Parameter(torch.ones(3)), []
    optimizer = AdamW([p], lr=0.1)
    optimizer.register_step_post_hook(lambda *_: seen.append(torch.is_grad_enabled()))
    p.square().sum().backward()
    optimizer.step()
    assert len(seen) == 1
    assert p.is_leaf
    assert p.requires_grad
    assert torch.is_grad_enabled()
