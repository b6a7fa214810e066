"""Which parts of a recipe help: variants of a preset, with several seeds, at equal tokens."""

import re
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from groundup.config.errors import UserError
from groundup.config.io import dump_json
from groundup.config.presets import RECIPES
from groundup.config.train import TrainConfig
from groundup.files.atomic import write_file
from groundup.prepare.corpus import open_corpus
from groundup.runtime.device import pick_device
from groundup.runtime.facts import machine_facts
from groundup.studies.options import AblationOptions as Options
from groundup.studies.runs import bare, best_loss, changed, curve, sized, spread, train_all
from groundup.studies.variants import SETS


def bench(options: Options, say: Callable[[str], None]) -> dict[str, Any]:
    """Train all variants.

    Args:
        options: What to train.
        say: Called with a line per run.

    Returns:
        For each variant its changes, its best validation losses by seed, their mean, and curves; best variant first.

    Raises:
        UserError: A run failed.
    """
    preset, variants = SETS[options.set]
    names = options.names
    device = pick_device(options.device)  # one that is not there is refused before anything is made
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.out or Path(temporary)
        base = _base(RECIPES[preset], options, folder)
        # Prepared once, before several runs ask for it.
        open_corpus(base.data, say=say, instead="--tiny-shakespeare")
        configs = {
            _folder(name, seed): _variant(base, variants[name], options, seed)
            for seed in range(1, options.seeds + 1)
            for name in names
        }
        rows = train_all(configs, at_once=options.at_once, seconds=options.seconds, say=say)
        steps = {name: config.max_steps for name, config in configs.items()}
        table = {name: {"changes": variants[name]} | _row(rows, steps, name, options.seeds) for name in names}
        if not any(row["losses"] for row in table.values()):
            raise UserError("no run came to its last step; give more --seconds, or fewer --steps")
        result = {
            "bench": "ablation",
            "set": options.set,
            "preset": preset,
            "steps": options.steps or RECIPES[preset].max_steps,
            "size": f"{base.model.n_layer}x{base.model.n_embd}",
            **machine_facts(device),
            "threads": torch.get_num_threads(),
            "variants": _sorted(table),
        }
        if options.out:
            write_file(options.out / "ablation.json", dump_json(result).encode())
    for name, row in result["variants"].items():
        say(f"{row['mean']:.4f} +- {row['spread'] / 2:.4f}  {name}")
    return result


def _base(recipe: TrainConfig, options: Options, folder: Path) -> TrainConfig:
    text = options.tiny_shakespeare
    config = bare(recipe, folder, device=options.device, eval_tokens=options.eval_tokens, text=text)
    config = sized(config, options.size) if options.size else config
    return changed(config, {"runtime.precision": options.precision})


def _variant(base: TrainConfig, changes: dict[str, Any], options: Options, seed: int) -> TrainConfig:
    """One run."""
    config = changed(base, changes | ({"max_steps": options.steps} if options.steps else {}))
    return replace(config, seed=seed, eval=replace(config.eval, every=max(1, config.max_steps // options.evaluations)))


def _row(rows: dict[str, list[dict[str, Any]]], steps: dict[str, int], name: str, seeds: int) -> dict[str, Any]:
    """What a variant has reached, seed by seed; a run that was cut short had fewer tokens and is left out."""
    folders = [_folder(name, seed) for seed in range(1, seeds + 1)]
    runs = [rows[folder] for folder in folders if any(row["step"] == steps[folder] for row in curve(rows[folder]))]
    losses = [loss for run in runs if (loss := best_loss(run)) is not None]
    return {"losses": losses, "curves": [curve(run) for run in runs]}


def _folder(name: str, seed: int) -> str:
    return f"{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')}-seed{seed}"


def _sorted(table: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    done = {name: row | spread(row["losses"]) for name, row in table.items() if row["losses"]}
    return dict(sorted(done.items(), key=lambda item: item[1]["mean"]))
