"""Exercises of the notebook `training`."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from groundup.config.data import IGNORE
from groundup.config.model import GPTConfig
from groundup.config.train import OptimConfig
from groundup.learn.exercises import Answer, Exercise, UnwrittenError, ask, expect, same
from groundup.model.gpt import GPT
from groundup.model.init import init_weights
from groundup.model.loss import LossModule
from groundup.optim.build import build_optimizers
from groundup.optim.schedule import cosine_scale

SHAPE = GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=8, vocab_size=11)


def _model() -> GPT:
    return init_weights(GPT(SHAPE), seed=3).double()


def _residual_std(answer: Answer) -> None:
    expect(answer, 2, want=0.01)
    for n_layer in (1, 12, 48):
        expect(answer, n_layer, want=0.02 / math.sqrt(2 * n_layer))
    model = init_weights(GPT(GPTConfig(n_layer=3, n_head=2, n_embd=128, block_size=8, vocab_size=11)), seed=0)
    drawn = torch.cat([p.flatten() for name, p in model.named_parameters() if name.endswith("c_proj.weight")]).std()
    # 245,760 numbers: their standard deviation is within 0.5 % of the one they were drawn with.
    got = ask(answer, 3)
    assert abs(got / drawn.item() - 1) < 0.005, f"groundup's own 3-layer model has {drawn:.6f}, you give {got:.6f}"


def _adamw_step(answer: Answer) -> None:
    for settings in ((1e-2, 0.9, 0.95, 1e-8, 0.0), (1e-2, 0.9, 0.95, 1e-8, 0.1), (0.1, 0.5, 0.99, 1e-2, 0.5)):
        _against_torch(answer, *settings)
    _against_groundup(answer)


def _against_torch(answer: Answer, lr: float, beta1: float, beta2: float, eps: float, weight_decay: float) -> None:
    generator = torch.Generator().manual_seed(1)
    w = torch.randn(3, generator=generator, dtype=torch.float64)
    m, v = torch.zeros_like(w), torch.zeros_like(w)
    theirs = torch.nn.Parameter(w.clone())
    optimizer = torch.optim.AdamW([theirs], lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=weight_decay)
    for t in range(1, 5):
        g = torch.randn(3, generator=generator, dtype=torch.float64)
        theirs.grad = g.clone()
        optimizer.step()
        state = optimizer.state[theirs]
        given = (w, g, m, v, t, lr, beta1, beta2, eps, weight_decay)
        got = ask(answer, *given)
        if not isinstance(got, tuple) or len(got) != 3:
            raise AssertionError("return three tensors: the weight and both averages")
        for name, mine, truth in zip(
            ("average of gradients", "average of squared gradients", "weight"),
            (got[1], got[2], got[0]),
            (state["exp_avg"], state["exp_avg_sq"], theirs.detach()),
            strict=True,
        ):
            assert same(mine, truth, 1e-10), (
                f"after step {t} with lr={lr}, beta1={beta1}, beta2={beta2}, eps={eps}, weight_decay={weight_decay}\n"
                f"torch.optim.AdamW has the {name} {truth.tolist()}\nand you have {_numbers(mine)}."
            )
        w, m, v = got


def _numbers(value: Any) -> Any:
    return value.tolist() if isinstance(value, Tensor) else value


def _against_groundup(answer: Answer) -> None:
    """Three steps of a whole model: its matrices decay, its gains and biases do not."""
    config = OptimConfig(lr=1e-2, weight_decay=0.1)
    library, mine = _model(), _model()
    (optimizer,) = build_optimizers(library, config, torch.device("cpu"))
    state = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in mine.named_parameters()}
    idx = torch.arange(16).view(2, 8) % SHAPE.vocab_size
    for t in range(1, 4):
        for model in (library, mine):
            model.zero_grad()
            (LossModule(model)(idx, idx.roll(-1, 1)) / idx.numel()).backward()
        optimizer.step()
        for name, p in mine.named_parameters():
            decay = config.weight_decay if p.dim() >= 2 else 0.0
            settings = (config.lr, config.beta1, config.beta2, 1e-8, decay)
            w, m, v = ask(answer, p.detach(), p.grad, *state[name], t, *settings)
            p.data.copy_(w)
            state[name] = (m, v)
    for (name, p), q in zip(mine.named_parameters(), library.parameters(), strict=True):
        assert same(p, q, 1e-10), f"after three steps of a whole model, {name} is not what groundup.optim makes of it"


def _lr_scale(answer: Answer) -> None:
    for warmup_steps, max_steps, final in ((4, 20, 0.1), (0, 10, 0.0), (100, 1000, 0.25)):
        truth = partial(cosine_scale, warmup_steps=warmup_steps, max_steps=max_steps, final=final)
        middle = (warmup_steps + max_steps) // 2
        for step in (0, 1, warmup_steps - 1, warmup_steps, middle, max_steps - 1, max_steps, 2 * max_steps):
            if step >= 0:
                expect(answer, step, warmup_steps, max_steps, final, want=truth(step))


def _pieces(*sizes: tuple[int, int]) -> list[tuple[Tensor, Tensor]]:
    """Micro-batches of (sequences, targets that count in each)."""
    generator = torch.Generator().manual_seed(5)
    pieces = []
    for n_rows, n_counted in sizes:
        idx = torch.randint(SHAPE.vocab_size, (n_rows, 8), generator=generator)
        targets = torch.randint(SHAPE.vocab_size, (n_rows, 8), generator=generator)
        targets[:, n_counted:] = IGNORE
        pieces.append((idx, targets))
    return pieces


def _accumulate(answer: Answer) -> None:
    for what, pieces in (
        ("one piece", _pieces((2, 8))),
        ("two equal pieces", _pieces((2, 8), (2, 8))),
        ("pieces of 3 and 1 sequences", _pieces((3, 8), (1, 8))),
        ("two pieces, of which the second has targets of -100", _pieces((2, 8), (2, 2))),
    ):
        mine, whole = LossModule(_model()), LossModule(_model())
        idx, targets = (torch.cat(tensors) for tensors in zip(*pieces, strict=True))
        (whole(idx, targets) / (targets != IGNORE).sum()).backward()
        answer(mine, pieces)
        if all(p.grad is None for p in mine.parameters()):
            raise UnwrittenError("accumulate leaves no gradient so far.")
        for (name, p), q in zip(mine.named_parameters(), whole.parameters(), strict=True):
            assert p.grad is not None, f"with {what}: {name.removeprefix('model.')} has no gradient; call backward()"
            assert q.grad is not None
            assert same(p.grad, q.grad, 1e-12), (
                f"with {what}, the gradient of {name.removeprefix('model.')} has the length {p.grad.norm():.6f};\n"
                f"computed in one batch it has {q.grad.norm():.6f}."
            )


def _largest_scale(answer: Answer) -> None:
    for values in ([1.0], [65504.0], [2.0**-20, -3e-7], [-1.0, 0.5], [40000.0, 1e-9], [1e6], [0.0, 1.5]):
        grads = torch.tensor(values)
        expect(answer, grads, want=_by_trying(grads))


def _by_trying(grads: Tensor) -> float:
    """What float16 itself says."""
    exponent = 140
    while (grads.double() * 2.0**exponent).half().isinf().any():
        exponent -= 1
    return 2.0**exponent


def _exercise(name: str, test: Callable[[Answer], None], first: str, second: str, why: str) -> Exercise:
    return Exercise(name=name, test=test, hints=(first, second), why=why)


EXERCISES = (
    _exercise(
        "residual_std",
        _residual_std,
        "How often does a model of n_layer blocks add to its stream? The variances of independent numbers add up.",
        "2 * n_layer additions, so each may have 1 / (2 * n_layer) of the variance: divide 0.02 by a square root.",
        "Groundup draws its models with this number: the stream of 48 blocks is as large as that of 6.",
    ),
    _exercise(
        "adamw_step",
        _adamw_step,
        "Start from adam_step above, without changing the arguments in place. Then shrink w by 1 - lr * weight_decay;"
        " the gradient that goes into m and v stays without it.",
        "m = beta1 * m + (1 - beta1) * g; v likewise with g**2; step = (m / (1 - beta1**t)) / ((v / (1 - beta2**t))"
        ".sqrt() + eps); return w * (1 - lr * weight_decay) - lr * step, m, v.",
        "It equals torch.optim.AdamW to the tenth digit, and groundup.optim on a whole model: nothing is hidden in it.",
    ),
    _exercise(
        "lr_scale",
        _lr_scale,
        "Three cases: step < warmup_steps, step >= max_steps, and between them. Step 0 already moves.",
        "(step + 1) / warmup_steps, then final, and between: with progress = (step - warmup_steps) / (max_steps -"
        " warmup_steps), final + (1 - final) * 0.5 * (1 + cos(pi * progress)).",
        "The learning rate is a pure function of the step: a resumed run needs no more than its step to go on exactly.",
    ),
    _exercise(
        "accumulate",
        _accumulate,
        "Count the targets that are not -100 over all pieces first; then every piece is divided by that one number.",
        "n = sum((y != -100).sum() for _, y in pieces); for x, y in pieces: (loss_module(x, y) / n).backward()."
        " Nothing sets gradients to zero in between.",
        "The gradient is that of one large batch: memory decides the size of a piece, you decide the size of a step.",
    ),
    _exercise(
        "largest_scale",
        _largest_scale,
        "Only the largest absolute value matters: how often can it be doubled before .half() makes it infinite? The"
        " answer may be below 1.",
        "limit = 65504 is fp16's largest number: 2.0 ** floor(log2(65504 / grads.abs().max())), as a float.",
        "GradScaler finds the same number by trying: it doubles until something overflows, and halves again.",
    ),
)
