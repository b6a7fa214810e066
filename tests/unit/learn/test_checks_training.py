"""Typical wrong answers to the exercises of `training`; the right ones are notebooks/solutions/training.py."""

import math

import pytest
import torch

from groundup.learn.exercises import exercises


def std_of_blocks(n_layer):
    return 0.02 / math.sqrt(n_layer)


def std_without_root(n_layer):
    return 0.02 / (2 * n_layer)


def std_of_fan_in(n_layer):
    return 0.01 if n_layer == 2 else 0.02


def adamw(w, g, m, v, t, lr, beta1, beta2, eps, weight_decay, *, mistake=None):
    if mistake == "decay in the gradient":
        g, weight_decay = g + weight_decay * w, 0.0
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * (g if mistake == "no square" else g**2)
    if mistake == "t from 0":
        t = max(1, t - 1)
    fair = 0 if mistake == "no correction" else t
    mean, size = (m / (1 - beta1**fair), v / (1 - beta2**fair)) if fair else (m, v)
    root = (size + eps).sqrt() if mistake == "eps inside" else size.sqrt() + eps
    lr_decay = weight_decay if mistake == "decay without lr" else lr * weight_decay
    if mistake == "averages not returned":
        return w * (1 - lr_decay) - lr * mean / root
    return w * (1 - lr_decay) - lr * mean / root, m, v


def wrong_adamw(mistake):
    def answer(*args):
        return adamw(*args, mistake=mistake)

    return answer


def schedule(step, warmup_steps, max_steps, final, *, mistake=None):
    if step < warmup_steps:
        return step / warmup_steps if mistake == "from 0" else (step + 1) / warmup_steps
    if step >= max_steps and mistake != "no end":
        return final
    begin = 0 if mistake == "over all steps" else warmup_steps
    progress = (step - begin) / (max_steps - begin)
    if mistake == "linear":
        return final + (1 - final) * (1 - progress)
    low = 0.0 if mistake == "to 0" else final
    return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * progress))


def wrong_schedule(mistake):
    def answer(*args):
        return schedule(*args, mistake=mistake)

    return answer


def accumulate_sum(loss_module, pieces):
    for idx, targets in pieces:
        loss_module(idx, targets).backward()


def accumulate_means(loss_module, pieces):
    for idx, targets in pieces:
        (loss_module(idx, targets) / (targets != -100).sum() / len(pieces)).backward()


def accumulate_ignored(loss_module, pieces):
    n_tokens = sum(targets.numel() for _, targets in pieces)
    for idx, targets in pieces:
        (loss_module(idx, targets) / n_tokens).backward()


def accumulate_last(loss_module, pieces):
    n_tokens = sum(int((targets != -100).sum()) for _, targets in pieces)
    for idx, targets in pieces:
        loss_module.zero_grad()
        (loss_module(idx, targets) / n_tokens).backward()


def scale_of_the_mean(grads):
    return 2.0 ** math.floor(math.log2(65504 / grads.abs().mean()))


def scale_of_the_signed(grads):
    return 2.0 ** math.floor(math.log2(65504 / grads.max()))


def scale_without_floor(grads):
    return 65504 / grads.abs().max().item()


def scale_too_small(grads):
    return 2.0 ** (math.floor(math.log2(65504 / grads.abs().max())) - 1)


WRONG = [
    ("residual_std", std_of_blocks),
    ("residual_std", std_without_root),
    ("residual_std", std_of_fan_in),
    *[
        ("adamw_step", wrong_adamw(mistake))
        for mistake in (
            "decay in the gradient",
            "no square",
            "t from 0",
            "no correction",
            "eps inside",
            "decay without lr",
            "averages not returned",
        )
    ],
    *[("lr_scale", wrong_schedule(m)) for m in ("from 0", "no end", "over all steps", "linear", "to 0")],
    *[("accumulate", f) for f in (accumulate_sum, accumulate_means, accumulate_ignored, accumulate_last)],
    *[("largest_scale", f) for f in (scale_of_the_mean, scale_of_the_signed, scale_without_floor, scale_too_small)],
]


@pytest.mark.parametrize(("name", "answer"), WRONG)
def test_a_wrong_answer_gets_the_first_hint_and_then_the_second(name, answer, fails_with_both_hints):
    fails_with_both_hints("training", name, answer)


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("residual_std", lambda n_layer: 0.02 * (2 * n_layer) ** -0.5),
        ("adamw_step", adamw),
        ("lr_scale", schedule),
        ("largest_scale", lambda g: 2.0 ** math.floor(torch.log2(65504 / g.abs().max()).item())),
    ],
)
def test_the_right_answer_passes(name, answer):
    assert exercises("training")(name, answer).passed
