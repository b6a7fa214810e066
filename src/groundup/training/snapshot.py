"""Everything a run needs to go on as if it had never stopped, bit for bit.

Tensors: optimizer state and random generators (dropout draws from them). Numbers: the counters, the place in the
data, the fp16 loss scale, what spikes are measured against, how the machine was used. The weights are saved beside it,
by the checkpoint.

Nothing of it depends on how many ranks there are, but that each has random generators of its own: a run may go on with
another number of them. Ranks that were not there before begin new streams.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from groundup.checkpoint.folders import read_config
from groundup.checkpoint.optimizer_state import flatten_optimizer, load_flat_optimizer, parameter_of
from groundup.checkpoint.shares import has_shares, read_shares
from groundup.checkpoint.state import Checkpoint, Contents
from groundup.config.errors import UsageError, UserError
from groundup.config.io import from_dict
from groundup.config.model import BigramConfig
from groundup.config.train import TrainConfig
from groundup.data.loader import TrainBatches
from groundup.distributed.parallel import is_share, share, shares, whole_state
from groundup.distributed.ranks import World
from groundup.files.layout import CONFIG, TOKENIZER
from groundup.loop.state import TrainState
from groundup.loop.trainer import Trainer
from groundup.model.lora import lora_state, merge_lora
from groundup.runtime.seed import capture_rng, restore_rng, seed_rank
from groundup.tokenizer.base import Tokenizer
from groundup.tokenizer.io import load_tokenizer
from groundup.training.setup import Resolved


@dataclass(frozen=True, slots=True)
class _Counters:
    """`TrainState`, whose best loss is null where nothing was measured."""

    step: int
    tokens_seen: int
    seconds: float
    best_loss: float | None
    best_step: int
    skipped_steps: int = 0
    val_text: str = ""
    val_texts: int = 0


@dataclass(frozen=True, slots=True)
class _Place:
    """`TrainBatches.state_dict`."""

    consumed: int
    block_size: int
    seed: int
    fingerprint: str


@dataclass(frozen=True, slots=True)
class _Optimizer:
    """`flatten_optimizer`."""

    numbers: dict[str, bool | int | float | str | None]
    param_groups: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class _Guard:
    """`Guard.state_dict`."""

    losses: list[float]
    grad_norms: list[float]
    skipped_in_a_row: int


@dataclass(frozen=True, slots=True)
class _State:
    """The JSON values of a checkpoint, as `capture` makes them."""

    train: _Counters
    data: _Place
    optimizers: list[_Optimizer]
    scaler: dict[str, int | float]
    resolved: Resolved
    guard: _Guard | None = None


def check_state(values: dict[str, Any]) -> None:
    """See whether JSON values are those of a run, before anything is built to go on from them.

    Raises:
        UserError: They are not; the message has the dotted path.
    """
    state = from_dict(_State, values, where="state")
    for name, value in (("train.step", state.train.step), ("data.consumed", state.data.consumed)):
        if not 0 <= value < 2**63:
            raise UserError(f"state.{name} must be from 0 to 2^63, got {value}")
    # Epochs are walked one by one to the place in the data, so it must be one that the run has come to.
    if (tokens := state.data.consumed * state.data.block_size) != state.train.tokens_seen:
        raise UserError(
            f"state.data.consumed is {state.data.consumed} samples of {state.data.block_size} tokens, which are"
            f" {tokens} tokens; state.train.tokens_seen is {state.train.tokens_seen}"
        )
    for i, optimizer in enumerate(state.optimizers):
        for group in optimizer.param_groups:
            # What is learned from is a rate: a list or a text in its place would end the first step.
            if not isinstance(group.get("params"), list) or type(group.get("lr")) not in (int, float):
                raise UserError(f"state.optimizers[{i}].param_groups must be objects with params and lr")


def capture(
    trainer: Trainer, batches: TrainBatches, resolved: Resolved, tokenizer: Tokenizer
) -> tuple[Contents | None, dict[str, Tensor]]:
    """All that a checkpoint of this moment holds; every rank must ask.

    Returns:
        What rank 0 saves (None on the others), and what each rank has only a share of: such a tensor stays in its
        shares, as rank 0 need not have room for the state of all.
    """
    world = trainer.world
    tensors: dict[str, dict[str, Tensor]] = {_rng(rank): {} for rank in range(world.size)}
    for name, own in capture_rng().items():
        for rank, generator in enumerate(world.gather(own)):
            tensors[_rng(rank)][name] = generator
    optimizers = []
    own_shares: dict[str, Tensor] = {}
    for i, optimizer in enumerate(trainer.optimizers):
        moments, values = flatten_optimizer(optimizer)
        part = f"optimizer{i}"
        tensors[part] = {name: t for name, t in moments.items() if not is_share(t)}
        own_shares |= {f"{part}/{name}": t for name, t in moments.items() if is_share(t)}
        optimizers.append(values)
    if lora := lora_state(trainer.model.state_dict()):
        tensors["lora"] = lora
    state = trainer.model.state_dict()
    if trainer.average is not None:  # it is the model that others open; what training goes on from lies beside it
        raw = {name: state[name] for name in trainer.average.weights}
        tensors["raw"] = whole_state(raw, keep=world.is_main)
        state |= trainer.average.weights
    model = whole_state(state, keep=world.is_main)
    if not world.is_main:
        return None, own_shares
    contents = Contents(
        step=trainer.state.step,
        config=trainer.model.config,
        model=merge_lora(model),
        tokenizer=tokenizer,
        tensors=tensors,
        state={
            "train": trainer.state.to_dict(),
            "data": batches.state_dict(),
            "optimizers": optimizers,
            "scaler": trainer.scaler.state_dict(),
            "guard": trainer.guard.state_dict(),
            "resolved": replace(resolved, micro_batch_size=trainer.micro_batch_size).to_dict(),
        },
        is_best=trainer.state.best_step == trainer.state.step,
    )
    return contents, own_shares


def settings_of(checkpoint: Checkpoint, config: TrainConfig) -> TrainConfig:
    """A run's config with what a checkpoint of it holds: the model's shape, the seed and AdamW's learning rate.

    Raises:
        UserError: The checkpoint is of no such model.
    """
    model, _ = read_config(checkpoint.path / CONFIG)
    if isinstance(model, BigramConfig):
        raise UserError(f"{checkpoint.path} is a bigram, which is not trained by steps")
    if not config.model.vocab_size:
        model = replace(model, vocab_size=0)
    groups = [group for each in checkpoint.state["optimizers"] for group in each["param_groups"]]
    # AdamW's is the rate itself, Muon's a multiple of it; what has none was trained without Adam.
    rates = [group["initial_lr"] for group in groups if "betas" in group and "initial_lr" in group]
    optim = replace(config.optim, lr=next(iter(rates), config.optim.lr))
    return replace(config, model=model, seed=checkpoint.state["data"]["seed"], optim=optim)


def restore(
    trainer: Trainer,
    batches: TrainBatches,
    checkpoint: Checkpoint,
    tokenizer: Tokenizer,
    *,
    allow_data_change: bool = False,
) -> None:
    """Put a freshly built trainer where `capture` stood.

    The random generators come last, so that nothing in between can draw from them.

    Args:
        trainer: Of the same config.
        batches: Where it learns from.
        checkpoint: What was saved.
        tokenizer: That made the data's ids.
        allow_data_change: Go on although the data is not what the run began with.

    Raises:
        UserError: The data is not what the run was trained on, or its ids mean something else; or the state is that of
            another model or another run.
        UsageError: The checkpoint is beyond the last step.
    """
    train = _place(trainer, checkpoint)
    batches.load_state_dict(checkpoint.state["data"], allow_data_change=allow_data_change)
    if load_tokenizer(checkpoint.path).fingerprint != tokenizer.fingerprint:
        raise UserError(
            f"the data was made with another tokenizer than {checkpoint.path} learned; prepare it with"
            f" --data.tokenizer {checkpoint.path / TOKENIZER}"
        )
    trainer.state = train
    if len(checkpoint.state["optimizers"]) != len(trainer.optimizers):
        saved = len(checkpoint.state["optimizers"])
        raise UserError(
            f"{checkpoint.path} has the state of {saved} optimizers, this run has {len(trainer.optimizers)}"
        )
    for i, optimizer in enumerate(trainer.optimizers):
        tensors = _own_state(optimizer, checkpoint, f"optimizer{i}", trainer.world)
        try:
            load_flat_optimizer(optimizer, tensors, checkpoint.state["optimizers"][i])
        except UserError as error:
            raise UserError(f"{checkpoint.path}, optimizer {i}: {error}") from None
    if checkpoint.state["scaler"]:
        trainer.scaler.load_state_dict(checkpoint.state["scaler"])
    if "guard" in checkpoint.state:
        trainer.guard.load_state_dict(checkpoint.state["guard"])
    if trainer.average is not None:
        trainer.average.load(shares(checkpoint.model, trainer.model.state_dict()))
    weights = {**checkpoint.model, **checkpoint.tensors.get("lora", {}), **checkpoint.tensors.get("raw", {})}
    trainer.model.load_state_dict(shares(weights, trainer.model.state_dict()))
    if generators := checkpoint.tensors.get(_rng(trainer.world.rank)):
        restore_rng(generators)
    else:
        seed_rank(torch.initial_seed(), rank=trainer.world.rank, step=trainer.state.step)


def _place(trainer: Trainer, checkpoint: Checkpoint) -> TrainState:
    """Where a checkpoint stands: at a step of this run, with the tokens of that many steps."""
    train = TrainState.from_dict(checkpoint.state["train"])
    if train.step > trainer.max_steps:
        raise UsageError(f"{checkpoint.path.parents[1]} is at step {train.step}, beyond max_steps {trainer.max_steps}")
    if train.tokens_seen != train.step * trainer.tokens_per_step:
        raise UserError(
            f"{checkpoint.path} has seen {train.tokens_seen} tokens, which are not {train.step} steps of"
            f" {trainer.tokens_per_step}"
        )
    return train


def _rng(rank: int) -> str:
    """The part of a checkpoint that holds a rank's random generators."""
    return f"rng{rank}" if rank else "rng"


def _own_state(optimizer: Optimizer, checkpoint: Checkpoint, part: str, world: World) -> dict[str, Tensor]:
    """What this rank keeps of each parameter's state, which has the parameter's shape; a step count is everybody's.

    The checkpoint may hold it whole or in the shares of another number of ranks.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def owner(key: str) -> Tensor:
        return parameters[parameter_of(key, len(parameters))].detach()

    state = checkpoint.tensors.get(part, {})
    own = {key: share(t, owner(key)) if t.shape == owner(key).shape else t for key, t in state.items()}
    if has_shares(checkpoint.path):
        own |= read_shares(checkpoint.path, part, owner, world)
    return own
