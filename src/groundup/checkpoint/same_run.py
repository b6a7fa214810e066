"""What may change between the sessions of one run: anything else would make it another run. Needs no PyTorch."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

from groundup.config.errors import UsageError, UserError
from groundup.config.io import differing_keys, from_dict, load_json
from groundup.config.train import TrainConfig
from groundup.files.layout import CONFIG, RUN, resolved

RESUMABLE = (
    "max_steps",
    "max_hours",
    "log_every",
    "log.",
    "profile",
    "eval.",
    "guard.",
    "checkpoint.",
    "data.path",
    "data.cache_dir",
    "runtime.micro_batch_size",
    "runtime.threads",
    "runtime.parallel",
    "runtime.timeout",
    "runtime.check_replicas_every",
)
"""What may change on resume."""
_PLACE = ("name", "out_dir")
"""Where the run lies, which is found anew."""


def asked_of(saved: TrainConfig, named: TrainConfig, *, whole: bool) -> TrainConfig:
    """What is asked of a run that has begun where it is named by the words that would start it, and not by a preset.

    Args:
        saved: The run.
        named: What would be started.
        whole: All of that is asked, as a config file is; else text and model alone, for what suits a text may be
            another in another version.
    """
    if whole:
        most = max(named.max_steps, saved.max_steps)  # a run that was made longer since stays so
        return replace(named, name=saved.name, out_dir=saved.out_dir, max_steps=most)
    if named.data.path is not None:  # whether it is the same text, its contents tell
        data = replace(saved.data, source=named.data.source, path=named.data.path)
        saved = replace(saved, data=data)
    same = saved.init_from and named.init_from and resolved(saved.init_from) == resolved(named.init_from)
    return saved if same or named.init_from is None else replace(saved, init_from=named.init_from)


def refuse_changes(saved: TrainConfig, asked: TrainConfig) -> None:
    """See that flags leave a resumed run what it is.

    Raises:
        UsageError: They do not; the message names what cannot change.
    """
    if changed := _changed(saved, asked):
        raise UsageError(f"a resumed run keeps its settings: {', '.join(changed)} cannot change; {_instead(saved)}")


def refuse_edited(saved: TrainConfig, began: TrainConfig, where: Path) -> None:
    """See that config.json still says what the run is.

    Args:
        saved: The run's config.json.
        began: What it is, as another file has it.
        where: That file, or its folder.

    Raises:
        UsageError: They differ in what cannot change; the message has both values.
    """
    if changed := [key for key in _changed(began, saved) if key not in _PLACE]:
        here = saved.run_dir / CONFIG
        both = ", ".join(
            f"{key} is {_value(saved, key)} in {here} and {_value(began, key)} in {where}" for key in changed
        )
        raise UsageError(f"a resumed run keeps its settings: {both}; set it back, or {_instead(saved)}")


def refuse_edited_since_start(saved: TrainConfig) -> None:
    """`refuse_edited`, with the settings that run.json has from the start of the run.

    Raises:
        UsageError: As `refuse_edited`.
    """
    path = saved.run_dir / RUN
    try:
        began = from_dict(TrainConfig, load_json(path)["config"])
    except (UserError, KeyError, TypeError):
        return  # lost or damaged, which the run will say
    refuse_edited(saved, began, path)


def _changed(before: TrainConfig, after: TrainConfig) -> list[str]:
    return [key for key in differing_keys(before, after) if not key.startswith(RESUMABLE)]


def _instead(saved: TrainConfig) -> str:
    return f"start a new run with --config {shlex.quote(str(saved.run_dir / CONFIG))} --name NEW"


def _value(config: Any, key: str) -> Any:
    for name in key.split("."):
        config = getattr(config, name)
    return config
