import copy

import pytest
import torch

from groundup.config.model import GPTConfig, ModernConfig
from groundup.config.train import OptimConfig
from groundup.model.build import build_model
from groundup.model.gpt import GPT
from groundup.model.init import init_weights
from groundup.model.loss import LossModule
from groundup.optim.build import Schedule, build_optimizers, set_lr
from groundup.optim.eager import AdamW
from groundup.optim.lazy import LazyRMSProp
from groundup.optim.muon import Muon

CPU = torch.device("cpu")
CONFIG = GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=8, vocab_size=11)
OPTIONS = OptimConfig(lr=3e-3, min_lr_ratio=0.0, weight_decay=0.3, beta1=0.8, beta2=0.97)


@pytest.fixture
def model():
    return init_weights(GPT(CONFIG), seed=0)


def step(model, optimizers, seed):
    generator = torch.Generator().manual_seed(seed)
    idx = torch.randint(11, (2, 9), generator=generator)
    LossModule(model)(idx[:, :-1], idx[:, 1:]).backward()
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()


def test_adamw_is_torchs_with_decay_written_out(model):
    """The oracle is the plain algorithm, one parameter at a time, unfused, without groups of ours.

    In double precision: the gradient of a key's bias is zero but for rounding, and Adam would divide noise by noise.
    """
    model.double()
    other = copy.deepcopy(model)
    ours = build_optimizers(model, OPTIONS, CPU)
    theirs = [
        torch.optim.AdamW([p], lr=3e-3, betas=(0.8, 0.97), eps=1e-8, weight_decay=0.3 if p.dim() > 1 else 0.0,
                          fused=False, foreach=False)
        for p in other.parameters()
    ]  # fmt: skip
    start = [p.detach().clone() for p in model.parameters()]
    for seed in range(5):
        step(model, ours, seed)
        step(other, theirs, seed)
    for p, q, before in zip(model.parameters(), other.parameters(), start, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-12)
        assert not torch.equal(p, before)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_every_parameter_is_in_exactly_one_group(model, name):
    optimizers = build_optimizers(model, OptimConfig(name=name), CPU)
    given = [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
    assert len(given) == len(set(given)) == len(list(model.parameters()))
    assert set(given) == set(model.parameters())


def test_muon_takes_its_own_rate_and_shares_the_decay(model):
    adamw, muon = build_optimizers(model, OptimConfig(name="muon", lr=1e-3, muon_lr_ratio=50.0, weight_decay=0.2), CPU)
    assert isinstance(adamw, torch.optim.AdamW)
    assert isinstance(muon, Muon)
    assert {group["lr"] for group in adamw.param_groups} == {1e-3}
    assert {group["lr"] for group in muon.param_groups} == {0.05}
    assert {group["weight_decay"] for group in muon.param_groups} == {0.2}
    inside = [p for group in muon.param_groups for p in group["params"]]
    assert len(inside) == 4 * CONFIG.n_layer


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_tables_of_ngrams_learn_lazily(name):
    model = init_weights(build_model(ModernConfig(n_layer=1, n_head=2, n_embd=16, vocab_size=11, ngram=3)), seed=0)
    lazy, *others = build_optimizers(model, OptimConfig(name=name, lr=3e-3, beta2=0.9), CPU)
    assert isinstance(lazy, LazyRMSProp)
    (group,) = lazy.param_groups
    assert [p is model.ngrams.weight for p in group["params"]] == [True]
    assert (group["lr"], group["initial_lr"], group["beta2"]) == (3e-3, 3e-3, 0.9)
    assert [type(each) for each in others] == [AdamW, Muon][: 1 if name == "adamw" else 2]


def test_lr_scales_the_rate_of_every_weight(model):
    def rates(lr):
        optimizers = build_optimizers(model, OptimConfig(name="muon", lr=lr), CPU)
        return [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]

    assert rates(2e-3) == [pytest.approx(2 * rate) for rate in rates(1e-3)]


@pytest.mark.parametrize(("device", "fused"), [("cpu", True), ("cuda", True), ("mps", False)])
def test_the_fused_kernel_is_used_where_there_is_one(model, device, fused):
    (optimizer,) = build_optimizers(model, OPTIONS, torch.device(device))
    assert all(group["fused"] is fused for group in optimizer.param_groups)


def test_set_lr_scales_from_the_peak_and_not_from_the_last_rate(model):
    optimizers = build_optimizers(model, OptimConfig(name="muon", lr=1e-3, muon_lr_ratio=50.0), CPU)
    for scale in (0.5, 0.25, 1.0):
        set_lr(optimizers, scale)
        rates = [{group["lr"] for group in optimizer.param_groups} for optimizer in optimizers]
        assert rates == [{scale * 1e-3}, {scale * 0.05}]


def test_muon_may_cool_down_earlier_and_its_momentum_grows(model):
    options = OptimConfig(name="muon", lr=1e-3, muon_lr_ratio=50, schedule="linear", cooldown=0.4, muon_cooldown=0.8,
                          warmup_steps=0, min_lr_ratio=0.0, muon_momentum=0.97, muon_momentum_warmup=10,
                          weight_decay=0.1, muon_decay_ratio=4.0)  # fmt: skip
    schedule, optimizers = Schedule(options, 100), build_optimizers(model, options, CPU)
    assert optimizers[1].param_groups[0]["weight_decay"] == pytest.approx(0.4)
    seen = []
    for step in (0, 5, 60, 80):
        set_lr(optimizers, schedule.lr_scale(step))
        schedule.set_muon(optimizers, step)
        (muon,) = optimizers[1].param_groups
        seen.append((optimizers[0].param_groups[0]["lr"] / 1e-3, muon["lr"] / 0.05, muon["momentum"]))
    assert seen == [pytest.approx(row) for row in ((1, 1, 0.85), (1, 1, 0.91), (1, 0.5, 0.97), (0.5, 0.25, 0.97))]


def test_beta2_by_its_half_life_does_not_depend_on_the_batch():
    options = OptimConfig(beta2_half_life=1000)
    assert options.beta2_of(500) ** 2 == pytest.approx(options.beta2_of(1000)) == 0.5
    assert OptimConfig(beta2=0.99).beta2_of(500) == 0.99
