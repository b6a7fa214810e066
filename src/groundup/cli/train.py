"""groundup train PRESET | TEXT | --config FILE | --resume [DIR], then flags that change single values."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TextIO, cast

from groundup.checkpoint.folders import config_of, step_folders
from groundup.checkpoint.same_run import asked_of, refuse_changes, refuse_edited_since_start
from groundup.config.errors import UsageError, UserError
from groundup.config.io import read_json
from groundup.config.model import ModernConfig, as_kind
from groundup.config.presets import RECIPES
from groundup.config.train import TrainConfig
from groundup.files.layout import CHECKPOINTS, CONFIG, WEIGHTS, resolved
from groundup.records.models_here import check_model, missing_run, nothing_to_resume
from groundup.terminal.parse import parse
from groundup.terminal.waiting import before_torch, is_for_cpu
from groundup.terminal.words import split_equals, take_switch, take_value
from groundup.training import own_text

OWN_FLAGS = ("--config", "--resume", "--resume-or-start", "--dry-run", "--allow-data-change", "--model.kind")
"""What decides where the config comes from or which flags it has, and so cannot be one of them."""
OWN_HELP = """\
  --dry-run            show parameters, tokens, memory and FLOPs, and train nothing
  --model.kind KIND    gpt for GPT-2 as published, modern for GPT-2 with switches (--model.position rope)
  --resume-or-start    go on where the run has a checkpoint, else start it
  --allow-data-change  with --resume: go on although the data is not what the run began with"""


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """What the command line asked for."""

    config: TrainConfig
    resume: bool
    dry_run: bool
    allow_data_change: bool
    note: str = ""
    """What was chosen for a text that was named in place of a preset."""


def main(argv: Sequence[str]) -> int:
    """Train, or with --dry-run only show what would be trained."""
    if not argv or argv[0] in ("-h", "--help"):
        print(_usage())
        return 0
    request = read_request(list(argv))
    from rich.console import Console

    from groundup.terminal.display import say, speaks
    from groundup.terminal.output import PatientStream

    output = sys.stdout if request.dry_run else cast("TextIO", PatientStream(sys.stdout))
    console = Console(file=output, soft_wrap=True, markup=False, emoji=False, quiet=not speaks())
    if request.note:
        say(console, request.note)
    if request.dry_run:
        from groundup.cli.dry_run import print_plan

        if speaks():
            print_plan(request.config, resumed=request.resume)
        return 0
    from groundup.terminal.working import Working

    before_torch(request.config.runtime.device, fewer=not (request.resume or request.config.runtime.threads))
    if is_for_cpu(request.config.runtime.device):
        from groundup.kernels.library import compile_ahead

        compile_ahead()
    with Working("loading PyTorch", console):
        from groundup.training.run import train

    command, other_data = "groundup train " + shlex.join(argv), request.allow_data_change
    return train(request.config, resume=request.resume, allow_data_change=other_data, command=command, console=console)


def _usage() -> str:
    width = max(map(len, RECIPES)) + 2
    return "\n".join(
        [
            "usage: groundup train PRESET [flags]         start a run in runs/PRESET",
            "       groundup train TEXT [flags]           learn a file, folder or glob of text, or prepared shards",
            "       groundup train --config FILE [flags]  start a run from a saved config.json",
            "       groundup train --resume DIR [flags]   continue a run where it stopped",
            "",
            OWN_HELP,
            "",
            "presets:",
            *[f"  {name:<{width}}{_recipe_line(recipe)}" for name, recipe in RECIPES.items()],
            f"  {own_text.TEXT:<{width}}what suits the text that --data.path names, as groundup train TEXT has it",
            f"  {own_text.FINETUNE:<{width}}the same, from the weights of --init-from; see groundup finetune",
            "",
            "groundup train PRESET --help lists every flag with the preset's value.",
        ]
    )


def _recipe_line(recipe: TrainConfig) -> str:
    m = recipe.model
    return (
        f"{m.n_layer} layers, {m.n_embd} wide, context {m.block_size}, on {recipe.data.source},"
        f" {recipe.max_steps:,} steps"
    )


def read_request(words: list[str], also: Sequence[str] = ()) -> TrainRequest:
    """Turn the words after `groundup train` into a request; of another command, which also has flags of its own.

    Raises:
        UsageError: Unknown preset or flag, a bad value, or a change that a resumed run cannot take.
        UserError: A config file that cannot be read.
    """
    dry_run = take_switch(words, "--dry-run")
    allow_data_change = take_switch(words, "--allow-data-change")
    or_start = take_switch(words, "--resume-or-start")
    words = split_equals(words, "--config", "--resume", "--model.kind")
    config_file, kind = take_value(words, "--config"), take_value(words, "--model.kind")
    resume = "--resume" in words
    resume_dir = take_value(words, "--resume", optional=True)
    preset = own_text.take_named(words, first=config_file is not None or resume_dir is not None)
    if resume and preset is None and resume_dir is None:
        raise missing_run()
    named = [name for name in (preset, config_file, resume_dir) if name is not None]
    if len(named) != 1:
        raise UsageError("name one of: a preset, --config FILE, --resume DIR (see groundup train --help)")

    source = ["--config", config_file] if config_file else ["--resume", resume_dir]
    prog = own_text.meant(preset, words) if preset else "groundup train " + shlex.join(map(str, source))
    recipe = None
    if resume_dir is None:
        if preset is not None:
            recipe = own_text.recipe_of(
                preset, words, lambda base: _parse(words, prog, _with_kind(base, kind, words), also)
            )
        base = recipe or (find_preset(preset) if preset is not None else _read_config(Path(str(config_file))))
        if resume or (or_start and not {"-h", "--help"} & set(words)):
            start = _parse(words, prog, _with_kind(base, kind, words), also)
            resume = resume or bool(step_folders(start.run_dir / CHECKPOINTS))
        if resume:
            # Where the run lies may be said with flags; what it is was written down when it started.
            saved = _saved_config(start.run_dir)
            base = asked_of(saved, start, whole=config_file is not None) if recipe or config_file else saved
    else:
        base = saved = _saved_config(Path(resume_dir))
    config = _parse(words, prog, _with_kind(_with_init(base, words), kind, words), also)
    if resume:
        refuse_edited_since_start(saved)
        refuse_changes(saved, config)
    if allow_data_change and not resume:
        raise UsageError("--allow-data-change only means something with --resume")
    if config.init_from is not None and not resume:
        check_model(config.init_from)
        config_of(config.init_from)
    note = own_text.choices(config) if recipe and not resume else ""
    return TrainRequest(config, resume=resume, dry_run=dry_run, allow_data_change=allow_data_change, note=note)


def _parse(words: list[str], prog: str, base: TrainConfig, also: Sequence[str]) -> TrainConfig:
    """The config with its flags; a note says what else a person may have meant."""
    try:
        return parse(TrainConfig, words, prog=prog, default=base, also=(*OWN_FLAGS, *also))
    except SystemExit as stop:
        if {"-h", "--help"} & set(words) and not (stop.code or also):  # another command has told its own
            print(f"flags beside those of a config:\n{OWN_HELP}")
        raise
    except UsageError as error:
        if str(error).startswith("unrecognized options: --epochs"):
            raise UsageError(
                f"a run is counted in steps of {base.tokens_per_step:,} tokens, not in epochs: --max-steps N;"
                f" {own_text.passes(base, words)}"
            ) from None
        source = take_value(split_equals(list(words), "--data.source"), "--data.source", optional=True)
        if str(error).startswith("--data.source must be one of") and source:
            raise own_text.no_text(source, error) from None
        raise


def _with_init(base: TrainConfig, words: list[str]) -> TrainConfig:
    """With --init-from DIR, shape and tokenizer are that model's unless flags say otherwise."""
    path = take_value(split_equals(list(words), "--init-from"), "--init-from")
    if path is None or {"-h", "--help"} & set(words):
        return base
    try:
        found = config_of(Path(path))
    except UserError:  # the run will say it, after what is wrong with the flags
        return base
    if found is None:
        return base
    model, tokenizer = found
    model = replace(model, dropout=base.model.dropout)
    return replace(base, model=model, data=replace(base.data, tokenizer=str(tokenizer)))


def _with_kind(base: TrainConfig, kind: str | None, words: Sequence[str]) -> TrainConfig:
    """With --model.kind, a model of the same shape and of that kind, which decides what flags there are.

    Raises:
        UsageError: There is no such kind, or a model of this kind has not the switch that a flag turns.
    """
    if kind is not None:
        base = replace(base, model=as_kind(base.model, kind))
    switches = {field.name for field in fields(ModernConfig)} - {field.name for field in fields(base.model)}
    for flag in (word.split("=", 1)[0] for word in words if word.startswith("--model.")):
        name = flag.removeprefix("--model.").removeprefix("no-").replace("-", "_")
        if name in switches:
            raise UsageError(
                f"{flag} turns a switch that a model of kind {base.model.kind} has not; add --model.kind modern"
            )
    return base


def find_preset(name: str) -> TrainConfig:
    """The recipe of this name.

    Raises:
        UsageError: There is none; the message names the nearest.
    """
    if name in RECIPES:
        return RECIPES[name]
    raise own_text.unknown_preset(name)


def _read_config(path: Path) -> TrainConfig:
    """A config.json, or the one in a run folder."""
    return read_json(path / CONFIG if path.is_dir() else path, TrainConfig)


def _saved_config(run_dir: Path) -> TrainConfig:
    """The config of a run folder; the folder may have been moved since."""
    path = run_dir / CONFIG
    if (run_dir / WEIGHTS).is_file():
        raise UsageError(
            f"{run_dir} is a model, not a run; resume the run it is of,"
            f" or begin with --init-from {shlex.quote(str(run_dir))}"
        )
    if not path.is_file():
        raise nothing_to_resume(run_dir)
    saved = read_json(path, TrainConfig)
    absolute = resolved(run_dir)
    if resolved(saved.run_dir) == absolute:
        return saved
    out_dir = run_dir.parent if run_dir.name == absolute.name else absolute.parent  # "." and ".." name no folder
    return replace(saved, name=absolute.name, out_dir=out_dir)
