"""Which parameters decay, and which are matrices that muon may turn."""

from collections.abc import Iterable

from torch import nn


def decay_groups(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict[str, object]]:
    """Two AdamW groups: tensors of two or more dimensions decay, gains and biases do not.

    A matrix multiplies its input, so shrinking it is a prior for simpler functions; a bias or a gain only shifts
    or scales, and decaying it just makes it wrong (GPT-2 and GPT-3 do the same).
    """
    trained = [p for p in parameters if p.requires_grad]
    matrices = [p for p in trained if p.dim() >= 2]
    vectors = [p for p in trained if p.dim() < 2]
    groups = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def split_matrices(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Split parameters into the matrices inside the blocks (for muon) and all others (for adamw).

    Embeddings are tables of vectors, not maps between vectors, so orthogonalizing them has no meaning; the tied
    head goes with them.
    """
    inside: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (inside if parameter.dim() == 2 and name.startswith("h.") else others).append(parameter)
    return inside, others


def assert_covers(model: nn.Module, groups: Iterable[dict[str, object]]) -> None:
    """Every trained parameter must be in exactly one group: a forgotten one would silently never learn."""
    wanted = {id(p) for p in model.parameters() if p.requires_grad}
    given = [id(p) for group in groups for p in group["params"]]  # type: ignore[attr-defined]
    assert len(given) == len(set(given)), "a parameter is in two groups"
    assert set(given) == wanted, f"{len(wanted - set(given))} parameters are in no group"
