"""What the numbers of a run mean, in words, and what they suggest to try."""

import math
import shlex
import statistics
from typing import Any

from groundup.files.layout import CONFIG
from groundup.records.history import best_row, is_finite, lowest_loss, series, whole_looks
from groundup.records.metrics import STOPPED
from groundup.terminal.display import clock, quantity

TERMS = {
    "loss": "How surprised the model is by the token that really comes next: the negative logarithm of the probability"
    " that it gave to it, on average. Its unit is the nat. 0 would be a prophet; lower is better.",
    "token": "The piece of text that a model reads and writes: a character, a part of a word, or a word.",
    "validation": "Measured on text that the model never learns from. What it has only learned by heart does not help"
    " it there.",
    "bigram": "A model that knows one thing only: how often each token follows each other token. What a larger model is"
    " worth shows in how far it gets below.",
    "bits per byte": "The loss for one byte of text, in bits. It can be compared between models that cut text into"
    " different tokens.",
    "MFU": "Model FLOPs utilization: the share of what this machine can compute at most that went into the model.",
    "parameters": "The numbers that training adjusts.",
    "attention": "Each head of each layer looks back at earlier tokens and takes something from them. The weights say"
    " how much it takes from where; they sum to 1.",
    "surprise": "The loss of one token: pale where the model expected it, dark where it did not.",
}
"""The words of a report that a reader may not know."""


def headline(rows: list[dict[str, Any]], config: dict[str, Any], *, vocab_size: int | None) -> list[tuple[str, str]]:
    """Three numbers that say what came of a run, and a sentence for each.

    Args:
        rows: Its metrics.
        config: config.json.
        vocab_size: Tokens that the model tells apart; None where it is not known.
    """
    numbers = []
    best = best_row(rows, config)
    look: dict[str, Any] = best or next((row for row in reversed(rows) if row.get("step") and _is_loss(row)), {})
    if look and _is_loss(look):
        choices, before = math.exp(look["val/loss"]), _before(rows, config, vocab_size)
        begun = f"; before training it was {_count(before)}" if before and before > choices else ""
        part = f", measured on {look['val/tokens']:,} tokens of it" if look.get("val/tokens") else ""
        numbers.append(
            (
                f"{look['val/loss']:.3f}" if best else f"about {look['val/loss']:.2f}",
                f"nats of loss on text that it has never seen{part}: as unsure of the next token as among"
                f" {_count(choices)} equally likely ones{begun}",
            )
        )
    last: dict[str, Any] = next((row for row in reversed(rows) if row.get("tokens") and row.get("seconds")), {})
    if last:
        numbers.append((quantity(last["tokens"]), f"tokens read, in {last['step']:,} steps"))
        speed = f", at {quantity(last['tokens'] / last['seconds'])} tokens per second" if last["seconds"] > 0 else ""
        numbers.append((clock(last["seconds"]), f"of training{speed}"))
    return numbers


def _is_loss(row: dict[str, Any]) -> bool:
    """Whether a line has a validation loss whose exponential can be said."""
    return is_finite(row.get("val/loss")) and row["val/loss"] < 700


def _before(rows: list[dict[str, Any]], config: dict[str, Any], vocab_size: int | None) -> float | None:
    """Among how many tokens a model chose before its first step: all of them, unless it goes on from weights."""
    if not config.get("init_from"):
        return vocab_size
    return next((math.exp(row["val/loss"]) for row in rows if row.get("step") == 0 and _is_loss(row)), None)


def only_worse(rows: list[dict[str, Any]], *, step: int, rates: str) -> str | None:
    """One line where training has only made a model worse.

    Args:
        rows: Metrics of the run.
        step: Whose weights model/ has.
        rates: Flags of the rates.
    """
    best = lowest_loss(rows)
    if best.get("step") != 0:
        return None
    return (
        f"warning: no step reached a lower validation loss than the {best['val/loss']:.4f} of step 0; model/ has the"
        f" weights of step {step}. A lower {rates}, more --optim.warmup-steps or more text may help"
    )


def suggestions(rows: list[dict[str, Any]], config: dict[str, Any], run: str) -> list[tuple[str, str]]:
    """What to try next, and the command for it, judged from the curves.

    Args:
        rows: Metrics of the run.
        config: config.json.
        run: Path of the run as it is typed.
    """
    if rows and rows[-1].get("event") == STOPPED:
        resume = ("The run is not at its end: it goes on.", f"groundup train --resume {shlex.quote(run)}")
        return [resume, *_looking(run)]
    steps = config.get("max_steps")
    longer = f"--max-steps {2 * steps}" if isinstance(steps, int) else ""
    again = f"groundup train --config {shlex.quote(f'{run}/{CONFIG}')}"
    advice = []
    _, val = series([row for row in whole_looks(rows) if row.get("step")], "tokens", "val/loss")
    _, train = series(rows, "tokens", "train/loss")
    if len(val) >= 3 and train:
        gap = val[-1] - sum(train[-10:]) / len(train[-10:])
        if val[-1] > min(val) + 0.01:
            advice.append(
                (
                    f"Validation was best at {min(val):.3f} and rose to {val[-1]:.3f}: the model learns its text by"
                    " heart. More text helps most; more dropout helps too.",
                    f"{again} --name dropout --model.dropout 0.2",
                )
            )
        elif val[-1] < val[-2] - 0.003:
            advice.append(
                (
                    "Validation was still falling at the end: more steps will help.",
                    f"{again} --name longer {longer}".rstrip(),
                )
            )
        elif gap < 0.05 and not config.get("init_from"):  # else its model has the size of the one it began with
            advice.append(
                (
                    "Training and validation are close, and flat: a larger model can learn more from this text.",
                    f"{again} --name larger --model.n-layer {_more_layers(config)}",
                )
            )
    return [*advice, *_looking(run)]


def _looking(run: str) -> list[tuple[str, str]]:
    return [
        ("Look inside this model in the browser.", f"groundup serve {shlex.quote(run)}"),
        ("Let it write.", f"groundup generate {shlex.quote(run)} --stream"),
    ]


def _more_layers(config: dict[str, Any]) -> int:
    model = config.get("model")
    layers = model.get("n_layer") if isinstance(model, dict) else None
    return 2 * layers if isinstance(layers, int) else 8


def _count(number: float) -> str:
    return f"{number:.1f}" if number < 10 else f"{number:,.0f}" if number < 1e6 else quantity(number)


REACH = 8
"""Neighbors on either side that a long curve is averaged with."""


def smoothed(values: list[float], *, reach: int | None = None) -> list[float]:
    """The mean of each value and its neighbors: a noisy curve without its noise, and not later than it was.

    The mean of a curve that flattens lies above it, the further the more it bends within the reach. A loss falls like a
    power of the steps, as much from 10 to 20 as from 100 to 200, so a reach that grows with the way from the start
    bends little anywhere.

    The last values have no neighbors after them: they are those of the line through the last window. Fewer neighbors
    would end the curve in the noise of its last value, and a mean of those before would lag behind.

    Args:
        values: In order.
        reach: Neighbors on either side; fewer at the beginning, which stays where it is. None is `REACH`, or a quarter
            of the values before, where these are few.
    """
    last = len(values) - 1
    shown = []
    for i in range(last + 1):
        r = min(i // 4, REACH) if reach is None else min(i, last // 2, reach)
        middle = min(i, last - r)
        window = values[middle - r : middle + r + 1]
        slope = statistics.linear_regression(range(2 * r + 1), window).slope if i > middle else 0.0
        shown.append(statistics.fmean(window) + slope * (i - middle))
    return shown
