"""PyTorch's optimizers without its compiler.

They wrap their methods in words to the compiler, that it should leave them alone, and load it to say so: 60 MB and a
second of every process that trains, of which most compile nothing. Here the methods are those below the wrapping.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer


class Eager(Optimizer):
    """What all optimizers do beside their steps."""

    add_param_group = inspect.unwrap(Optimizer.add_param_group)
    zero_grad = inspect.unwrap(Optimizer.zero_grad)
    state_dict = inspect.unwrap(Optimizer.state_dict)
    load_state_dict = inspect.unwrap(Optimizer.load_state_dict)


class AdamW(Eager, torch.optim.AdamW):
    """PyTorch's, step by step the same."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Apply one update to every parameter that has a gradient."""
        return inspect.unwrap(torch.optim.AdamW.step)(self, closure)
