"""One rule for each parameter of a model, found by its name, not guessed from its shape.

A model, or a layer that brings parameters of its own such as LoRA's, has a table `PARAMETERS`: from the end of a
parameter's name to its rule. `init_weights`, weight decay and Muon read it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import nn

Init = Literal["normal", "stream", "zero", "half", "one", "layer"]
"""How `init_weights` draws: N(0, 0.02), narrower for what adds to the residual stream, a constant, or not at all,
because the layer has drawn it."""


@dataclass(frozen=True)
class Rule:
    """How a parameter begins and which optimizer moves it.

    Attributes:
        init: What it is drawn from.
        decays: Whether weight decay shrinks it.
        maps: How many linear maps are stacked in it, which Muon orthogonalizes one by one; 0 for what is no map.
        lazy: A table: the optimizer leaves rows alone that a step did not use.
    """

    init: Init
    decays: bool
    maps: int = 0
    lazy: bool = False


Table = Mapping[str, Rule]

EMBEDDING = Rule("normal", decays=True)
"""A table of vectors, not a map between vectors, so there is nothing to orthogonalize. The tied head shares it."""
MATRIX = Rule("normal", decays=True, maps=1)
QKV = Rule("normal", decays=True, maps=3)
ONTO_STREAM = Rule("stream", decays=True, maps=1)
ZERO_MATRIX = Rule("zero", decays=True, maps=1)
GAIN = Rule("one", decays=False)
HALF = Rule("half", decays=False)
BIAS = Rule("zero", decays=False)
TABLE = Rule("zero", decays=False, lazy=True)


def parameter_rules(model: nn.Module) -> dict[str, Rule]:
    """The rule of every parameter of a model, by name.

    Raises:
        ValueError: No rule, or more than one, for a name.
    """
    tables: list[Table] = [getattr(part, "PARAMETERS", {}) for part in model.modules()]
    known = {(suffix, rule) for table in tables for suffix, rule in table.items()}
    rules = {}
    for name, _ in model.named_parameters():
        found = [rule for suffix, rule in known if f".{name}".endswith(f".{suffix}")]
        if len(found) != 1:
            problem = f"the parameter {name} has {len(found)} rules, it needs one"
            raise ValueError(f"{problem}; see PARAMETERS of {type(model).__name__} and of its layers")
        rules[name] = found[0]
    return rules
