"""What a step does when memory runs out: `Trainer.gradients` is one of the two functions here.

If micro-batches of a fixed size do not fit, the run ends with a message that names a smaller size. Automatic ones are
halved on all ranks, and the step is made again from the same samples with the same random state.
"""

from torch import Tensor

from groundup.config.errors import UserError
from groundup.distributed.parallel import average_gradients
from groundup.loop.micro_batch import next_smaller, nothing_fits
from groundup.loop.trainer import Trainer
from groundup.runtime.memory import is_out_of_memory, release_cached
from groundup.runtime.seed import capture_rng, restore_rng


def or_explain(trainer: Trainer) -> Tensor:
    """Accumulate; where memory runs out, say which size to use.

    Raises:
        UserError: Memory does not suffice.
    """
    try:
        return trainer.accumulate()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        smaller = _smaller(trainer)
        raise UserError(
            f"step {trainer.state.step + 1}: out of memory with micro-batches of {trainer.micro_batch_size} sequences;"
            f" use --runtime.micro-batch-size {smaller} (tokens_per_step stays), or auto"
        ) from error


def or_shrink(trainer: Trainer) -> Tensor:
    """Accumulate; where memory runs out on a rank, do it again on all with micro-batches of at most half the size.

    The loss module must not be DDP's: a rank that fails in the middle of an exchange would leave the others waiting. So
    gradients are averaged here, after the last micro-step.

    Raises:
        UserError: Not even one sequence fits.
    """
    while True:
        generators = capture_rng()
        loss = _accumulate_or_none(trainer)
        if not trainer.world.max(int(loss is None)) and loss is not None:
            average_gradients(trainer.model, trainer.world)
            return loss
        before = trainer.micro_batch_size
        _start_again(trainer, micro_batch_size=_smaller(trainer))
        restore_rng(generators)
        trainer.notes.append(
            f"step {trainer.state.step + 1}: out of memory with micro-batches of {before} sequences;"
            f" from here on they are of {trainer.micro_batch_size}"
        )


def _accumulate_or_none(trainer: Trainer) -> Tensor | None:
    """None when memory ran out. What the attempt held is free again once its error is gone, so: a function."""
    try:
        return trainer.accumulate()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None


def _smaller(trainer: Trainer) -> int:
    """The size to try next."""
    smaller = next_smaller(trainer.micro_batch_size, trainer.samples_per_step // trainer.world.size)
    if not smaller:
        raise nothing_fits()
    return smaller


def _start_again(trainer: Trainer, *, micro_batch_size: int) -> None:
    """Go back to the beginning of the step, without gradients."""
    for optimizer in trainer.optimizers:
        optimizer.zero_grad(set_to_none=True)
    release_cached(trainer.device)
    trainer.grad_accum_steps = trainer.samples_per_step // trainer.world.size // micro_batch_size
    trainer.batches.restart(trainer.first_sample, micro_batch_size=micro_batch_size)
