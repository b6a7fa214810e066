"""The life of a run: its folder, its lock, its start, its end.

A run folder holds config.json (what was asked), run.json (what it became, on which machine), metrics.jsonl,
checkpoints/, model/ (the best weights, portable), loss.png and report.html.
"""

import contextlib
import datetime
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from groundup.checkpoint.model_folder import save_model
from groundup.checkpoint.state import Checkpoint, CheckpointStore
from groundup.config.errors import UsageError, UserError
from groundup.config.io import dump_json, load_json, to_dict
from groundup.config.presets import RECIPES
from groundup.config.train import TrainConfig
from groundup.distributed.ranks import World, job, joined, launcher, resolve_parallel, restarted
from groundup.files.atomic import make_folder, write_file
from groundup.files.lock import RunLock
from groundup.generation.text import TextGenerator
from groundup.model.bigram import fit_bigram
from groundup.model.build import build_model
from groundup.model.loss import LossModule
from groundup.planner.params import count_parameters
from groundup.records.display import Display, clock
from groundup.records.metrics import METRICS_FILE, STOPPED, MetricsLog, read_metrics
from groundup.records.report import time_line, write_report
from groundup.runtime.device import pick_device
from groundup.training.build import Run, build_callbacks, build_run
from groundup.training.describe import machine, print_start
from groundup.training.earlier import set_aside
from groundup.training.loggers import Logger, Silence, open_loggers, require_extras
from groundup.training.signals import StopRequest

BIGRAM_LIMIT = 8192
"""Above this many ids the bigram's table outgrows the model it is meant to be a baseline for."""


def train(config: TrainConfig, *, resume: bool, command: str, console: Console, allow_data_change: bool = False) -> int:
    """Train a model from its first step or from its last checkpoint to the end.

    Args:
        config: The run.
        resume: Begin at the last checkpoint.
        command: What run.json says was typed.
        console: Where to print.
        allow_data_change: Resume although the data is not what the run began with.

    Returns:
        0, or 130 / 143 when a signal stopped the run (whose state is saved).

    Raises:
        UserError: The run cannot start, a process is lost, or the loss is no longer finite.
        UsageError: It is not started as runtime.parallel needs, or its processes cannot share a step.
    """
    require_extras(config.log)
    parallel = resolve_parallel(config.runtime.parallel)
    with joined(pick_device(config.runtime.device), timeout=config.runtime.timeout) as world:
        if not world.is_main:
            console = Console(quiet=True, force_terminal=False)
        if others := world.require_same(dump_json(to_dict(config))):
            raise UserError(f"rank {', '.join(map(str, others))} was started with other settings than rank 0")
        with _own_folder(config, world) as store:
            checkpoint = _start(config, store, world, console, resume=resume)
            run = build_run(
                config,
                world=world,
                parallel=parallel,
                resume_from=checkpoint,
                allow_data_change=allow_data_change,
                console=console,
                stop=StopRequest(),
            )
            return _train(run, config, checkpoint, launcher() + command, console)


@contextlib.contextmanager
def _own_folder(config: TrainConfig, world: World) -> Iterator[CheckpointStore]:
    """The checkpoints of a run folder, for as long as rank 0 keeps all other runs out of it."""
    store = CheckpointStore(config.run_dir / "checkpoints", keep_last=config.checkpoint.keep_last)
    if not world.is_main:
        yield store
        return
    config.out_dir.mkdir(parents=True, exist_ok=True)
    with RunLock(config.run_dir):
        yield store


def _start(
    config: TrainConfig, store: CheckpointStore, world: World, console: Console, *, resume: bool
) -> Checkpoint | None:
    """Where the run begins: at a checkpoint, or at its first step. Rank 0 decides."""
    checkpoint = None
    if world.is_main:
        again = not resume and _is_same_job(config)
        if again:
            console.print("torchrun started this job again", highlight=False)
        if resume or (again and store.paths()):
            checkpoint = _newest_checkpoint(config.run_dir, console)
        world.refuse_crash_loop(checkpoint.state["train"]["step"] if checkpoint else 0)
    path = world.broadcast(str(checkpoint.path) if checkpoint else None)
    if world.is_main or path is None:
        return checkpoint
    if not Path(path).is_dir():
        raise UserError(f"rank {world.rank} does not see {path}: all machines must share the disk of out_dir")
    return store.load(Path(path))


def _is_same_job(config: TrainConfig) -> bool:
    """Whether the run in the folder was begun by the job that this process belongs to.

    Then torchrun or a scheduler has started the job again, and the run goes on where it would have been set aside.
    """
    try:
        facts = load_json(config.run_dir / "run.json")
        same = facts["job"] == job() is not None and load_json(config.run_dir / "config.json") == to_dict(config)
    except (UserError, KeyError, TypeError):
        return False
    # Without --rdzv-id every job is called "none"; and a job id may be used again for a run that is over.
    fresh_name = job() != "none" and not (config.run_dir / "model").exists()
    return same and (restarted() or fresh_name)


def _newest_checkpoint(run_dir: Path, console: Console) -> Checkpoint:
    """The newest checkpoint that is whole.

    Raises:
        UserError: There is none.
    """
    found = CheckpointStore(run_dir / "checkpoints").latest_verified()
    for note in found.notes:
        console.print(note, highlight=False)
    if found.checkpoint is None:
        raise UserError(f"{run_dir} has no usable checkpoint; start it again without --resume")
    return found.checkpoint


def _train(run: Run, config: TrainConfig, checkpoint: Checkpoint | None, command: str, console: Console) -> int:
    trainer, model = run.trainer, run.trainer.model
    split = run.dataset.split("train")
    parameters = count_parameters(model.config)
    print_start(config, parameters=parameters, resolved=run.resolved, tokens=split.n_tokens, console=console)
    if checkpoint:
        if trainer.state.step > config.max_steps:
            raise UsageError(f"{config.run_dir} is at step {trainer.state.step}, beyond max_steps {config.max_steps}")
        console.print(f"resumed at step {trainer.state.step} from {checkpoint.path}", highlight=False)
        facts = load_json(config.run_dir / "run.json")
    else:
        facts = {
            **machine_facts(run, command),
            "parameters": parameters,
            "bigram_loss": _bigram_loss(run),
            "config": to_dict(config),
        }
    if not trainer.world.is_main:
        return _fit(run, config, facts, Silence(), console)
    if not checkpoint:
        # Not before everything is built and measured: a run that cannot start leaves the earlier one where it is.
        if moved := set_aside(config.run_dir):
            console.print(f"an earlier run was here; it is in {moved} now", highlight=False)
        make_folder(config.run_dir)
    write_file(config.run_dir / "config.json", dump_json(to_dict(config)).encode())
    write_file(config.run_dir / "run.json", dump_json(facts).encode())

    record = MetricsLog(config.run_dir / METRICS_FILE, step=trainer.state.step, say=console.print)
    with open_loggers(
        config.log, config.run_dir, record, step=trainer.state.step, facts=facts, say=console.print
    ) as log:
        return _fit(run, config, facts, log, console)


def _fit(run: Run, config: TrainConfig, facts: dict[str, Any], log: Logger, console: Console) -> int:
    trainer, stop = run.trainer, run.trainer.stop
    prompt = opening(run)
    with Display(max_steps=config.max_steps, console=console) as display:
        trainer.callbacks = build_callbacks(run, config, log=log, display=display, prompt=prompt)
        # Until here Ctrl-C ends the program at once: there is nothing to save yet.
        with stop, run.store:
            trainer.fit()
    if trainer.state.step < config.max_steps:
        log.write(step=trainer.state.step, event=STOPPED)
        console.print(
            f"stopped at step {trainer.state.step} of {config.max_steps}, saved;"
            f" continue with: {launcher()}groundup train --resume {config.run_dir}",
            highlight=False,
        )
        return stop.exit_code
    if trainer.world.is_main:
        _finish(run, config, facts, log, prompt, console)
    return 0


def machine_facts(run: Run, command: str) -> dict[str, Any]:
    """What run.json says of how a run came to be."""
    facts = machine(run.trainer.device)
    return {
        "groundup": facts.pop("groundup"),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command,
        "job": job(),
        "machine": facts,
        "resolved": run.resolved,
        "data_fingerprint": run.dataset.index.fingerprint,
    }


def _bigram_loss(run: Run) -> float | None:
    """Validation loss of the bigram baseline, fitted by counting; None where its table would be too large."""
    if run.tokenizer.vocab_size > BIGRAM_LIMIT:
        return None
    bigram = fit_bigram(run.dataset.split("train").read_all(), run.tokenizer.vocab_size)
    return run.measure(LossModule(bigram.to(run.trainer.device))).loss


def opening(run: Run) -> str:
    """A prompt this tokenizer can express: the opening of a speech, or the first words of the validation text."""
    for prompt in ("ROMEO:\n", "\n") if "shakespeare" in run.dataset.index.source else ("\n",):
        try:
            run.tokenizer.encode(prompt)
        except UserError:
            continue
        return prompt
    return run.tokenizer.decode(run.dataset.split("val").read(0, 0, 1))


def _finish(run: Run, config: TrainConfig, facts: dict[str, Any], log: Logger, prompt: str, console: Console) -> None:
    """The end of a whole run: best weights to model/, the table of losses, a scene, the report, what to do next."""
    state, run_dir = run.trainer.state, config.run_dir
    model = build_model(run.trainer.model.config).to(run.trainer.device)
    model.load_state_dict(run.store.load_best().model)
    info = {"step": state.best_step, "val_loss": state.best_loss, "data": config.data.source}
    save_model(run_dir / "model", model, run.tokenizer, info)

    part = f"{config.eval.max_tokens:,} tokens of the split" if config.eval.max_tokens else "the whole split"
    table = Table(title=f"validation loss, nats per token ({part})", title_justify="left")
    table.add_column("model")
    table.add_column("parameters", justify="right")
    table.add_column("loss", justify="right")
    if facts["bigram_loss"] is not None:
        table.add_row("bigram", f"{run.tokenizer.vocab_size**2:,}", f"{facts['bigram_loss']:.4f}")
    table.add_row(f"GPT, step {state.best_step}", f"{facts['parameters']:,}", f"{state.best_loss:.4f}")
    console.print(table)

    scene = TextGenerator(model, run.tokenizer).generate(prompt, max_new_tokens=400, seed=config.seed)[0]
    log.write(step=state.step, sample=prompt + scene)
    console.print(prompt + scene, markup=False, highlight=False, style="cyan")
    write_report(run_dir)
    console.print(
        f"\ntrained {state.step} steps in {clock(state.seconds)}\n"
        f"{time_line(read_metrics(run_dir / METRICS_FILE)) or ''}\n\nwhat to try next:\n{_next_steps(config, prompt)}",
        markup=False,
        highlight=False,
    )


def _next_steps(config: TrainConfig, prompt: str) -> str:
    """Commands that fit this run, to be copied."""
    run_dir = shlex.quote(str(config.run_dir))
    # Generation begins at a line break unless told otherwise, which not every tokenizer knows.
    speaker = '"JULIET:"' if prompt.startswith("ROMEO") else shlex.quote(prompt)
    begin = "" if prompt == "\n" else f"--prompt {speaker} "
    if config == RECIPES.get(config.name):
        more = f"{config.name} --model.n-layer {config.model.n_layer + 2}"
    else:
        more = f"--config {shlex.quote(str(config.run_dir / 'config.json'))} --name longer"
    return "\n".join(
        [
            f"  open {config.run_dir / 'report.html'} in a browser",
            f"  groundup generate {run_dir} {begin}--temperature 0.8 --stream",
            f"  groundup generate {run_dir} --interactive",
            f"  groundup runs list {shlex.quote(str(config.out_dir))}",
            f"  groundup train {more} --max-steps {2 * config.max_steps}",
            "  groundup doctor",
        ]
    )
