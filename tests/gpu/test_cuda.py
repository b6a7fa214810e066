"""What only a CUDA machine can show."""

import math

import numpy as np
import pytest
import torch

from groundup.config.model import GPTConfig
from groundup.contestants.ours import split_of
from groundup.data.loader import TrainBatches
from groundup.model.gpt import GPT
from groundup.model.init import init_weights
from groundup.model.loss import LossModule, head_loss_sum, lm_loss_sum
from groundup.runtime.precision import pick_precision

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def test_batches_are_pinned(tmp_path):
    split = split_of(np.arange(10_000) % 50, 50, tmp_path)
    plain = TrainBatches(split, block_size=16, micro_batch_size=4, seed=0)
    pinned = TrainBatches(split, block_size=16, micro_batch_size=4, seed=0, pin_memory=True)
    for a, b in zip(plain.next_batch(), pinned.next_batch(), strict=True):
        assert b.is_pinned()
        assert torch.equal(a, b)


def test_logits_equal_the_cpus():
    config = GPTConfig(n_layer=3, n_head=4, n_embd=64, block_size=64, vocab_size=101)
    model = init_weights(GPT(config), seed=0).double()
    idx = torch.randint(101, (2, 64))
    expected = model(idx)
    torch.testing.assert_close(model.cuda()(idx.cuda()).cpu(), expected, rtol=1e-10, atol=1e-10)


def test_padded_chunked_head():
    hidden = torch.randn(2, 600, 64, device="cuda", dtype=torch.float64, requires_grad=True)
    weight = torch.randn(50257, 64, device="cuda", dtype=torch.float64, requires_grad=True)
    targets = torch.randint(50257, (2, 600), device="cuda")
    lm_loss_sum(hidden @ weight.T, targets).backward()
    expected = (hidden.grad.clone(), weight.grad.clone())
    hidden.grad = weight.grad = None
    head_loss_sum(hidden, weight, targets, chunk_rows=256).backward()
    torch.testing.assert_close((hidden.grad, weight.grad), expected, rtol=1e-10, atol=1e-10)


def thirty_losses(device, precision, *, compiled):
    """Of a small model that learns the same 512 tokens again and again."""
    config = GPTConfig(n_layer=2, n_head=2, n_embd=128, block_size=64, vocab_size=50257)
    model = init_weights(GPT(config), seed=0).to(device)
    module = torch.compile(LossModule(model)) if compiled else LossModule(model)
    chosen = pick_precision(precision, device, n_embd=config.n_embd)
    scaler = torch.amp.GradScaler(device.type, enabled=chosen.needs_scaler)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    idx = torch.randint(50257, (8, 64), generator=torch.Generator().manual_seed(0)).to(device)
    losses = []
    for _ in range(30):
        with chosen.autocast():
            loss = module(idx, idx.roll(-1, 1)) / idx.numel()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
    return losses


@pytest.fixture(scope="module")
def losses_of_the_cpu():
    torch.set_num_threads(1)  # as in every test, but this comes before: all cores of all processes at once take minutes
    return thirty_losses(torch.device("cpu"), "fp32", compiled=False)


@pytest.mark.parametrize(
    ("precision", "tolerance"), [("fp32", 0.002), ("tf32", 0.005), ("bf16", 0.03), ("fp16", math.inf)]
)
@pytest.mark.parametrize("compiled", [False, True])
def test_learns_as_the_cpu_does_in_every_precision(precision, tolerance, compiled, losses_of_the_cpu):
    losses = thirty_losses(torch.device("cuda"), precision, compiled=compiled)
    assert abs(losses[0] - math.log(50257)) < 0.2
    assert losses[-1] < losses[0] - 5
    # fp16's scaler skips the first steps, until the gradients fit: fewer updates, another curve.
    assert losses == pytest.approx(losses_of_the_cpu, abs=tolerance)
