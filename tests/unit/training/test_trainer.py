import copy
import math

import pytest
import torch

from groundup.config.errors import UserError
from groundup.config.model import GPTConfig
from groundup.config.train import OptimConfig
from groundup.model.gpt import GPT
from groundup.model.init import init_weights
from groundup.model.loss import LossModule
from groundup.optim.build import build_optimizers
from groundup.runtime.precision import Precision
from groundup.training.signals import StopRequest
from groundup.training.state import TrainState
from groundup.training.trainer import Trainer

CPU = torch.device("cpu")
CONFIG = GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=8, vocab_size=11)
T = CONFIG.block_size


class Stream:
    """Rows 0, 1, 2, ... of one fixed table, `size` at a time."""

    def __init__(self, size):
        self.size, self.at = size, 0
        self.rows = torch.randint(11, (64, T + 1), generator=torch.Generator().manual_seed(3))

    def next_batch(self):
        rows = self.rows[self.at : self.at + self.size]
        self.at += self.size
        return rows[:, :-1], rows[:, 1:]


def trainer(*, micro=8, accumulate=1, steps=3, lr=1e-3, grad_clip=1.0, callbacks=(), optimizer="adamw"):
    model = init_weights(GPT(CONFIG), seed=0).double()
    return Trainer(
        model=model,
        loss_module=LossModule(model),
        optimizers=build_optimizers(model, OptimConfig(name=optimizer, lr=lr, min_lr=0.0), CPU),
        batches=Stream(micro),
        lr_scale=lambda step: 1 / (step + 1),
        precision=Precision("fp32", CPU, ""),
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        device=CPU,
        max_steps=steps,
        grad_accum_steps=accumulate,
        tokens_per_step=micro * accumulate * T,
        grad_clip=grad_clip,
        state=TrainState(),
        stop=StopRequest(),
        callbacks=callbacks,
    )


def gradient(model):
    return torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_accumulation_changes_nothing(optimizer):
    whole, parts = trainer(micro=8, optimizer=optimizer), trainer(micro=2, accumulate=4, optimizer=optimizer)
    for _ in range(3):
        a, b = whole.train_step(), parts.train_step()
        assert a.loss.item() == pytest.approx(b.loss.item(), rel=1e-6)
        assert a.grad_norm.item() == pytest.approx(b.grad_norm.item(), rel=1e-9)
    for p, q in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-7, atol=1e-9)


def test_a_step_is_what_it_says():
    """Against the same step written out: mean loss, norm of the whole gradient, clipping, torch's AdamW."""
    run = trainer(grad_clip=0.1)
    model = copy.deepcopy(run.model)
    idx, targets = Stream(8).next_batch()
    loss = torch.nn.functional.cross_entropy(model(idx).flatten(0, 1), targets.flatten())
    loss.backward()
    norm = gradient(model).norm()
    for p in model.parameters():
        p.grad *= 0.1 / norm
    decay = [{"params": [p for p in model.parameters() if p.dim() >= 2], "weight_decay": 0.1},
             {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0}]  # fmt: skip
    torch.optim.AdamW(decay, lr=1e-3, betas=(0.9, 0.95)).step()

    metrics = run.train_step()
    assert metrics.loss.item() == pytest.approx(loss.item(), rel=1e-6)
    assert metrics.grad_norm.item() == pytest.approx(norm.item(), rel=1e-9)
    assert norm > 0.1  # clipping had something to do
    assert metrics.lr_scale == 1.0
    for p, q in zip(run.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-9)
        assert p.grad is None


def test_no_clipping_still_measures_the_norm():
    clipped, free = trainer(grad_clip=1e-9), trainer(grad_clip=0)
    assert clipped.train_step().grad_norm == free.train_step().grad_norm


def test_the_state_counts_and_the_rate_follows_the_step():
    run = trainer(micro=2, accumulate=2, steps=4)
    scales = [run.train_step().lr_scale for _ in range(3)]
    assert scales == [1, 1 / 2, 1 / 3]
    assert (run.state.step, run.state.tokens_seen) == (3, 3 * 4 * T)
    assert run.state.seconds > 0
    assert not run.finished
    run.train_step()
    assert run.finished


@pytest.mark.parametrize("what", ["weights", "gradient"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nothing_that_is_not_finite_reaches_the_weights(what, value):
    run = trainer()
    run.train_step()
    if what == "weights":
        with torch.no_grad():
            run.model.h[1].mlp.c_fc.weight[0, 0] = value
    else:
        run.model.h[1].mlp.c_fc.weight.register_hook(lambda grad: grad * value)
    before = copy.deepcopy(run.model.state_dict())
    moments = copy.deepcopy(run.optimizers[0].state_dict())
    with pytest.raises(UserError, match=r"^step 2: the loss is .* the weights are those of the step before") as caught:
        run.train_step()
    assert "\n" not in str(caught.value)
    for name, p in run.model.state_dict().items():
        assert torch.equal(p.nan_to_num(), before[name].nan_to_num())
    for i, state in run.optimizers[0].state_dict()["state"].items():
        assert torch.equal(state["exp_avg"], moments["state"][i]["exp_avg"])
    assert run.state.step == 1


class Watcher:
    def __init__(self, stop_at=None):
        self.seen, self.stop_at = [], stop_at

    def on_fit_start(self, trainer):
        self.seen.append(("start", trainer.state.step, trainer.model.training))

    def on_step_end(self, trainer, metrics):
        self.seen.append(("step", trainer.state.step))
        if trainer.state.step == self.stop_at:
            trainer.stop.signum = 15

    def on_fit_end(self, trainer):
        self.seen.append(("end", trainer.state.step))


def test_fit_makes_every_step_and_tells_who_looks_on():
    watcher = Watcher()
    trainer(steps=3, callbacks=[watcher]).fit()
    assert watcher.seen == [("start", 0, True), ("step", 1), ("step", 2), ("step", 3), ("end", 3)]


def test_a_stop_request_ends_the_run_after_its_step():
    watcher = Watcher(stop_at=2)
    run = trainer(steps=100, callbacks=[watcher])
    run.fit()
    assert run.state.step == 2
    assert run.finished
    assert watcher.seen[-1] == ("end", 2)
    run.fit()  # and no further step is made
    assert run.state.step == 2


def test_the_parts_of_a_step_make_up_its_time():
    run = trainer(micro=2, accumulate=2, steps=4)
    steps = [run.train_step() for _ in range(4)]
    for metrics in steps:
        assert set(metrics.parts) == {"data", "forward_backward", "optimizer"}
        assert all(seconds > 0 for seconds in metrics.parts.values())
        assert sum(metrics.parts.values()) <= metrics.seconds


def test_it_learns():
    run = trainer(steps=40, lr=1e-2)
    batch = Stream(8).next_batch()
    run.batches.next_batch = lambda: batch
    run.lr_scale = lambda step: 1.0
    losses = [run.train_step().loss.item() for _ in range(40)]
    assert losses[0] == pytest.approx(math.log(11), abs=0.2)
    assert losses[-1] < 0.5 * losses[0]
