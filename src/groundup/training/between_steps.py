"""What a run does between its steps, when, and in which order: read the list in `callbacks_of` from top to bottom.

After a step its numbers are logged, then the model is evaluated (which decides whether it is the best so far), speaks,
answers questions, and is saved: whatever comes before the save is in the record when the checkpoint claims it.
"""

from collections.abc import Sequence
from functools import partial

from groundup.config.train import TrainConfig
from groundup.files.layout import GROWTH, PROFILE
from groundup.loop.callbacks import CompareWeights, Evaluate, Every, HellaSwag, Sample, TimeLimit
from groundup.loop.log_metrics import LogMetrics
from groundup.loop.profile import Profile
from groundup.loop.save import KeepGrowth, SaveCheckpoints
from groundup.loop.trainer import Callback
from groundup.planner.flops import flops_per_token
from groundup.records.metrics import Logger
from groundup.runtime.measure import gemm_rate, known_peak_flops
from groundup.terminal.display import Display
from groundup.training.build import Run
from groundup.training.snapshot import capture


def callbacks_of(
    run: Run, config: TrainConfig, *, log: Logger, display: Display, prompt: str, resumed: bool, anew: bool = False
) -> Sequence[Callback]:
    """The callbacks of a run, in order.

    Args:
        run: Its built parts.
        config: The run.
        log: Where numbers go.
        display: What the person sees.
        prompt: What samples continue.
        resumed: Whether the run begins at a checkpoint.
        anew: Whether its losses were measured on another text than they will be.
    """
    trainer, ask = run.trainer, config.eval
    from_start = config.init_from is not None
    callbacks: list[Callback] = []
    if config.profile and trainer.world.is_main:  # first, so that its window holds nothing but steps
        callbacks.append(Profile(folder=config.run_dir / PROFILE, say=display.say))

    if config.max_hours:
        callbacks.append(TimeLimit(hours=config.max_hours))

    when = Every(config.log_every, first=1, last=True)
    callbacks.append(_log_metrics(run, config, when, log, display))

    when = Every(ask.every, last=True)
    measure = partial(run.measure, trainer.loss_module)
    callbacks.append(Evaluate(when=when, measure=measure, from_start=from_start, log=log, display=display, anew=anew))

    when = Every(ask.sample_every)  # not after the last step: the run ends with a longer sample
    callbacks.append(_sample(run, config, when, prompt, log, display))

    if ask.hellaswag_every:
        when = Every(ask.hellaswag_every, last=True)
        callbacks.append(HellaSwag(when=when, examples=run.hellaswag, log=log, display=display))
    if trainer.world.size > 1:
        callbacks.append(CompareWeights(when=Every(config.runtime.check_replicas_every)))

    if config.checkpoint.growth:
        callbacks.append(KeepGrowth(folder=config.run_dir / GROWTH, tokenizer=run.tokenizer, say=display.say))

    when = Every(config.checkpoint.every)  # and at every new best, and where the session ends
    callbacks.append(
        SaveCheckpoints(
            when=when,
            store=run.store,
            capture=lambda trainer: capture(trainer, run.batches, run.resolved, run.tokenizer),
            from_start=from_start and not resumed,
            anew=anew,
            background=run.resolved.background,
            say=display.say,
        )
    )
    return callbacks


def _log_metrics(run: Run, config: TrainConfig, when: Every, log: Logger, display: Display) -> LogMetrics:
    trainer, shape = run.trainer, run.trainer.model.config
    size, device, precision = trainer.world.size, trainer.device, trainer.precision.name
    known = known_peak_flops(device, precision)
    measures = trainer.world.is_main and not known  # the rank that logs
    return LogMetrics(
        when=when,
        log=log,
        display=display,
        lr=config.optim.lr,
        flops_per_token=flops_per_token(shape, shape.block_size),
        peak_flops=size * known if known else None,
        measure_peak=(lambda: size * gemm_rate(device, precision)) if measures else None,
    )


def _sample(run: Run, config: TrainConfig, when: Every, prompt: str, log: Logger, display: Display) -> Sample:
    return Sample(
        when=when,
        tokenizer=run.tokenizer,
        prompt=prompt,
        max_new_tokens=config.eval.sample_tokens,
        seed=config.seed,
        log=log,
        display=display,
    )
