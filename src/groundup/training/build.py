"""From a config to objects: the one place where the parts of a run meet.

Nothing below this file sees a `TrainConfig`: each part is given the few values it needs. Everything `auto` is
resolved here, once, and the resolved values are what is logged, saved and used again when the run is resumed.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from rich.console import Console

from groundup.checkpoint.state import Checkpoint as SavedCheckpoint
from groundup.checkpoint.state import CheckpointStore
from groundup.config.errors import UserError
from groundup.config.model import GPTConfig
from groundup.config.train import TrainConfig
from groundup.data.corpus import open_corpus
from groundup.data.dataset import TokenDataset
from groundup.data.loader import TrainBatches, eval_batches
from groundup.evaluation.loss import LossResult, evaluate_loss
from groundup.generation.text import TextGenerator
from groundup.model.build import build_model
from groundup.model.gpt import GPT
from groundup.model.init import init_weights
from groundup.model.loss import LossModule
from groundup.optim.build import build_optimizers
from groundup.optim.schedule import cosine_scale
from groundup.planner.flops import flops_per_token
from groundup.runtime.allocator import keep_freed_memory
from groundup.runtime.compile import maybe_compile
from groundup.runtime.device import pick_device
from groundup.runtime.measure import peak_flops
from groundup.runtime.precision import Precision, pick_precision
from groundup.tokenizer.base import Tokenizer
from groundup.training import callbacks
from groundup.training.display import Display
from groundup.training.init_from import init_from
from groundup.training.loggers import Logger
from groundup.training.signals import StopRequest
from groundup.training.snapshot import capture, restore
from groundup.training.state import TrainState
from groundup.training.trainer import Trainer


@dataclass(frozen=True, slots=True)
class Run:
    """The built parts of a run that its life cycle (`training.run`) needs."""

    trainer: Trainer
    dataset: TokenDataset
    tokenizer: Tokenizer
    generator: TextGenerator
    store: CheckpointStore
    resolved: dict[str, Any]
    measure: Callable[[torch.nn.Module], LossResult]
    """Loss of any model over the validation split."""


def build_run(
    config: TrainConfig,
    *,
    resume_from: SavedCheckpoint | None,
    console: Console,
    stop: StopRequest,
    allow_data_change: bool = False,
) -> Run:
    """Build everything a run consists of, at its first step or where a checkpoint left it.

    Raises:
        UserError: Data, tokenizer and model do not fit together, or the machine lacks what is asked of it.
    """
    saved = resume_from.state["resolved"] if resume_from else {}
    dataset = open_corpus(config.data)
    tokenizer = dataset.tokenizer()
    shape = resolve_model(config.model, tokenizer)
    device, precision = _machine(config, saved, shape)

    torch.manual_seed(config.seed)
    model = _new_model(shape, config, tokenizer, resumed=resume_from is not None).to(device)
    loss_module, compiled = _loss_module(model, config, saved, precision, device, console)
    resolved = {
        "device": device.type,
        "precision": precision.name,
        "compile": compiled,
        "threads": torch.get_num_threads(),
        "vocab_size": shape.vocab_size,
    }
    batches = _batches(dataset, config, device, shape.block_size)
    trainer = Trainer(
        model=model,
        loss_module=loss_module,
        optimizers=build_optimizers(model, config.optim, device),
        batches=batches,
        lr_scale=_lr_scale(config),
        precision=precision,
        scaler=torch.amp.GradScaler(device.type, enabled=precision.needs_scaler),
        device=device,
        max_steps=config.max_steps,
        grad_accum_steps=config.grad_accum_steps,
        tokens_per_step=config.tokens_per_step,
        grad_clip=config.optim.grad_clip,
        state=TrainState(),
        stop=stop,
    )
    if resume_from:
        restore(trainer, batches, resume_from, tokenizer, allow_data_change=allow_data_change)
    return Run(
        trainer=trainer,
        dataset=dataset,
        tokenizer=tokenizer,
        generator=TextGenerator(model, tokenizer),
        store=CheckpointStore(config.run_dir / "checkpoints", keep_last=config.checkpoint.keep_last),
        resolved=resolved,
        measure=partial(_val_loss, trainer=trainer, dataset=dataset, config=config),
    )


def resolve_model(config: GPTConfig, tokenizer: Tokenizer) -> GPTConfig:
    """The model's shape with its vocabulary filled in.

    Raises:
        UserError: The config names another vocabulary than the tokenizer's.
    """
    if config.vocab_size not in (0, tokenizer.vocab_size):
        raise UserError(
            f"model.vocab_size is {config.vocab_size} but the data's tokenizer has {tokenizer.vocab_size} ids;"
            " use 0 to take the tokenizer's"
        )
    return replace(config, vocab_size=tokenizer.vocab_size)


def build_callbacks(run: Run, config: TrainConfig, *, log: Logger, display: Display, prompt: str) -> list[Any]:
    """Who looks on at a run, in the order that `training.callbacks` explains."""
    trainer = run.trainer
    shape = trainer.model.config
    precision = trainer.precision
    looking_on: list[Any] = [
        callbacks.LogMetrics(
            log=log,
            display=display,
            every=config.log_every,
            lr=config.optim.lr,
            flops_per_token=flops_per_token(shape, shape.block_size),
            peak_flops=peak_flops(trainer.device, precision.name),
        ),
        callbacks.Evaluate(
            measure=lambda: run.measure(trainer.loss_module),
            every=config.eval.every,
            log=log,
            display=display,
        ),
    ]
    if config.eval.sample_every:
        looking_on.append(
            callbacks.Sample(
                generator=run.generator,
                prompt=prompt,
                every=config.eval.sample_every,
                max_new_tokens=config.eval.sample_tokens,
                seed=config.seed,
                log=log,
                display=display,
            )
        )
    batches = trainer.batches
    assert isinstance(batches, TrainBatches)
    looking_on.append(
        callbacks.Checkpoint(
            store=run.store,
            every=config.checkpoint.every,
            tokenizer=run.tokenizer,
            snapshot=lambda t: capture(t, batches, run.resolved),
        )
    )
    return looking_on


def _machine(config: TrainConfig, saved: dict[str, Any], shape: GPTConfig) -> tuple[torch.device, Precision]:
    """Pick device, threads and precision: those the run began with, where it is resumed."""
    device = pick_device(config.runtime.device)
    if threads := saved.get("threads", config.runtime.threads):
        torch.set_num_threads(threads)
    if device.type == "cpu":
        keep_freed_memory()
    return device, pick_precision(saved.get("precision", config.runtime.precision), device, n_embd=shape.n_embd)


def _batches(dataset: TokenDataset, config: TrainConfig, device: torch.device, block_size: int) -> TrainBatches:
    return TrainBatches(
        dataset.split("train"),
        block_size=block_size,
        micro_batch_size=config.runtime.micro_batch_size,
        seed=config.seed,
        pin_memory=device.type == "cuda",
    )


def _lr_scale(config: TrainConfig) -> Callable[[int], float]:
    return partial(
        cosine_scale,
        warmup_steps=config.optim.warmup_steps,
        max_steps=config.max_steps,
        final=config.optim.min_lr / config.optim.lr,
    )


def _new_model(shape: GPTConfig, config: TrainConfig, tokenizer: Tokenizer, *, resumed: bool) -> GPT:
    """A model with random weights, or those that config.init_from names; a resumed run will bring its own."""
    model = build_model(shape)
    assert isinstance(model, GPT)
    init_weights(model, seed=config.seed)
    if config.init_from is not None and not resumed:
        init_from(model, tokenizer, config.init_from)
    return model


def _val_loss(module: torch.nn.Module, *, trainer: Trainer, dataset: TokenDataset, config: TrainConfig) -> LossResult:
    split = dataset.split("val")
    batches = eval_batches(
        split,
        block_size=trainer.model.config.block_size,
        batch_size=2 * config.runtime.micro_batch_size,  # no gradients are kept: twice the training size fits
        max_tokens=config.eval.max_tokens,
    )
    return evaluate_loss(
        module,
        batches,
        device=trainer.device,
        bytes_per_token=split.n_bytes / split.n_tokens,
        autocast=trainer.precision.autocast(),
    )


def _loss_module(
    model: GPT,
    config: TrainConfig,
    saved: dict[str, Any],
    precision: Precision,
    device: torch.device,
    console: Console,
) -> tuple[torch.nn.Module, str]:
    """The model with its loss, compiled where that is asked for or pays; and which it was, "on" or "off"."""
    plain = LossModule(model)
    batch = (config.runtime.micro_batch_size, model.config.block_size)
    idx = torch.zeros(batch, dtype=torch.long, device=device)

    def micro_step(module: torch.nn.Module) -> None:
        # Trying must not move the generators that dropout draws from.
        with torch.random.fork_rng(), precision.autocast():
            module(idx, idx).backward()
        model.zero_grad(set_to_none=True)

    choice = maybe_compile(
        plain,
        mode=saved.get("compile", config.runtime.compile),
        run=micro_step,
        n_runs=config.max_steps * config.grad_accum_steps,
        device=device,
    )
    if choice.note:
        console.print(choice.note, highlight=False)
    return choice.module, "on" if choice.compiled else "off"
