"""One model on many ranks: DDP keeps a whole copy on each, FSDP2 a share of every tensor.

Both average gradients over ranks. A share of a tensor is a DTensor; `whole` and `whole_state` put tensors together
again, so that what is saved does not show how many ranks trained it.

PyTorch's code for shares is loaded where some are made: it takes a second and 50 MB, and most runs have none.
"""

import contextlib
import hashlib
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, TypeGuard

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from groundup.config.errors import UserError
from groundup.distributed.ranks import World

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def replicate(module: nn.Module, device: torch.device) -> nn.Module:
    """Wrap a module for DDP: backward leaves the ranks' mean gradient on every rank."""
    return DistributedDataParallel(
        module,
        device_ids=[torch.cuda.current_device()] if device.type == "cuda" else None,
        gradient_as_bucket_view=True,
    )


def shard(module: nn.Module, blocks: Iterable[nn.Module], device: torch.device, world: World) -> nn.Module:
    """Leave each rank its share of every parameter, in place (FSDP2).

    Args:
        module: The whole; what belongs to no block is gathered for the length of a step.
        blocks: Parts whose parameters are gathered when they compute, and dropped after.
        device: Where they live.
        world: The ranks that share.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (world.size,))
    for block in blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(module, mesh=mesh)
    return module


def sync_gradients(module: nn.Module, *, last: bool) -> AbstractContextManager[None]:
    """A context for forward and backward of one micro-step.

    DDP exchanges gradients only in the last one, when they are complete. FSDP exchanges them in each: keeping whole
    gradients in between would cost the memory that it is chosen to save.
    """
    if isinstance(module, DistributedDataParallel) and not last:
        return module.no_sync()
    return contextlib.nullcontext()


def average_gradients(module: nn.Module, world: World) -> None:
    """Leave the ranks' mean gradient on every rank, after backward; DDP does the same during it."""
    if world.size > 1:
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        for work in [dist.all_reduce(grad, async_op=True) for grad in gradients]:
            assert work is not None
            work.wait()
        torch._foreach_div_(gradients, world.size)


def is_sharded(module: nn.Module) -> bool:
    """Whether each rank has only a share of the parameters."""
    return any(is_share(p) for p in module.parameters())


def is_share(tensor: object) -> "TypeGuard[DTensor]":
    """Whether this rank has only a share of a tensor."""
    loaded = sys.modules.get("torch.distributed.tensor")
    return loaded is not None and isinstance(tensor, loaded.DTensor)


def whole(tensor: Tensor) -> Tensor:
    """A tensor put together from its shares; all ranks must call it."""
    return tensor.full_tensor() if is_share(tensor) else tensor


def whole_state(state: dict[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """Put a dictionary of tensors together, one by one; all ranks must call it.

    Args:
        state: Tensors, those that are shared among them.
        keep: Whether this rank wants them; others get an empty dictionary. What was shared comes to the CPU.
    """
    kept = {}
    for name, tensor in state.items():
        full = whole(tensor)
        if keep:
            kept[name] = full.cpu() if is_share(tensor) else tensor
    return kept


def shares(state: dict[str, Tensor], like: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `whole_state`: this rank's share of each tensor, where `like` has shares."""
    return {name: share(tensor, like[name]) for name, tensor in state.items()}


def share(tensor: Tensor, like: Tensor) -> Tensor:
    """This rank's share of a whole tensor that every rank has; the tensor itself, where `like` is whole."""
    if not is_share(like):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def refuse_different_weights(module: nn.Module, world: World) -> None:
    """Compare every parameter of replicas bit for bit across ranks, by SHA-256; shares have nothing to compare.

    Raises:
        UserError: They are not the same; the message names the first parameter and the ranks.
    """
    if world.size == 1 or is_sharded(module):
        return
    names, digests = [], []
    for name, p in module.named_parameters():
        data = p.detach().contiguous().view(-1).view(torch.uint8).cpu().numpy()
        names.append(name)
        digests.append(list(hashlib.sha256(data.data).digest()))
    tables = torch.stack(world.gather(torch.tensor(digests, dtype=torch.uint8)))  # (ranks, parameters, 32)
    differs = (tables != tables[0]).any(-1)
    if differs.any():
        first = int(differs.any(0).nonzero()[0])
        ranks = ", ".join(str(r) for r in differs[:, first].nonzero().flatten().tolist())
        raise UserError(
            f"the ranks do not have the same weights: {names[first]} of rank {ranks} is not rank 0's"
            f" ({int(differs.any(0).sum())} of {len(names)} parameters differ); resume from the last checkpoint"
        )
