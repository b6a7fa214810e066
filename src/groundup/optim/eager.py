"""PyTorch's optimizers without its compiler.

They wrap their methods in words to the compiler, that it should leave them alone, and load it to say so: 60 MB and a
second of every process that trains, of which most compile nothing. Here the methods are those below the wrapping.
"""

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from groundup.kernels.adamw import STATE, AdamWSteps, Moved
from groundup.kernels.training import TrainingKernels
from groundup.runtime.stored import PlainKernels


class Eager(Optimizer):
    """What all optimizers do beside their steps."""

    add_param_group = inspect.unwrap(Optimizer.add_param_group)
    state_dict = inspect.unwrap(Optimizer.state_dict)
    load_state_dict = inspect.unwrap(Optimizer.load_state_dict)

    def zero_grad(self, set_to_none: bool = True) -> None:  # noqa: FBT001, FBT002  # as PyTorch's
        """As PyTorch's; what it notes for a profiler takes longer than to forget gradients, so that is left out."""
        assert set_to_none, "gradients are forgotten, not filled with zeros"
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = None


class AdamW(Eager, torch.optim.AdamW):
    """PyTorch's, step by step the same: bit by bit, or by kernels up to rounding.

    Args:
        params: As PyTorch's.
        kernels: Take whole steps on a CPU, where there are some.
        options: As PyTorch's.
    """

    def __init__(self, params: Iterable[Any], *, kernels: PlainKernels | None = None, **options: Any) -> None:
        self._moved: dict[int, tuple[list[int], Moved]] = {}
        super().__init__(params, **options)
        self._steps = kernels.adamw if isinstance(kernels, TrainingKernels) else None

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Apply one update to every parameter that has a gradient."""
        if closure is None and self._steps and (groups := self._known(self._steps)):
            for group, moved, gradients in groups:
                self._steps(
                    moved,
                    gradients,
                    lr=group["lr"],
                    betas=group["betas"],
                    eps=group["eps"],
                    decay=group["weight_decay"],
                )
            return None
        return inspect.unwrap(torch.optim.AdamW.step)(self, closure)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As PyTorch's."""
        self._moved.clear()
        super().load_state_dict(state_dict)

    def _known(self, steps: AdamWSteps) -> list[tuple[dict[str, Any], Moved, list[Tensor]]]:
        """What the kernels read, group by group; nothing if they cannot, and in the first step, which makes state."""
        groups = []
        for n, group in enumerate(self.param_groups):
            pairs = [(p, grad) for p in group["params"] if (grad := p.grad) is not None]
            parameters, gradients = [p for p, _ in pairs], [grad for _, grad in pairs]
            if not steps.suit(gradients) or (moved := self._moved_by(n, parameters, steps)) is None:
                self._moved.clear()  # PyTorch's step may make new state
                return []
            groups.append((group, moved, gradients))
        return groups

    def _moved_by(self, n: int, parameters: list[Tensor], steps: AdamWSteps) -> Moved | None:
        """What changes in a group: looked up once for the same parameters at the same places."""
        places = [len(self.state), *(p.data_ptr() for p in parameters)]
        if n not in self._moved or self._moved[n][0] != places:
            if not all(self.state.get(p) for p in parameters):
                return None
            tensors = [t for p in parameters for t in (p, *(self.state[p][name] for name in STATE))]
            if not steps.suit(tensors):
                return None
            self._moved[n] = places, Moved(tensors)
        return self._moved[n][1]
