"""What a step over a whole model takes, looked up once, and then as long as the model is made of the same."""

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

_HOOKS = "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"
_SETTINGS = "training", "p", "eps"
_COMPILED = "_compiled_call_impl"
"""What a part has once it is to be compiled."""
_OF_A_LEAF = attrgetter("requires_grad", "_backward_hooks", "_post_accumulate_grad_hooks", "dtype", "is_cpu")
_LEAF = (True, None, None, torch.float32, True), True
"""A parameter in one piece, in which a step may leave a gradient: nobody waits for autograd to do so."""


class WholeModel:
    """The tensors of a model, if one step can take them all and leave gradients in them.

    To ask each part in every step whether it suits would take a fiftieth of a small model's step.

    Args:
        model: The model.
        dtype: Of its products.
        tensors: What the step takes; None where it does not suit.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype, tensors: Sequence[Tensor | None] | None) -> None:
        self._modules = list(model.modules())  # as long as they are kept, no other has the id of one
        self._dtype, self._parts = dtype, [part.__dict__ for part in self._modules]
        self._hooks = [part[name] for part in self._parts for name in _HOOKS]
        self._settings = [(part, name) for part in self._parts for name in _SETTINGS if name in part]
        self._settings += [(part, _COMPILED) for part in self._parts]
        self._inside = [part[name] for part in self._parts for name in ("_modules", "_parameters") if part[name]]
        self._parameters = list(model.parameters())
        self._was = self._is()
        plain = all(type(p) is nn.Parameter for p in self._parameters)
        leaves = plain and all(one == _LEAF for one in self._was[-1])
        self.tensors = tensors if leaves and not any(self._hooks) else None

    def holds(self, dtype: torch.dtype) -> bool:
        """Whether all that was asked about the model is still so."""
        return dtype == self._dtype and self._is() == self._was

    def __deepcopy__(self, memo: dict[int, object]) -> None:
        """A copy of the model is made of other parts."""

    def _is(self) -> tuple[list[Any], ...]:
        """Settings, hooks, which parts and parameters there are, and what these are but for their values."""
        return (
            [part.get(name) for part, name in self._settings],
            [any(self._hooks)],
            [id(one) for inside in self._inside for one in inside.values()],
            [(_OF_A_LEAF(p), p.is_contiguous()) for p in self._parameters],
        )


def suit_a_step(idx: Int[Tensor, "B T"], targets: Int[Tensor, "B T"], block_size: int) -> bool:
    """Whether kernels can read these ids."""
    kinds, (texts, tokens) = {(part.dtype, part.device.type) for part in (idx, targets)}, idx.shape
    return kinds == {(torch.int64, "cpu")} and idx.shape == targets.shape and texts > 0 and 0 < tokens <= block_size
