"""Optimizer state as named tensors and JSON numbers, without pickle.

`torch.optim.Optimizer.state_dict()` is {"state": {index: {name: tensor or number}}, "param_groups": [...]}. A tensor
becomes `"{index}.{name}"`; everything else stays JSON.
"""

from typing import Any

from torch import Tensor
from torch.optim import Optimizer


def flatten_optimizer(optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Split an optimizer's state into tensors by name and JSON values.

    Raises:
        TypeError: The state holds something that is neither a tensor nor a JSON value.
    """
    whole = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    for index, entries in whole["state"].items():
        for name, value in entries.items():
            key = f"{index}.{name}"
            if isinstance(value, Tensor):
                tensors[key] = value
            elif value is None or isinstance(value, bool | int | float | str):
                numbers[key] = value
            else:
                raise TypeError(f"cannot store optimizer state {key} of type {type(value).__name__}")
    groups = [{k: list(v) if isinstance(v, tuple) else v for k, v in group.items()} for group in whole["param_groups"]]
    return tensors, {"numbers": numbers, "param_groups": groups}


def load_flat_optimizer(optimizer: Optimizer, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
    """The inverse of `flatten_optimizer`, into an optimizer over the same parameters."""
    state: dict[int, dict[str, Any]] = {}
    for key, value in {**tensors, **values["numbers"]}.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    current = optimizer.state_dict()["param_groups"]
    groups = [
        {k: tuple(v) if isinstance(now.get(k), tuple) else v for k, v in group.items()}
        for group, now in zip(values["param_groups"], current, strict=True)
    ]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
