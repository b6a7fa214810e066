import copy

import pytest

from groundup.config.errors import UserError
from groundup.training.snapshot import check_state

STATE = {
    "train": {"step": 4, "tokens_seen": 64, "seconds": 1.0, "best_loss": None, "best_step": -1, "skipped_steps": 0},
    "data": {"consumed": 8, "block_size": 8, "seed": 1, "fingerprint": "ab"},
    "optimizers": [{"numbers": {"0.step": 4}, "param_groups": [{"lr": 1e-3, "params": [0]}]}],
    "scaler": {},
    "guard": {"losses": [2.0], "grad_norms": [1], "skipped_in_a_row": 0},
    "resolved": {"device": "cpu", "precision": "fp32", "matmul": "default", "parallel": "none", "processes": 1,
                 "micro_batch_size": 2, "threads": 1, "compile": "off", "vocab_size": 27},
}  # fmt: skip


@pytest.mark.fault("A17", "training.json of a wrong shape", "the checkpoint is passed over, with the dotted path")
@pytest.mark.parametrize(
    ("way", "value", "message"),
    [
        (("train", "step"), "4", 'state.train.step must be int, got "4"'),
        (("train", "step"), 10**30, "state.train.step must be from 0"),
        (("data", "consumed"), -1, "state.data.consumed must be from 0"),
        (("data", "consumed"), 2**62, "state.data.consumed is 4611686018427387904 samples of 8 tokens, which are"),
        (("optimizers", 0, "numbers"), [], r"state.optimizers\[0\].numbers must be an object"),
        (("optimizers", 0, "param_groups", 0, "lr"), "x", r"state.optimizers\[0\].param_groups must be objects"),
        (("guard", "losses"), [None], r"state.guard"),
        (("resolved", "threads"), None, "state.resolved.threads must be int, got null"),
        (("scaler",), [], "state.scaler must be an object"),
    ],
)
def test_a_wrong_value_is_named_by_its_dotted_path(way, value, message):
    check_state(STATE)
    state = copy.deepcopy(STATE)
    place = state
    for key in way[:-1]:
        place = place[key]
    place[way[-1]] = value
    with pytest.raises(UserError, match=message):
        check_state(state)
