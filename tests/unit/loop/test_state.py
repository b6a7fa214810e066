import json
import math

from groundup.loop.state import TrainState


def test_goes_through_json_and_back():
    for state in (TrainState(), TrainState(7, 700, 1.5, 2.25, 6, 3, "a", 1)):
        assert TrainState.from_dict(json.loads(json.dumps(state.to_dict(), allow_nan=False))) == state


def test_no_loss_yet_is_null():
    assert TrainState().to_dict()["best_loss"] is None
    assert TrainState.from_dict(TrainState().to_dict()).best_loss == math.inf
