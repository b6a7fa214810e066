"""Which parameters get weight decay, and which are matrices for Muon."""

from collections.abc import Iterable

from torch import nn

from groundup.model.parameters import Rule

Ruled = tuple[Rule, nn.Parameter]


def decay_groups(parameters: Iterable[Ruled], weight_decay: float) -> list[dict[str, object]]:
    """Two AdamW groups: what decays by its rule (matrices and embeddings), and what does not (gains and biases).

    A matrix multiplies its input, so shrinking it is a prior for simpler functions; a bias or a gain only shifts
    or scales, where such a prior has no use (GPT-2 and GPT-3 do the same).
    """
    parameters = list(parameters)
    groups: list[dict[str, object]] = [
        {"params": [p for rule, p in parameters if rule.decays], "weight_decay": weight_decay},
        {"params": [p for rule, p in parameters if not rule.decays], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def split_matrices(parameters: Iterable[Ruled]) -> tuple[list[Ruled], list[Ruled]]:
    """Split parameters into those that are maps by their rule (for muon) and all others (for adamw)."""
    parameters = list(parameters)
    return [each for each in parameters if each[0].maps], [each for each in parameters if not each[0].maps]


def assert_covers(model: nn.Module, groups: Iterable[dict[str, object]]) -> None:
    """Every trained parameter must be in exactly one group: a forgotten one would silently keep its initial value."""
    wanted = {id(p) for p in model.parameters() if p.requires_grad}
    given = [id(p) for group in groups for p in group["params"]]  # type: ignore[attr-defined]
    assert len(given) == len(set(given)), "a parameter is in two groups"
    assert set(given) == wanted, f"{len(wanted - set(given))} parameters are in no group"
