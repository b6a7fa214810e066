"""The life of a run: its folder, its lock, its start, its end.

A run folder holds config.json (what was asked), run.json (what it became, on which machine), metrics.jsonl,
checkpoints/, model/ (the best weights, portable), loss.png and report.html.
"""

import contextlib
import datetime
import shlex
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from groundup.checkpoint.state import Checkpoint, CheckpointStore
from groundup.config.errors import UserError
from groundup.config.io import dump_json, load_json, read_json, to_dict
from groundup.config.printable import counted
from groundup.config.train import TrainConfig
from groundup.distributed.ranks import World, job, joined, launcher, resolve_parallel, restarted
from groundup.distributed.signals import StopRequest
from groundup.files.atomic import write_file
from groundup.files.layout import CONFIG, METRICS, MODEL, RUN
from groundup.model.bigram import fit_bigram
from groundup.model.loss import LossModule
from groundup.planner.params import count_parameters, shape_in_words
from groundup.records.measured import known_text, val_text
from groundup.records.metrics import STOPPED, Logger, MetricsLog, NoLog
from groundup.records.report import RunFacts, write_report
from groundup.runtime.device import pick_device
from groundup.runtime.facts import machine_facts
from groundup.terminal.display import Display, quantity, say
from groundup.terminal.ended import Ended
from groundup.terminal.working import Working
from groundup.training.between_steps import callbacks_of
from groundup.training.build import Run, build_run
from groundup.training.finish import finish
from groundup.training.loggers import open_loggers, require_extras
from groundup.training.run_folder import fresh_folder, own_folder

ANSWER = "groundup: stopping after this step, then saving; Ctrl-C again ends at once and saves nothing"
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
        if others := world.ranks_that_differ(dump_json(to_dict(config))):
            raise UserError(f"rank {', '.join(map(str, others))} was started with other settings than rank 0")
        with own_folder(config, world) as store:
            with Working("looking for a checkpoint", console) as working:
                checkpoint = _start(config, store, world, console, resume=resume)
                run = build_run(
                    config,
                    world=world,
                    parallel=parallel,
                    store=store,
                    resume_from=checkpoint,
                    allow_data_change=allow_data_change,
                    working=working,
                    stop=StopRequest(ANSWER if world.is_main else ""),
                )
            return _train(run, config, checkpoint, launcher() + command, console)


def _start(
    config: TrainConfig, store: CheckpointStore, world: World, console: Console, *, resume: bool
) -> Checkpoint | None:
    """Where the run begins: at a checkpoint, or at its first step. Rank 0 decides."""
    checkpoint = None
    if world.is_main:
        again = not resume and _is_same_job(config)
        if again:
            say(console, "torchrun started this job again")
        if resume or (again and store.paths()):
            checkpoint = _newest_checkpoint(config.run_dir, store, console)
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
        facts = load_json(config.run_dir / RUN)
        same = facts["job"] == job() is not None and load_json(config.run_dir / CONFIG) == to_dict(config)
    except (UserError, KeyError, TypeError):
        return False
    # Without --rdzv-id every job is called "none"; and a job id may be used again for a run that is over.
    fresh_name = job() != "none" and not (config.run_dir / MODEL).exists()
    return same and (restarted() or fresh_name)


def _newest_checkpoint(run_dir: Path, store: CheckpointStore, console: Console) -> Checkpoint:
    """The newest checkpoint that is whole.

    Raises:
        UserError: There is none.
    """
    checkpoint = store.latest_verified(partial(say, console))
    if checkpoint is None:
        raise UserError(f"{run_dir} has no usable checkpoint; start it again without --resume")
    return checkpoint


def _train(run: Run, config: TrainConfig, checkpoint: Checkpoint | None, command: str, console: Console) -> int:
    trainer, model = run.trainer, run.trainer.model
    parameters = count_parameters(model.config)
    say(console, _start_lines(run, config, parameters=parameters))
    if checkpoint:
        say(console, f"resumed at step {trainer.state.step} from {checkpoint.path}")
        read_json(config.run_dir / RUN, RunFacts, more=True)
        # Rank 0 writes it again, after all have read it.
        saved = trainer.world.broadcast(load_json(config.run_dir / RUN))
        facts = {"parameters": parameters, "bigram_loss": None} | saved
    else:
        with Working("counting pairs for the bigram", console) as working:
            bigram_loss = _bigram_loss(run, working)
        facts = {
            **_facts(run, command),
            "parameters": parameters,
            "bigram_loss": bigram_loss,
            "config": to_dict(config),
        }
    anew = _follow_text(run, config, facts, console)
    resumed = checkpoint is not None
    if not trainer.world.is_main:
        return _fit(run, config, facts, NoLog(), console, resumed=resumed, anew=anew)
    # Not before everything is built and measured: a run that cannot start leaves the earlier one where it is.
    fresh = contextlib.nullcontext() if checkpoint else fresh_folder(config.run_dir, partial(say, console))
    with fresh:
        write_file(config.run_dir / CONFIG, dump_json(to_dict(config)).encode())
        write_file(config.run_dir / RUN, dump_json(facts).encode())
        record = MetricsLog(config.run_dir / METRICS, step=trainer.state.step, say=partial(say, console))
        with Working("opening the logs", console):  # a service that is away answers late
            log = open_loggers(
                config.log, config.run_dir, record, step=trainer.state.step, facts=facts, say=partial(say, console)
            )
    with log:
        return _fit(run, config, facts, log, console, resumed=resumed, anew=anew)


def _follow_text(run: Run, config: TrainConfig, facts: dict[str, Any], console: Console) -> bool:
    """Let state and facts speak of the text of validation that there is; True where a resumed run had another."""
    split = run.dataset.split("val")
    text = val_text(split.fingerprint, split.n_tokens, config.eval.max_tokens)
    before = known_text(facts, split.n_tokens)
    if before not in ("", text):
        with Working("counting pairs for the bigram", console) as working:
            facts["bigram_loss"] = _bigram_loss(run, working)
    facts |= {"data_fingerprint": split.fingerprint, "val_text": text}
    changed = run.trainer.state.measure_on(text, before=before)
    if changed:
        say(console, "validation reads another text than before: the best loss is forgotten, and measured anew")
    return changed


def _fit(
    run: Run, config: TrainConfig, facts: dict[str, Any], log: Logger, console: Console, *, resumed: bool, anew: bool
) -> int:
    trainer, stop = run.trainer, run.trainer.stop
    prompt = opening(run)
    with Display(max_steps=config.max_steps, console=console) as display:
        trainer.callbacks = callbacks_of(
            run, config, log=log, display=display, prompt=prompt, resumed=resumed, anew=anew
        )
        # Until here signals end the program at once: there is nothing to save yet.
        try:
            with stop, run.store:
                trainer.fit()
                if trainer.world.is_main:
                    run.store.refuse_gone()
        except (KeyboardInterrupt, Ended):
            saved = run.store.paths()
            kept = f"{saved[-1].name} is the last checkpoint: {_how_to_resume(config)}" if saved else "nothing is saved"
            say(console, f"ended after step {trainer.state.step}, which is not saved; {run.store.gone() or kept}")
            raise
    if trainer.state.step < config.max_steps:
        log.write(step=trainer.state.step, event=STOPPED)
        why = "" if stop.exit_code else f" (--max-hours {config.max_hours:g})"
        say(
            console,
            f"stopped at step {trainer.state.step} of {config.max_steps}{why}, saved;"
            f" continue with: {_how_to_resume(config)}\n"
            f"what it is like so far: groundup report {shlex.quote(str(config.run_dir))}",
        )
        if trainer.world.is_main and stop.exit_code == 0:
            write_report(config.run_dir)
        return stop.exit_code
    if trainer.world.is_main:
        finish(run, config, facts, log=log, prompt=prompt, console=console)
    return 0


def _how_to_resume(config: TrainConfig) -> str:
    return f"{launcher()}groundup train --resume {shlex.quote(str(config.run_dir))}"


def _start_lines(run: Run, config: TrainConfig, *, parameters: int) -> str:
    """What is about to happen, in two lines."""
    shape, resolved, tokens = run.trainer.model.config, run.resolved, run.dataset.split("train").n_tokens
    shared = f", {resolved.processes} processes ({resolved.parallel})" if resolved.processes > 1 else ""
    begun = ""
    if config.init_from is not None:
        learning = sum(p.numel() for p in run.trainer.model.parameters() if p.requires_grad)
        begun = f"\nweights of {config.init_from}; {quantity(learning)} of {quantity(parameters)} parameters learn"
    return (
        f"model: {shape_in_words(shape)}, {shape.vocab_size} symbols: {quantity(parameters)} parameters\n"
        f"run: {counted(config.max_steps, 'step')} of {config.tokens_per_step:,} tokens,"
        f" {config.max_steps * config.tokens_per_step / tokens:.2g} times through {quantity(tokens)} tokens,"
        f" on {resolved.device} in {resolved.precision}{', compiled' if resolved.compile == 'on' else ''}{shared}"
        f"{begun}"
    )


def _facts(run: Run, command: str) -> dict[str, Any]:
    """What run.json says of how a run came to be."""
    facts = machine_facts(run.trainer.device)
    return {
        "groundup": facts.pop("groundup"),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command,
        "job": job(),
        "machine": facts,
        "resolved": run.resolved.to_dict(),
    }


def _bigram_loss(run: Run, working: Working) -> float | None:
    """Validation loss of the bigram baseline, fitted by counting; None where its table would be too large."""
    if run.tokenizer.vocab_size > BIGRAM_LIMIT:
        return None
    bigram = fit_bigram(run.dataset.split("train").read_all(), run.tokenizer.vocab_size)
    return run.measure(LossModule(bigram.to(run.trainer.device)), progress=working.share).loss


def opening(run: Run) -> str:
    """What this run's samples go on from: a speech's beginning, a document's, a line's, or the validation text's."""
    index = run.dataset.index
    plays = "shakespeare" in index.source
    if not plays and sum(info.n_documents for info in index.shards) > 1:
        return ""
    for prompt in ("ROMEO:\n", "\n") if plays else ("\n",):
        try:
            run.tokenizer.encode(prompt)
        except UserError:
            continue
        return prompt
    return run.tokenizer.decode(run.dataset.split("val").read(0, 0, 1))
