"""From a config to objects: the one place where the parts of a run meet.

Each part is given the few values it needs. Everything `auto` is
resolved here, once, and the resolved values are what is logged, saved and used again when the run is resumed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from groundup.checkpoint.init_from import init_from
from groundup.checkpoint.same_run import refuse_edited
from groundup.checkpoint.state import Checkpoint, CheckpointStore
from groundup.config.errors import UsageError, UserError
from groundup.config.model import GPTConfig, ModernConfig, TransformerConfig, with_vocabulary
from groundup.config.train import TrainConfig
from groundup.data.dataset import TokenDataset
from groundup.data.loader import TrainBatches, eval_batches
from groundup.distributed.ranks import World
from groundup.distributed.signals import StopRequest
from groundup.evaluation.benchmarks import find_published
from groundup.evaluation.examples import ChoiceExample, read_choices
from groundup.evaluation.loss import LossResult, evaluate_loss
from groundup.loop import retry
from groundup.loop.guard import Guard
from groundup.loop.state import TrainState
from groundup.loop.trainer import Trainer
from groundup.model.build import Transformer, build_model
from groundup.model.init import init_weights
from groundup.model.lora import add_lora
from groundup.optim.average import WeightAverage
from groundup.optim.build import Schedule, build_optimizers
from groundup.parts.swap import use_cpu_parts, use_narrow_stream
from groundup.planner.params import parameter_table
from groundup.prepare.corpus import open_corpus, refuse_moved
from groundup.runtime.facts import code_fingerprint
from groundup.runtime.memory import free_memory
from groundup.runtime.seed import seed_rank
from groundup.terminal.working import Working
from groundup.tokenizer.base import Tokenizer
from groundup.tokenizer.io import load_tokenizer
from groundup.training.loss_module import build_loss_module, fit_micro_batch
from groundup.training.setup import Resolved, Setup, SetupRequest, pick_setup
from groundup.training.snapshot import restore, settings_of


@dataclass(frozen=True, slots=True)
class Run:
    """The built parts of a run that its life cycle (`training.run`) needs."""

    trainer: Trainer
    dataset: TokenDataset
    tokenizer: Tokenizer
    batches: TrainBatches
    store: CheckpointStore
    resolved: Resolved
    measure: Callable[..., LossResult]
    """Loss of any model over the validation split, or (`most`) a part of it; `progress` gets the share done."""
    hellaswag: Sequence[ChoiceExample]
    """What to ask every eval.hellaswag_every steps."""


def build_run(
    config: TrainConfig,
    *,
    world: World,
    parallel: str,
    store: CheckpointStore,
    resume_from: Checkpoint | None,
    working: Working,
    stop: StopRequest,
    allow_data_change: bool = False,
) -> Run:
    """Build everything a run consists of, at its first step or where a checkpoint left it.

    Args:
        config: The run.
        world: The ranks that share it.
        parallel: How: none, ddp or fsdp.
        store: Its checkpoints.
        resume_from: Where to go on.
        working: Shows what is being done, and says what a person should know.
        stop: How a signal reaches the loop.
        allow_data_change: Resume although the data is not what the run began with.

    Raises:
        UserError: Data, tokenizer, model and checkpoint do not fit together, or the machine lacks what is asked of it.
    """
    saved = _saved(config, resume_from) if resume_from else None
    samples = config.samples_per_process(world.size)
    dataset = _open_data(config, world, resume_from, working)
    tokenizer = dataset.tokenizer()
    _refuse_different_inputs(world, data=dataset.index.fingerprint, tokenizer=tokenizer.fingerprint)
    shape = with_vocabulary(config.model, tokenizer.vocab_size)
    hellaswag = _hellaswag(config, world, tokenizer, working.say)
    working.doing("measuring this machine")
    request = SetupRequest(config=config, shape=shape, world=world, parallel=parallel, say=working.say, saved=saved)
    setup = pick_setup(request)
    seed_rank(config.seed, rank=world.rank)
    model = _new_model(shape, config, setup, tokenizer, resumed=resume_from is not None)
    setup = fit_micro_batch(model, setup, samples=samples)
    batches = _batches(dataset, config, setup, shape.block_size)  # first: too short a text is known at once
    mode = saved.compile if saved else config.runtime.compile
    loss_module, compiled = build_loss_module(
        model, setup, samples=samples, compile_mode=mode, max_steps=config.max_steps, working=working
    )
    trainer = _trainer(config, setup, model, loss_module, batches, stop)
    if resume_from:
        restore(trainer, batches, resume_from, tokenizer, allow_data_change=allow_data_change)
    return Run(
        trainer=trainer,
        dataset=dataset,
        tokenizer=tokenizer,
        batches=batches,
        store=store,
        resolved=_resolved(config, setup, shape, compiled),
        measure=partial(_val_loss, trainer=trainer, dataset=dataset, config=config),
        hellaswag=hellaswag,
    )


def _saved(config: TrainConfig, checkpoint: Checkpoint) -> Resolved:
    """What `auto` had become in a run that goes on, whose settings must be those of its checkpoint."""
    refuse_edited(config, settings_of(checkpoint, config), checkpoint.path)
    return Resolved.from_dict(checkpoint.state["resolved"])


def _open_data(config: TrainConfig, world: World, resumed: Checkpoint | None, working: Working) -> TokenDataset:
    """What the run learns from; one that goes on has a tokenizer of its own."""
    working.doing("opening the data")
    if resumed:
        refuse_moved(config.data, "say where it lies now with --data.path")
    with world.main_first("corpus"):
        return open_corpus(
            config.data,
            load_tokenizer(resumed.path) if resumed else None,
            say=working.say,
            block_size=config.model.block_size,
            learned=resumed.state["data"]["fingerprint"] if resumed else "",
        )


def _resolved(config: TrainConfig, setup: Setup, shape: TransformerConfig, compiled: str) -> Resolved:
    return Resolved(
        device=setup.device.type,
        precision=setup.precision.name,
        matmul=setup.matmul,
        parallel=setup.parallel,
        processes=setup.world.size,
        micro_batch_size=setup.micro_batch_size,
        threads=torch.get_num_threads(),
        compile=compiled,
        vocab_size=shape.vocab_size,
        background=_saves_in_background(config, setup),
        one_call=setup.one_call,
    )


def _refuse_different_inputs(world: World, **fingerprints: str) -> None:
    """Ranks that learn from other data, or by other code, would spoil a run without a word: gradients are averaged."""
    if world.size == 1:
        return
    for what, fingerprint in {**fingerprints, "code": code_fingerprint()}.items():
        if others := world.ranks_that_differ(fingerprint):
            raise UserError(
                f"rank {', '.join(map(str, others))} has other {what} than rank 0: all machines need the same versions"
                " of groundup, Python and PyTorch, and the same files in data.path and data.cache_dir"
            )


def _trainer(
    config: TrainConfig,
    setup: Setup,
    model: Transformer,
    loss_module: torch.nn.Module,
    batches: TrainBatches,
    stop: StopRequest,
) -> Trainer:
    """The loop before its first step; the optimizers see the parameters as FSDP has left them."""
    optim = replace(config.optim, beta2=config.optim.beta2_of(config.tokens_per_step))
    schedule = Schedule(optim, config.max_steps)
    return Trainer(
        model=model,
        loss_module=loss_module,
        optimizers=build_optimizers(model, optim, setup.device, setup.kernels),
        kernels=setup.kernels,
        batches=batches,
        lr_scale=schedule.lr_scale,
        set_muon=schedule.set_muon,
        average=WeightAverage(model, optim.average) if optim.average else None,
        replace_tokens=config.replace_tokens,
        precision=setup.precision,
        scaler=torch.amp.GradScaler(setup.device.type, enabled=setup.precision.needs_scaler),
        device=setup.device,
        max_steps=config.max_steps,
        grad_accum_steps=config.samples_per_process(setup.world.size) // setup.micro_batch_size,
        tokens_per_step=config.tokens_per_step,
        grad_clip=config.optim.grad_clip,
        guard=Guard(nonfinite=config.guard.nonfinite, spikes=config.guard.spikes, max_skips=config.guard.max_skips),
        gradients=retry.or_shrink if setup.shrinks_on_oom else retry.or_explain,
        state=TrainState(),
        stop=stop,
        world=setup.world,
    )


def refuse_beyond_memory(shape: TransformerConfig) -> None:
    """Plan before the first weight is made: a system whose memory ends kills processes without a word.

    Raises:
        UserError: The weights alone are more than the memory that is free.
    """
    parts, free = parameter_table(shape), free_memory(torch.device("cpu"))
    if 4 * (n := sum(parts.values())) > free:
        large = max(parts, key=parts.__getitem__)
        sizes = "model.ngram_rows" if large == "n-gram embedding" else "model.n_layer, model.n_embd or model.block_size"
        raise UserError(
            f"a model of {n:,} parameters takes {4 * n / 1e9:,.1f} GB for its weights alone, and {free / 1e9:,.1f} GB"
            f" of memory are free; take a smaller {sizes}"
        )


def _hellaswag(
    config: TrainConfig, world: World, tokenizer: Tokenizer, say: Callable[[str], None]
) -> Sequence[ChoiceExample]:
    if not config.eval.hellaswag_every:
        return []
    with world.main_first("hellaswag"):
        path = config.eval.hellaswag_path or find_published(
            "hellaswag", config.data.cache_dir, instead="--eval.hellaswag-path"
        )
    return read_choices(path, tokenizer, say=say)


def _saves_in_background(config: TrainConfig, setup: Setup) -> bool:
    """On a GPU, whose state is copied to this memory anyway; on a CPU copy and hashing take what training needs."""
    if setup.parallel == "fsdp":
        if config.checkpoint.background == "on":
            raise UsageError("checkpoint.background on does not go with fsdp, whose ranks save together; use off")
        return False
    return config.checkpoint.background == "on" or (
        config.checkpoint.background == "auto" and setup.device.type == "cuda"
    )


def _batches(dataset: TokenDataset, config: TrainConfig, setup: Setup, block_size: int) -> TrainBatches:
    return TrainBatches(
        dataset.split("train"),
        block_size=block_size,
        micro_batch_size=setup.micro_batch_size,
        seed=config.seed,
        rank=setup.world.rank,
        world_size=setup.world.size,
        pin_memory=setup.device.type == "cuda",
    )


def _new_model(
    shape: GPTConfig | ModernConfig,
    config: TrainConfig,
    setup: Setup,
    tokenizer: Tokenizer,
    *,
    resumed: bool,
) -> Transformer:
    """A model with random weights, or those that config.init_from names; a resumed run will bring its own."""
    refuse_beyond_memory(shape)
    model = build_model(shape)
    init_weights(model, seed=config.seed)
    if config.init_from is not None and not resumed:
        init_from(model, tokenizer, config.init_from)
    model.recompute = config.runtime.recompute
    if setup.device.type == "cpu":
        alone = setup.parallel == "none"  # DDP of one process has no sparse gradients either
        use_cpu_parts(model, setup.matmul, setup.kernels, alone=alone, one_call=setup.one_call)
    if setup.device.type == "cuda" and setup.precision.name == "bf16":  # whose range is that of float32
        use_narrow_stream(model)
    if config.lora.rank:
        add_lora(model, rank=config.lora.rank, alpha=config.lora.alpha, seed=config.seed)
    model.to(setup.device)
    return model


def _val_loss(
    module: torch.nn.Module,
    *,
    trainer: Trainer,
    dataset: TokenDataset,
    config: TrainConfig,
    most: int = 0,
    progress: Callable[[float], None] = lambda _: None,
) -> LossResult:
    split = dataset.split("val")
    most = min(filter(None, (most, config.eval.max_tokens)), default=0)
    batches = eval_batches(
        split,
        block_size=trainer.model.config.block_size,
        batch_size=2 * trainer.micro_batch_size,  # no gradients are kept: twice the training size fits
        max_tokens=most,
        rank=trainer.world.rank,
        world_size=trainer.world.size,
        progress=progress,
    )
    return evaluate_loss(
        module,
        batches,
        device=trainer.device,
        bytes_per_token=split.n_bytes / split.n_tokens,
        autocast=trainer.precision.autocast(),
        world=trainer.world,
    )
