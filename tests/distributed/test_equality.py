"""The same step on any number of ranks, however they share it."""

import numpy as np
import pytest
import ranks
import torch

from groundup.runtime.distributed import World


def largest_difference(a, b):
    return max(np.abs(x - y).max() for x, y in zip(a, b, strict=True))


def references(split, options, **common):
    """One process, once for each optimizer."""
    names = {option.get("optimizer", "adamw") for option in options}
    return {
        name: ranks.learn(World(), split, parallel="none", accumulate=1, optimizer=name, **common) for name in names
    }


OPTIONS = [
    {"parallel": "ddp", "accumulate": 1},
    {"parallel": "ddp", "accumulate": 4},
    {"parallel": "ddp", "accumulate": 2, "optimizer": "muon"},
    {"parallel": "fsdp", "accumulate": 1},
    {"parallel": "fsdp", "accumulate": 2},
]


@pytest.mark.parametrize("size", [2, 3])
def test_ten_steps_end_with_the_same_weights(size, start, tmp_path):
    """In float64: losses, norms, gradients, and weights to 1e-11. 3 ranks, because 1/3 is no binary number."""
    split = ranks.make_split(tmp_path)
    options = [o for o in OPTIONS if ranks.SAMPLES % (o["accumulate"] * size) == 0]
    assert len(options) == len(OPTIONS)
    everybody = start(size, "learn_together", options=options).results()
    wanted = references(split, options)
    for result, option in ((r, o) for results in everybody for r, o in zip(results, options, strict=True)):
        reference = wanted[option.get("optimizer", "adamw")]
        assert result["losses"] == pytest.approx(reference["losses"], abs=1e-6)
        assert result["norms"] == pytest.approx(reference["norms"], rel=1e-9)
        assert min(reference["norms"]) > 0.2  # clipping had something to do
        assert largest_difference(result["gradients"], reference["gradients"]) <= 1e-12
        assert result["weights"].keys() == reference["weights"].keys()
        assert largest_difference(result["weights"].values(), reference["weights"].values()) <= 1e-11


def test_losses_and_gradients_are_the_same_in_float32(start, tmp_path):
    split = ranks.make_split(tmp_path)
    options = [{**option, "dtype": torch.float32} for option in OPTIONS if "optimizer" not in option]
    wanted = references(split, options, dtype=torch.float32)["adamw"]
    for results in start(2, "learn_together", options=options).results():
        for result in results:
            assert result["losses"] == pytest.approx(wanted["losses"], abs=1e-6)
            assert largest_difference(result["gradients"], wanted["gradients"]) <= 1e-6
