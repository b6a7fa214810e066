"""Learning rate and momentum over time, as pure functions of the step."""

import math


def cosine_scale(step: int, *, warmup_steps: int, max_steps: int, final: float) -> float:
    """Share of the peak learning rate at a step: linear warmup, then half a cosine down to `final`.

    Args:
        step: The optimizer step about to be made, counted from 0.
        warmup_steps: Steps of linear growth; step 0 already moves (1 / warmup_steps of the peak).
        max_steps: The step at which `final` is reached and kept.
        final: Share that is left at the end, in [0, 1].

    Source: Loshchilov & Hutter 2017 (SGDR), without restarts; warmup as in GPT-3 (Brown et al. 2020, app. B).
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if step >= max_steps:
        return final
    progress = (step - warmup_steps) / (max_steps - warmup_steps)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))


def linear_scale(step: int, *, warmup_steps: int, max_steps: int, final: float, cooldown: float) -> float:
    """Share of the peak learning rate at a step: linear warmup, constant, then linearly down to `final`.

    Args:
        step: As for `cosine_scale`.
        warmup_steps: As for `cosine_scale`.
        max_steps: The step at which `final` is reached and kept.
        final: min_lr / lr, in [0, 1].
        cooldown: Share of max_steps, at the end, in which the rate falls.

    Source: Hagele et al. 2024, "Scaling laws and compute-optimal training beyond fixed training durations".
    """
    left = (max_steps - step) / (cooldown * max_steps)
    return min((step + 1) / max(1, warmup_steps), 1.0, final + (1 - final) * max(0.0, left))


def momentum_at(step: int, *, start: float, end: float, warmup_steps: int) -> float:
    """Muon's momentum at a step: linearly from `start` to `end`, then constant."""
    return end if step >= warmup_steps else start + (end - start) * step / warmup_steps
