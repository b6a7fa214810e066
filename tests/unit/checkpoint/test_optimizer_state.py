import pytest
import torch
from torch import nn

from groundup.checkpoint.optimizer_state import flatten_optimizer, load_flat_optimizer
from groundup.config.errors import UserError
from groundup.optim.muon import Muon

OPTIMIZERS = {
    "adamw": lambda ps: torch.optim.AdamW(ps, lr=0.1),
    "adamw fused": lambda ps: torch.optim.AdamW(ps, lr=0.1, fused=True),
    "sgd": lambda ps: torch.optim.SGD(ps, lr=0.1, momentum=0.9),
    "muon": lambda ps: Muon(ps, lr=0.1),
}


def steps(optimizer, parameters, n, seed):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(n):
        for p in parameters:
            p.grad = torch.randn(p.shape, generator=generator)
        optimizer.step()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_goes_on_bit_for_bit(name):
    torch.manual_seed(0)
    whole = [nn.Parameter(torch.randn(4, 6)) for _ in range(3)]
    split = [nn.Parameter(p.detach().clone()) for p in whole]
    one, two = OPTIMIZERS[name](whole), OPTIMIZERS[name](split)
    steps(one, whole, 3, seed=1)
    steps(two, split, 3, seed=1)
    tensors, values = flatten_optimizer(two)
    tensors = {k: t.clone() for k, t in tensors.items()}
    three = OPTIMIZERS[name](split)
    load_flat_optimizer(three, tensors, values)
    steps(one, whole, 3, seed=2)
    steps(three, split, 3, seed=2)
    for p, q in zip(whole, split, strict=True):
        assert torch.equal(p, q)
    assert three.param_groups[0]["lr"] == 0.1


def test_what_cannot_be_stored_is_named():
    p = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([p], lr=0.1)
    optimizer.state[p]["odd"] = object()
    with pytest.raises(TypeError, match=r"optimizer state 0.odd of type object"):
        flatten_optimizer(optimizer)


DEEP: list = []
for _ in range(900):
    DEEP = [DEEP]


@pytest.mark.fault(
    "A17",
    "settings of an optimizer in training.json that are of another kind, or nested deep",
    "refused by their names",
)
@pytest.mark.parametrize(
    ("name", "value"),
    [("betas", {}), ("betas", [0.9]), ("betas", [0.9, [1]]), ("betas", 0.9), ("amsgrad", DEEP), ("eps", "1e-8"),
     ("weight_decay", 10**400), ("lr", "../x")],
)  # fmt: skip
def test_a_setting_that_cannot_be_one_is_refused_by_name(name, value):
    optimizer = torch.optim.AdamW(nn.Linear(2, 2).parameters())
    tensors, values = flatten_optimizer(optimizer)
    load_flat_optimizer(optimizer, tensors, values)
    values["param_groups"][0][name] = value
    with pytest.raises(UserError, match=f"its {name} is no setting of this run's optimizer"):
        load_flat_optimizer(optimizer, tensors, values)
