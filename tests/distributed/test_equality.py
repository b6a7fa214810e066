"""The same step on any number of ranks, however they share it."""

import numpy as np
import pytest
import ranks
import torch

from groundup.distributed.ranks import World
from groundup.kernels.training import load_training_kernels
from groundup.runtime.matmul import onednn_is_there


def largest_difference(a, b):
    return max(np.abs(x - y).max() for x, y in zip(a, b, strict=True))


SINGLE = {"accumulate": 1, "dtype": torch.float32}
OPTIONS = {
    2: [
        {"parallel": "ddp", "accumulate": 4},
        {"parallel": "ddp", "accumulate": 2, "optimizer": "muon"},
        {"parallel": "fsdp", "accumulate": 2},
        {"parallel": "ddp", **SINGLE},
        {"parallel": "fsdp", **SINGLE},
    ],
    3: [{"parallel": "ddp", "accumulate": 1}, {"parallel": "fsdp", "accumulate": 1}],
}
"""By ranks; 3 of them, because 1/3 is no binary number."""


@pytest.mark.fault(
    "D3",
    "10 steps on 2 or 3 ranks, DDP or FSDP, against one process",
    "losses, and gradients of the first step, to 1e-6 in fp32; gradients to 1e-12 and weights to 1e-11 in fp64",
)
@pytest.mark.parametrize("size", OPTIONS)
def test_ten_steps_are_those_of_one_process(size, start, tmp_path):
    """Losses and gradients to 1e-6 in float32; in float64 also norms, and weights to 1e-11."""
    split = ranks.make_split(tmp_path)
    everybody = start(size, "learn_together", options=OPTIONS[size]).results()
    references = {}
    for number, option in enumerate(OPTIONS[size]):
        same = {"optimizer": option.get("optimizer", "adamw"), "dtype": option.get("dtype", torch.float64)}
        key = tuple(same.values())
        if key not in references:
            references[key] = ranks.learn(World(), split, parallel="none", accumulate=1, **same)
        reference = references[key]
        for results in everybody:
            assert_same(results[number], reference, exact=same["dtype"] == torch.float64)


def assert_same(result, reference, *, exact):
    assert result["losses"] == pytest.approx(reference["losses"], abs=1e-6)
    assert largest_difference(result["gradients"], reference["gradients"]) <= (1e-12 if exact else 1e-6)
    if exact:
        assert result["norms"] == pytest.approx(reference["norms"], rel=1e-9)
        assert min(reference["norms"]) > 0.2  # clipping had something to do
        assert result["weights"].keys() == reference["weights"].keys()
        assert largest_difference(result["weights"].values(), reference["weights"].values()) <= 1e-11


@pytest.mark.parametrize("kind", ranks.FITS_KERNELS)
def test_kernels_compute_the_same_where_ranks_have_shares_of_weights(kind, start, tmp_path):
    """Between a block's way there and its way back its weights are gone, and come again to another place."""
    calls = getattr(load_training_kernels(print), "one_call", {})
    if not calls:
        pytest.skip("needs a C++ compiler")
    split = ranks.make_split(tmp_path)
    cases = [{"precision": "fp32"}, *([{"precision": "bf16"}] if torch.bfloat16 in calls else [])]
    cases += [{"matmul": matmul} for matmul in ("onednn", "kernels") if onednn_is_there(ranks.CPU)]
    cases = [{"kind": kind, "accumulate": 2, "dtype": torch.float32, **case} for case in cases]
    options = [{"parallel": parallel, **case} for case in cases for parallel in ("ddp", "fsdp")]
    results, _ = start(2, "learn_together", options=options).results()
    for number, option in enumerate(options):
        reference = ranks.learn(World(), split, **{**option, "parallel": "none"})
        if option.get("precision") == "bf16":
            assert results[number]["losses"] == pytest.approx(reference["losses"], abs=3e-3)
            assert results[number]["norms"] == pytest.approx(reference["norms"], rel=3e-2)
        else:
            assert_same(results[number], reference, exact=False)
