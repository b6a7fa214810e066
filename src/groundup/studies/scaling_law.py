"""A scaling law in small: models of several sizes, equal tokens, and the line through their losses.

Kaplan et al. (2020) and Hoffmann et al. (2022) found that the loss falls as a power of the parameters N beside those
of the embedding, towards a floor: L(N) = E + A / N^alpha. Fitted here by least squares in log-log for the best of
many floors E; with four or five sizes the exponent is a rough one, and the residuals say how rough.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from groundup.config.errors import UserError
from groundup.config.io import dump_json
from groundup.config.presets import RECIPES
from groundup.config.train import TrainConfig
from groundup.files.atomic import made_for, write_file
from groundup.files.layout import INDEX
from groundup.planner.params import parameter_table
from groundup.prepare.corpus import open_corpus
from groundup.studies.options import LEAST_SIZES
from groundup.studies.options import ScalingLawOptions as Options
from groundup.studies.runs import bare, best_loss, changed, curve, sized, train_all

LR_EXPONENT = 0.5
"""Models wider than the preset's have rates lower by this power of the width."""
FLOORS = 400
"""Values of E that are tried, from 0 to just below the lowest loss."""


def study(options: Options, say: Callable[[str], None], *, machine: Mapping[str, Any]) -> dict[str, Any]:
    """Train, fit, draw.

    Args:
        options: What to train.
        say: Called with a line per run.
        machine: What the result says of where it was trained.

    Returns:
        Parameters, losses, the fit, its residuals, and the curves.

    Raises:
        UserError: Fewer than three models were trained to their last step.
    """
    folder = options.out
    configs = {name: _sized(options, folder, name) for name in options.sizes.split(",")}
    with made_for(folder):
        open_corpus(next(iter(configs.values())).data, say=say, instead="--text")
    rows = train_all(configs, at_once=options.at_once, seconds=options.seconds, say=say)
    losses = {name: loss for name, r in rows.items() if (loss := best_loss(r)) is not None}
    if len(losses) < LEAST_SIZES:
        raise UserError(
            f"a law needs {LEAST_SIZES} models at least, {len(losses)} came to the last step;"
            " give more --seconds, or fewer --steps"
        )
    n = [_parameters(configs[name]) for name in losses]
    law = fit(n, list(losses.values()))
    result: dict[str, Any] = {
        "bench": "scaling-law",
        "preset": options.preset,
        "tokens": configs[next(iter(losses))].max_steps * configs[next(iter(losses))].tokens_per_step,
        **machine,
        "models": {
            name: {"parameters": count, "loss": round(loss, 4), "residual": round(loss - law(count), 4)}
            for (name, loss), count in zip(losses.items(), n, strict=True)
        },
        "fit": {"floor": round(law.floor, 4), "factor": round(law.factor, 4), "exponent": round(law.exponent, 4)},
        "curves": {name: curve(rows[name]) for name in losses},
    }
    write_file(folder / "scaling-law.json", dump_json(result).encode())
    draw(n, list(losses.values()), law, folder / "scaling-law.png")
    for name, model in result["models"].items():
        say(f"{name:<8}{model['parameters']:>12,}  loss {model['loss']:.4f}, {model['residual']:+.4f} from the law")
    return result


@dataclass(frozen=True, slots=True)
class Law:
    """L(N) = floor + factor / N^exponent."""

    floor: float
    factor: float
    exponent: float

    def __call__(self, n: float) -> float:
        """The loss of a model of n parameters."""
        return self.floor + self.factor / n**self.exponent


def fit(parameters: list[int], losses: list[float]) -> Law:
    """The law of least squares, in the logarithm of what is above the floor.

    Args:
        parameters: Of each model, beside the embeddings.
        losses: Of each model.
    """
    x, best, law = np.log(parameters), math.inf, None
    for floor in np.linspace(0, min(losses), FLOORS, endpoint=False):
        y = np.log(np.array(losses) - floor)
        slope, start = np.polyfit(x, y, 1)
        found = Law(float(floor), math.exp(start), -float(slope))
        error = sum((found(n) - loss) ** 2 for n, loss in zip(parameters, losses, strict=True))
        if error < best:
            best, law = error, found
    assert law is not None
    return law


def draw(parameters: list[int], losses: list[float], law: Law, path: Path) -> None:
    """The losses, the line through them, and below it what it leaves."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 6), dpi=120, layout="constrained")
    top, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    line = np.geomspace(min(parameters) / 1.3, max(parameters) * 1.3, 100)
    top.plot(line, [law(n) for n in line], color="#8fb8de")
    top.plot(parameters, losses, "o", color="#0b4f8a")
    top.set_ylabel("validation loss (nats per token)")
    top.set_title(f"L = {law.floor:.3f} + {law.factor:.3g} / N^{law.exponent:.3f}")
    below.axhline(0, color="#8fb8de")
    below.plot(parameters, [loss - law(n) for n, loss in zip(parameters, losses, strict=True)], "o", color="#0b4f8a")
    below.set_ylabel("residual")
    below.set_xlabel("parameters beside the embeddings")
    below.set_xscale("log")
    figure.savefig(path)


def _sized(options: Options, folder: Path, name: str) -> TrainConfig:
    recipe = RECIPES[options.preset]
    if options.text:
        shards = (options.text / INDEX).is_file()
        recipe = replace(recipe, data=replace(recipe.data, source="shards" if shards else "text", path=options.text))
    config = sized(bare(recipe, folder, device=options.device, eval_tokens=options.eval_tokens, text=None), name)
    narrower = min(1.0, recipe.model.n_embd / config.model.n_embd)
    config = changed(
        config,
        {
            "name": name,
            "max_steps": options.steps or recipe.max_steps,
            "optim.lr": recipe.optim.lr * narrower**LR_EXPONENT,
        },
    )
    return replace(config, eval=replace(config.eval, every=max(1, config.max_steps // 10)))


def _parameters(config: TrainConfig) -> int:
    table = parameter_table(config.model)
    looked_up = "token embedding", "n-gram embedding", "position embedding"
    return sum(table.values()) - sum(table[part] for part in looked_up) - table["head"]
