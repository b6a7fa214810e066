import copy
import math
from dataclasses import replace

import pytest
import torch

from groundup.config.errors import UserError
from groundup.config.model import GPTConfig, ModernConfig
from groundup.config.train import OptimConfig
from groundup.distributed.signals import StopRequest
from groundup.loop.guard import Guard
from groundup.loop.retry import or_explain, or_shrink
from groundup.loop.state import TrainState
from groundup.loop.trainer import Callback, Trainer
from groundup.model.build import build_model
from groundup.model.init import init_weights
from groundup.model.loss import LossModule
from groundup.optim.build import build_optimizers
from groundup.parts.swap import use_sparse_gradients
from groundup.runtime.precision import Precision

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

    def fetch_ahead(self):
        """There is nothing to wait for."""

    def restart(self, consumed, *, micro_batch_size=None):
        self.at, self.size = consumed, micro_batch_size or self.size


def trainer(*, micro=8, accumulate=1, steps=3, lr=1e-3, grad_clip=1.0, callbacks=(), optimizer="adamw", dropout=0.0,
            dtype=torch.float64, config=CONFIG, **options):  # fmt: skip
    model = init_weights(build_model(replace(config, dropout=dropout)), seed=0).to(dtype)
    return Trainer(
        model=model,
        loss_module=LossModule(model),
        optimizers=build_optimizers(model, OptimConfig(name=optimizer, lr=lr, min_lr_ratio=0.0), CPU),
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
        **options,
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


def test_sparse_gradients_change_nothing():
    """Of a table of n-grams, with clipping, in several micro-steps."""
    config = ModernConfig(n_layer=1, n_head=2, n_embd=16, block_size=8, vocab_size=11, ngram=3, ngram_rows=40)
    runs = [trainer(micro=2, accumulate=4, grad_clip=0.1, config=config, optimizer="muon", steps=40) for _ in range(2)]
    use_sparse_gradients(runs[1].model)
    for _ in range(3):
        dense, sparse = (run.train_step() for run in runs)
        assert sparse.grad_norm.item() == pytest.approx(dense.grad_norm.item(), rel=1e-12)
        assert dense.grad_norm > 0.1
    for p, q in zip(*(run.model.parameters() for run in runs), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-12)
    runs[1].gradients = lambda run: run.accumulate() * torch.nan
    with pytest.raises(UserError, match="the weights are those of the step before"):
        runs[1].fit()


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


@pytest.mark.fault("E3", "NaN or Inf in loss or gradient", "the run stops; weights are those of the step before")
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
    assert "samples 8 to 15" in str(caught.value)
    assert "a lower --optim.lr" in str(caught.value)
    if what == "gradient":
        assert "first in h.1.mlp.c_fc.weight;" in str(caught.value)
    for name, p in run.model.state_dict().items():
        assert torch.equal(p.nan_to_num(), before[name].nan_to_num())
    for i, state in run.optimizers[0].state_dict()["state"].items():
        assert torch.equal(state["exp_avg"], moments["state"][i]["exp_avg"])
    assert run.state.step == 1


def test_a_gradient_before_any_rate_has_acted_is_not_blamed_on_the_rate():
    """As wrong kernels would give it: a lower rate would change nothing."""
    run = trainer()
    run.state.step = 30  # of earlier sessions
    run.model.h[1].mlp.c_fc.weight.register_hook(lambda grad: grad * math.nan)
    with pytest.raises(UserError, match=r"^step 31: .*its rate is not the cause.* --runtime\.precision fp32") as caught:
        run.train_step()
    assert "--optim" not in str(caught.value)
    assert "\n" not in str(caught.value)


class Watcher(Callback):
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


@pytest.mark.fault("E3", "NaN under guard.nonfinite skip", "the step changes nothing, is counted, and the run goes on")
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_step_that_is_skipped_changes_nothing_but_the_counters(value):
    run = trainer(micro=2, accumulate=2, guard=Guard(nonfinite="skip"))
    run.train_step()
    weight = run.model.h[1].mlp.c_fc.weight
    hook = weight.register_hook(lambda grad: grad * value)
    before = copy.deepcopy([run.model.state_dict(), run.optimizers[0].state_dict()["state"]])
    metrics = run.train_step()
    assert "first in" not in metrics.notes[0]
    assert metrics.notes[0].startswith("step 2: the loss is 2.")
    assert metrics.notes[0].endswith("skipped (samples 4 to 7)")
    assert not metrics.grad_norm.isfinite()
    after = [run.model.state_dict(), run.optimizers[0].state_dict()["state"]]
    for name, p in after[0].items():
        assert torch.equal(p, before[0][name]), name
    for i, state in after[1].items():
        assert all(torch.equal(state[key], before[1][i][key]) for key in state)
    assert (run.state.step, run.state.skipped_steps, run.state.tokens_seen) == (2, 1, 8 * T)
    hook.remove()
    assert run.train_step().notes == ()
    assert run.state.skipped_steps == 1
    assert not torch.equal(run.model.state_dict()["wte.weight"], before[0]["wte.weight"])


def test_steps_that_are_all_skipped_stop_the_run():
    run = trainer(guard=Guard(nonfinite="skip", max_skips=2))
    run.model.wte.weight.register_hook(lambda grad: grad * math.nan)
    run.train_step()
    with pytest.raises(UserError, match=r"^step 2: the loss is .*; 2 steps in a row changed nothing \(first in wte"):
        run.train_step()
    assert (run.state.step, run.state.skipped_steps) == (1, 1)


@pytest.mark.fault("E5", "fp16 gradients overflow at any loss scale", "the run stops before any weight has changed")
def test_fp16_that_always_overflows_stops_with_a_clear_line():
    run = trainer(dtype=torch.float32)
    run.scaler = torch.amp.GradScaler("cpu", enabled=True)
    before = copy.deepcopy(run.model.state_dict())
    hook = run.model.wte.weight.register_hook(lambda grad: grad * math.inf)
    scales = []
    for _ in range(49):
        run.batches.at = 0
        assert run.train_step().notes == ()
        scales.append(run.scaler.get_scale())
    with pytest.raises(UserError, match=r"step 50: fp16 gradients overflow.*50 steps in a row changed nothing"):
        run.train_step()
    assert scales == [2.0**15 / 2**n for n in range(49)]
    assert run.state.skipped_steps == run.state.step == 49
    for name, p in run.model.state_dict().items():
        assert torch.equal(p, before[name])

    hook.remove()
    again = trainer(dtype=torch.float32)
    again.scaler = torch.amp.GradScaler("cpu", enabled=True)
    again.train_step()
    assert again.state.skipped_steps == 0
    assert not torch.equal(again.model.wte.weight, before["wte.weight"])


# ---- memory


class Limited(torch.nn.Module):
    """Memory for `limit` sequences; a limit may be set for each call, and hit going back (as where grads are made)."""

    def __init__(self, inner, limits, *, backward):
        super().__init__()
        self.inner, self.limits, self.backward, self.sizes = inner, iter(limits), backward, []

    def forward(self, idx, targets, tokens):
        self.sizes.append(len(idx))
        if len(idx) > next(self.limits):
            if not self.backward:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            loss = self.inner(idx, targets, tokens)
            loss.register_hook(lambda grad: None)
            self.inner.model.h[0].ln_1.weight.register_hook(self.once())
            return loss
        return self.inner(idx, targets, tokens)

    def once(self):
        def fail(grad, raised=[]):  # noqa: B006
            if not raised:
                raised.append(1)
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

        return fail


def limited(limits, *, backward=False, **options):
    run = trainer(**options)
    run.loss_module = Limited(run.loss_module, limits, backward=backward)
    return run


def always(limit):
    while True:
        yield limit


@pytest.mark.fault("E6", "out of memory in the first step", "micro-batches are halved until they fit; same gradients")
@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_what_does_not_fit_is_halved_and_nothing_changes(dtype, bound, backward, record_property):
    run = limited(always(3), backward=backward, micro=12, gradients=or_shrink, dtype=dtype)
    plain = trainer(micro=12, dtype=dtype)
    gradients, steps = [], []
    for one in (run, plain):
        kept = []
        gradients.append(kept)
        for optimizer in one.optimizers:
            optimizer.register_step_pre_hook(lambda *_, one=one, kept=kept: kept.append(gradient(one.model)))
        steps.append([one.train_step() for _ in range(3)])
    assert run.loss_module.sizes == [12, 6, 3, 3, 3, 3, *[3] * 8]
    assert (run.micro_batch_size, run.grad_accum_steps) == (3, 4)
    assert run.batches.at == plain.batches.at == 36
    assert steps[0][0].notes == (
        "step 1: out of memory with micro-batches of 12 sequences; from here on they are of 6",
        "step 1: out of memory with micro-batches of 6 sequences; from here on they are of 3",
    )
    assert steps[0][1].notes == ()
    largest = max((a - b).abs().max().item() for a, b in zip(*gradients, strict=True))
    assert largest <= bound
    record_property("figure", f"gradients differ by {largest:.1e} in {str(dtype).removeprefix('torch.')}")


@pytest.mark.fault("E6", "out of memory in the middle of a later step", "that step is made again, bit for bit")
@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("call", range(3, 7))
def test_a_step_is_made_again_with_the_same_dropout_and_no_half_of_a_gradient(call, backward):
    """Memory falls short in any micro-step of the second step, against a run that had the smaller size by then."""
    run = limited(
        [8] * call + [2] + [8] * 20, backward=backward, micro=4, accumulate=3, gradients=or_shrink, dropout=0.3
    )
    plain = trainer(micro=4, accumulate=3, dropout=0.3)
    for one, again in ((run, False), (plain, True)):
        torch.manual_seed(5)
        one.train_step()
        if again and call < 6:
            one.grad_accum_steps = 6
            one.batches.restart(12, micro_batch_size=2)
        one.train_step()
        if again and call == 6:
            one.grad_accum_steps = 6
            one.batches.restart(24, micro_batch_size=2)
        one.train_step()
    assert run.micro_batch_size == plain.micro_batch_size == 2
    for (name, p), q in zip(run.model.state_dict().items(), plain.model.state_dict().values(), strict=True):
        assert torch.equal(p, q), name


@pytest.mark.fault("E6", "a fixed micro-batch does not fit", "one line names the size and what to use instead")
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("[..] can't allocate memory: you tried"),
    ],
)
def test_a_fixed_size_that_does_not_fit_is_one_line(error):
    run = trainer(micro=6, accumulate=2, gradients=or_explain)

    def fail(idx, targets, tokens):
        raise error

    run.loss_module.forward = fail
    before = copy.deepcopy(run.model.state_dict())
    with pytest.raises(UserError) as caught:
        run.train_step()
    assert str(caught.value) == (
        "step 1: out of memory with micro-batches of 6 sequences; use --runtime.micro-batch-size 3"
        " (tokens_per_step stays), or auto"
    )
    assert all(torch.equal(p, before[name]) for name, p in run.model.state_dict().items())


@pytest.mark.parametrize("gradients", [or_shrink, or_explain])
def test_one_sequence_too_many_is_one_line(gradients):
    shrinks = gradients is or_shrink
    run = limited(always(0), micro=4 if shrinks else 1, gradients=gradients)
    with pytest.raises(UserError, match=r"out of memory even with one sequence at a time; --runtime\.recompute"):
        run.train_step()
    assert run.loss_module.sizes == ([4, 2, 1] if shrinks else [1])


def test_other_errors_are_not_taken_for_memory():
    for gradients in (or_shrink, or_explain):
        run = trainer(gradients=gradients)
        run.loss_module.forward = lambda idx, targets, tokens: 1 // 0
        with pytest.raises(ZeroDivisionError):
            run.train_step()
        run.loss_module.forward = lambda idx, targets, tokens: torch.ones(2) @ torch.ones(3)
        with pytest.raises(RuntimeError, match="inconsistent"):
            run.train_step()
