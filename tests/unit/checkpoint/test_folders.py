"""Which folder of a run holds its model."""

import json

import pytest

from groundup.checkpoint.folders import find_model
from groundup.checkpoint.model_folder import load_model, save_model
from groundup.config.errors import UserError


@pytest.fixture
def run(store, save, small_model, alphabet):
    """run(steps, info, max_steps): the folder of a run with checkpoints, and with a model/ that notes `info`."""

    def make(steps, info, *, max_steps=None):
        for step in steps:
            save(step)
        folder = store.folder.parent
        save_model(folder / "model", small_model, alphabet, info)
        if max_steps:
            (folder / "config.json").write_text(json.dumps({"max_steps": max_steps}))
        return folder

    return make


def name_of(folder):
    return find_model(folder).name


def test_a_run_that_is_over_is_its_best_weights(run, save):
    """However far below the last step they are; and until a run that goes on has saved something."""
    folder = run([50, 60], {"step": 20, "run_step": 60}, max_steps=60)
    assert name_of(folder) == "model"
    (folder / "config.json").write_text(json.dumps({"max_steps": 100}))
    assert name_of(folder) == "model"


@pytest.mark.fault(
    "D1",
    "a run that was over goes on, and is stopped, killed or looked at before it is over again",
    "its model is that of its newest checkpoint, not the model/ of before",
)
@pytest.mark.parametrize(
    ("info", "max_steps"),
    [
        ({"step": 20, "run_step": 60}, 100),
        ({"step": 20, "run_step": 60}, 70),  # killed before it made its model/
        ({"step": 20, "run_step": 60}, None),
        ({"step": 20}, 100),  # made before that was noted
    ],
)
def test_a_run_that_went_on_is_its_newest_checkpoint(run, save, info, max_steps):
    folder = run([50, 60], info, max_steps=max_steps)
    save(70)
    assert name_of(folder) == "step-0000070"
    assert load_model(folder).info["step"] == 70
    assert (folder / "model").is_dir()


@pytest.mark.parametrize(
    ("steps", "info", "max_steps"),
    [
        ([50, 60], {"step": 20}, 60),
        ([50, 60], {"step": 20}, None),  # moved without its config.json
        ([50, 60], {"step": 60}, 100),  # goes on, and has not saved yet
        ([20], {"step": 20}, 60),  # but the best was removed, for its room
        ([], {"step": 20}, 60),
        ([50, 60], {}, 60),
        ([50, 60], {"step": "x", "run_step": "y"}, 60),
    ],
)
def test_a_model_of_before_that_was_noted_is_taken_where_its_run_is_over(run, steps, info, max_steps):
    assert name_of(run(steps, info, max_steps=max_steps)) == "model"


def test_without_a_whole_checkpoint_since_the_model_of_before_is_not_taken_silently(run, save):
    folder = run([50, 60], {"step": 20, "run_step": 60}, max_steps=100)
    (save(70) / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError) as error:
        find_model(folder)
    line = str(error.value)
    assert line.startswith(f"{folder} went on after its model/ was made, and has no whole checkpoint since: ")
    assert "step-0000070/tokenizer.json is damaged" in line
    assert line.endswith(f"give {folder / 'model'}")
    assert find_model(folder / "model") == folder / "model"


def test_a_run_that_was_longer_than_its_best_step_was_over_at_its_first_end(run, save):
    folder = run([50, 60], {"step": 20}, max_steps=100)
    (folder / "run.json").write_text(json.dumps({"config": {"max_steps": 60}}))
    assert name_of(folder) == "model"
    save(70)
    assert name_of(folder) == "step-0000070"
