"""The host hands out the work of a whole step without waiting for the device."""

import pytest
import torch
import torch.nn.functional as F

from groundup.config.model import GPTConfig, ModernConfig
from groundup.contestants import ours
from groundup.runtime.precision import CUDNN_FIRST, pick_precision

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
SHAPE = {"n_layer": 2, "n_head": 2, "n_embd": 128, "block_size": 64, "vocab_size": 50257}


@pytest.fixture
def device(monkeypatch):
    monkeypatch.setattr(ours, "TOKENS", 10_000)
    yield torch.device("cuda")
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("config", [GPTConfig(**SHAPE), ModernConfig(**SHAPE)], ids=["gpt", "modern"])
@pytest.mark.parametrize("compiled", ["off", "whole", "parts"])
def test_gathering_gradients_waits_for_nothing(device, config, compiled):
    precision = pick_precision("auto", device, n_embd=config.n_embd)
    how = ours.How(compiled=compiled, narrow_stream=True, grad_accum_steps=3)
    trainer = ours.our_trainer(config, 4, device=device, precision=precision, how=how)
    trainer.train_step()
    before = trainer.model.wte.weight.detach().clone()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    loss = trainer.accumulate()
    norm = trainer._clip_gradients()
    for optimizer in trainer.optimizers:
        optimizer.step()
    torch.cuda.set_sync_debug_mode("default")
    assert loss.isfinite()
    assert norm > 0
    assert not torch.equal(before, trainer.model.wte.weight)


def test_a_compiled_head_gives_the_gradients_of_the_plain_one(device):
    config = GPTConfig(**SHAPE)
    precision = pick_precision("auto", device, n_embd=config.n_embd)
    grads = []
    for compiled in ("off", "whole", "parts"):
        trainer = ours.our_trainer(config, 4, device=device, precision=precision, how=ours.How(compiled=compiled))
        trainer.accumulate()
        grads.append(torch.cat([p.grad.flatten() for p in trainer.model.parameters()]))
    for grad in grads[1:]:
        assert (grad - grads[0]).norm() < 0.02 * grads[0].norm()


@pytest.mark.parametrize("compiled", [False, True])
def test_attention_is_cudnns_on_hopper(device, compiled):
    if torch.cuda.get_device_capability() != CUDNN_FIRST:
        pytest.skip("needs a Hopper GPU")
    q = torch.randn(2, 4, 128, 64, device=device)
    precision = pick_precision("bf16", device, n_embd=256)
    attend = torch.nn.functional.scaled_dot_product_attention
    if compiled:
        attend = torch.compile(lambda *qkv, **options: F.scaled_dot_product_attention(*qkv, **options))
    with precision.autocast():
        attend(q, q, q, is_causal=True)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            attend(q, q, q, is_causal=True)
            torch.cuda.synchronize()
    assert any("cudnn" in event.key for event in profile.key_averages()), [e.key for e in profile.key_averages()]
