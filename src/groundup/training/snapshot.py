"""Everything a run needs to go on as if it had never stopped, bit for bit.

Tensors: optimizer state and random generators (dropout draws from them). Numbers: the counters, the place in the
data, the fp16 loss scale, and how the machine was used. The weights are saved beside it, by the checkpoint.
"""

from typing import Any

from torch import Tensor

from groundup.checkpoint.optimizer_state import flatten_optimizer, load_flat_optimizer
from groundup.checkpoint.state import Checkpoint
from groundup.config.errors import UserError
from groundup.data.loader import TrainBatches
from groundup.runtime.seed import capture_rng, restore_rng
from groundup.tokenizer.base import Tokenizer
from groundup.tokenizer.io import FILE as TOKENIZER_FILE
from groundup.tokenizer.io import load_tokenizer
from groundup.training.state import TrainState
from groundup.training.trainer import Trainer


def capture(
    trainer: Trainer, batches: TrainBatches, resolved: dict[str, Any]
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Tensors by part, and JSON values, for `CheckpointStore.save`."""
    tensors: dict[str, dict[str, Tensor]] = {"rng": capture_rng()}
    optimizers = []
    for i, optimizer in enumerate(trainer.optimizers):
        tensors[f"optimizer{i}"], values = flatten_optimizer(optimizer)
        optimizers.append(values)
    state = {
        "train": trainer.state.to_dict(),
        "data": batches.state_dict(),
        "optimizers": optimizers,
        "scaler": trainer.scaler.state_dict(),
        "resolved": resolved,
    }
    return tensors, state


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
        UserError: The data is not what the run was trained on, or its ids mean something else.
    """
    batches.load_state_dict(checkpoint.state["data"], allow_data_change=allow_data_change)
    if load_tokenizer(checkpoint.path).fingerprint != tokenizer.fingerprint:
        raise UserError(
            f"the data was made with another tokenizer than {checkpoint.path} learned; prepare it with"
            f" --data.tokenizer {checkpoint.path / TOKENIZER_FILE}"
        )
    trainer.state = TrainState.from_dict(checkpoint.state["train"])
    for i, optimizer in enumerate(trainer.optimizers):
        load_flat_optimizer(optimizer, checkpoint.tensors[f"optimizer{i}"], checkpoint.state["optimizers"][i])
    if checkpoint.state["scaler"]:
        trainer.scaler.load_state_dict(checkpoint.state["scaler"])
    trainer.model.load_state_dict(checkpoint.model)
    restore_rng(checkpoint.tensors["rng"])
