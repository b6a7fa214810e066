"""Optimizer state as named tensors and JSON numbers, without pickle.

`torch.optim.Optimizer.state_dict()` is {"state": {index: {name: tensor or number}}, "param_groups": [...]}. A tensor
becomes `"{index}.{name}"`; everything else stays JSON.
"""

import re
import sys
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from groundup.config.errors import UserError


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
    """The inverse of `flatten_optimizer`, into an optimizer over the same parameters.

    Raises:
        UserError: It is the state of other parameters.
    """
    current = optimizer.state_dict()["param_groups"]
    if [len(group["params"]) for group in values["param_groups"]] != [len(group["params"]) for group in current]:
        raise UserError("its groups of parameters are not those of this run")
    for group, now in zip(values["param_groups"], current, strict=True):
        for name, value in group.items():
            if not _can_be(value, now.get(name)):
                raise UserError(f"its {name} is no setting of this run's optimizer")
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for key, value in {**tensors, **values["numbers"]}.items():
        index = parameter_of(key, len(parameters))
        if isinstance(value, Tensor) and value.dim() and value.shape != parameters[index].shape:
            raise UserError(f"{key} is {tuple(value.shape)}, its parameter {tuple(parameters[index].shape)}")
        state.setdefault(index, {})[key.split(".", 1)[1]] = value
    groups = [
        {k: tuple(v) if isinstance(now.get(k), tuple) else v for k, v in group.items()}
        for group, now in zip(values["param_groups"], current, strict=True)
    ]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _can_be(value: Any, now: Any) -> bool:
    """Whether a setting may stand where one is now: a number, a flag or null, a text for a text, a list for a list."""
    if isinstance(now, tuple | list):
        return isinstance(value, list) and len(value) == len(now) and all(_can_be(each, 0) for each in value)
    if isinstance(value, int | float):
        return abs(value) <= sys.float_info.max and not isinstance(now, str)
    return value is None or (isinstance(value, str) and isinstance(now, str))


def parameter_of(key: str, count: int) -> int:
    """The number of the parameter that a piece of state is of.

    Raises:
        UserError: It is no number below `count`.
    """
    found = re.fullmatch(r"([0-9]{1,9})\..+", key)
    if found is None or int(found[1]) >= count:
        raise UserError(f"the optimizer's state has {key!r}, and there are {count} parameters")
    return int(found[1])
