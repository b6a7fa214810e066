"""Muon: momentum whose direction is made orthogonal before it is applied (Jordan et al. 2024).

A gradient matrix is dominated by a few directions. Replacing its singular values by ones gives the rare
directions the same weight, with which small transformers need fewer steps than with AdamW. The replacement is
five Newton-Schulz iterations, all matrix products; matrices of one shape are stacked so that a whole model needs
two or three batched calls.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from groundup.kernels.muon import MuonHow, MuonMatrix
from groundup.kernels.training import TrainingKernels
from groundup.optim.eager import Eager
from groundup.runtime.stored import PlainKernels

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Quintic of Jordan et al.: steepest at zero among those that keep singular values in about [0.7, 1.2]."""
_ITERATIONS = 5
_EPS = 1e-7
"""Added to the norm of a matrix, so that zeros stay zeros."""


def orthogonalize(matrices: Float[Tensor, "N R S"]) -> Float[Tensor, "N R S"]:
    """Move the singular values of each matrix to about 1, keeping its singular vectors.

    On a GPU it is computed in bfloat16, whose three significant digits are enough for this.

    Args:
        matrices: A stack of N matrices; R >= S costs least.
    """
    a, b, c = _COEFFICIENTS
    x = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + _EPS)
    x = x.bfloat16() if x.is_cuda else x
    for _ in range(_ITERATIONS):
        gram = x.mT @ x
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, x, factor, beta=a, alpha=1)
    return x.to(matrices.dtype)


class Muon(Eager):
    """Orthogonalized Nesterov momentum with decoupled weight decay, for two-dimensional parameters.

    Args:
        params: Matrices.
        lr: Step length; an update has root mean square lr * sqrt(max(1, rows / columns)) / sqrt(columns).
        weight_decay: Decoupled decay per unit of lr.
        momentum: Decay of the momentum.
        cautious: Decay only the elements that the update moves towards zero (Chen et al. 2025), in proportion to the
            square of lr: where the group has an `initial_lr`, by weight_decay * lr / initial_lr per unit of lr.
        maps: How many linear maps are stacked in a matrix (QKV: 3); each is orthogonalized alone. 1 where not named.
        kernels: Take whole steps on a CPU, where there are some.

    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 0.02,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        *,
        cautious: bool = False,
        maps: Mapping[nn.Parameter, int] | None = None,
        kernels: PlainKernels | None = None,
    ) -> None:
        defaults = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "cautious": cautious}
        super().__init__(params, defaults)
        self._maps = dict(maps or {})
        self._steps = kernels.muon if isinstance(kernels, TrainingKernels) else None
        for group in self.param_groups:
            for p in group["params"]:
                if p.dim() != 2:
                    raise ValueError(f"muon takes matrices, got a parameter of shape {tuple(p.shape)}")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Apply one update to every parameter that has a gradient."""
        assert closure is None, "muon needs no closure"
        for group in self.param_groups:
            alone: list[MuonMatrix] = []
            stacks: dict[tuple[int, int, int], list[tuple[nn.Parameter, Tensor]]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is None:
                    continue
                matrix = MuonMatrix(p, p.grad, self._average(p), self._maps.get(p, 1))
                if self._steps and self._steps.suits(matrix):
                    alone.append(matrix)
                else:
                    update = _ahead(matrix, group["momentum"])
                    shape = len(p) // matrix.maps, p.shape[1]
                    stacks[(matrix.maps, min(shape), max(shape))].append((p, update))
            if self._steps and alone:
                self._steps(
                    alone, MuonHow(_COEFFICIENTS, _ITERATIONS, _EPS, group["momentum"], group["lr"], *_decay(group))
                )
            for members in stacks.values():
                self._apply(members, group)

    def _average(self, p: nn.Parameter) -> Tensor:
        state = self.state[p]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(p)
        average: Tensor = state["momentum_buffer"]
        return average

    def _apply(self, members: list[tuple[nn.Parameter, Tensor]], group: dict[str, Any]) -> None:
        """Orthogonalize the updates of parameters of one shape together, and take the step."""
        lr, (decay, cautious) = group["lr"], _decay(group)
        stacked = [update.view(self._maps.get(p, 1), -1, update.shape[1]) for p, update in members]  # each (N, R, S)
        flat = [m.mT if m.shape[1] < m.shape[2] else m for m in stacked]
        together = orthogonalize(torch.cat(flat))
        directions = torch.split(together, [len(m) for m in flat])
        for (p, _), matrices, direction in zip(members, stacked, directions, strict=True):
            rows, columns = matrices.shape[1:]
            if rows < columns:
                direction = direction.mT
            direction = direction.reshape(p.shape)
            if cautious:
                p.sub_(p * (p * direction > 0), alpha=decay)
            else:
                p.mul_(1 - decay)
            p.add_(direction, alpha=-lr * max(1, rows / columns) ** 0.5)


def _ahead(matrix: MuonMatrix, momentum: float) -> Tensor:
    """Advance the momentum; return Nesterov's look-ahead gradient."""
    return matrix.grad.lerp(matrix.momentum.lerp_(matrix.grad, 1 - momentum), momentum)


def _decay(group: dict[str, Any]) -> tuple[float, bool]:
    """The share that a step takes away, and whether only of what the update shrinks."""
    lr, decay = group["lr"], group["lr"] * group["weight_decay"]
    cautious = group.get("cautious", False)  # checkpoints of older versions do not say
    return (decay * lr / group.get("initial_lr", lr) if cautious else decay), cautious
