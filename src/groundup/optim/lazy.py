"""RMSProp for a table of which a step uses few rows: all other rows stay as they are.

AdamW moves every row in every step: one that was used once is pushed on by its momentum long after, and each step reads
and writes the whole table and both of its averages. Here a row's average of squared gradients changes when the row is
used, and momentum there is none (docs/log.md has both, side by side). Equal to Adam with beta1 = 0 and lazy updates, as
torch.optim.SparseAdam has them, for gradients that are sparse or dense.

Source: Tieleman & Hinton 2012, lecture 6.5 of "Neural networks for machine learning".
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from groundup.optim.eager import Eager


class LazyRMSProp(Eager):
    """Divides the gradient of each used row by the root of its average square, element by element.

    Args:
        params: Tables, whose first dimension counts their rows.
        lr: Step length: what an element moves by where its gradients have one size.
        beta2: Decay of the average of squared gradients, per step that uses the row.
        eps: Added to the root.
    """

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float = 1e-3, beta2: float = 0.99, eps: float = 1e-8
    ) -> None:
        super().__init__(params, {"lr": lr, "beta2": beta2, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Apply one update to every table that has a gradient."""
        assert closure is None, "no closure is needed"
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._update(p, p.grad, **{name: group[name] for name in ("lr", "beta2", "eps")})

    def _update(self, p: nn.Parameter, grad: Tensor, *, lr: float, beta2: float, eps: float) -> None:
        state = self.state[p]
        if not state:
            state["step"], state["square"] = torch.zeros(()), torch.zeros_like(p)
        state["step"] += 1
        length = lr * (1 - beta2 ** state["step"].item()) ** 0.5  # the average began with zeros
        square = state["square"]
        if grad.is_sparse:
            grad = grad.coalesce()
            (rows,), grad = grad.indices(), grad.values()
            of_rows = square[rows].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
            square[rows] = of_rows
            p.index_add_(0, rows, grad / of_rows.sqrt_().add_(eps), alpha=-length)
        else:
            used = (grad != 0).any(dim=-1, keepdim=True)
            # No difference of the old and the new: beside a large average a small square is lost in it.
            square.copy_(torch.where(used, beta2 * square, square)).addcmul_(grad, grad, value=1 - beta2)
            p.addcdiv_(grad, square.sqrt().add_(eps), value=-length)


def gradient_values(p: nn.Parameter) -> Tensor | None:
    """A parameter's gradient, which may be changed in place; of a sparse one the rows that were used, each once."""
    if p.grad is None or not p.grad.is_sparse:
        return p.grad
    p.grad = p.grad.coalesce()
    return p.grad.values()
