import subprocess
import sys

import pytest
import torch

from groundup.optim.eager import AdamW

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
