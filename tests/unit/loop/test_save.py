"""When a run saves, and which weights it keeps."""

import types

import pytest
import torch

from fake_trainer import FakeTrainer
from groundup.checkpoint.folders import step_folders
from groundup.checkpoint.model_folder import load_model
from groundup.config.errors import UserError
from groundup.files import atomic
from groundup.loop.callbacks import Every
from groundup.loop.save import KeepGrowth, SaveCheckpoints


class Store:
    def __init__(self):
        self.saved, self.waits = [], 0

    busy = False

    def check(self):
        pass

    def wait(self):
        self.waits += 1

    def save(self, contents):
        self.saved.append((contents.step, contents.is_best))

    def reserve(self, contents):
        self.saved.append(f"reserve {contents.step}")

    def save_later(self, contents):
        self.save(contents)
        self.saved.append("later")


def checkpoint(store, **options):
    def capture(trainer):
        step = trainer.state.step
        return types.SimpleNamespace(step=step, is_best=trainer.state.best_step == step), {}

    return SaveCheckpoints(store=store, when=Every(4), capture=capture, **options)


def test_saves_every_nth_step_and_the_last_once():
    store = Store()
    FakeTrainer(8).run(checkpoint(store))
    assert store.saved == [(4, False), (8, False)]
    store = Store()
    FakeTrainer(6).run(checkpoint(store))
    assert store.saved == [(4, False), (6, False)]


def test_in_the_background_all_but_the_last():
    """Memory is got ready after the first step; a step that must wait says so; the end waits."""
    store, said = Store(), []
    FakeTrainer(10).run(checkpoint(store, background=True, say=said.append))
    assert store.saved == ["reserve 1", (4, False), "later", (8, False), "later", (10, False)]
    assert store.waits == 2
    assert said == []
    store.busy = True
    FakeTrainer(10).run(checkpoint(store, background=True, say=said.append))
    assert said == [f"step {n}: waiting until the checkpoint before it is written" for n in (4, 8)]


def test_a_failure_in_the_background_stops_the_run_at_the_next_step():
    class Failing(Store):
        def check(self):
            if self.saved:
                raise UserError("the disk is full")

    store, trainer = Failing(), FakeTrainer(10)
    with pytest.raises(UserError, match="the disk is full"):
        trainer.run(checkpoint(store, background=True))
    assert trainer.state.step == 2


def test_a_stopped_run_is_saved_where_it_stopped():
    store = Store()
    FakeTrainer(100).run(checkpoint(store), stop_at=3)
    assert store.saved == [(3, False)]


def test_stopped_before_its_first_step_a_resumed_run_saves_nothing():
    store, trainer = Store(), FakeTrainer(100, start=7)
    trainer.stopped = True
    trainer.run(checkpoint(store))
    assert store.saved == []


def test_a_new_best_is_saved_at_once_and_marked():
    store, trainer = Store(), FakeTrainer(4)
    trainer.state.best_step = 3
    trainer.run(checkpoint(store))
    assert store.saved == [(3, True), (4, False)]


def test_what_a_run_begins_with_is_saved_where_it_may_stay_the_best():
    store, trainer = Store(), FakeTrainer(5)
    trainer.state.best_step = 0
    trainer.run(checkpoint(store, from_start=True))
    assert store.saved == [(0, True), (4, False), (5, False)]
    store = Store()
    FakeTrainer(6, start=5).run(checkpoint(store, from_start=True))
    assert store.saved == [(6, False)]


def test_weights_that_were_measured_anew_are_saved_with_it():
    store, trainer = Store(), FakeTrainer(6, start=5)
    trainer.state.best_step = 5
    trainer.run(checkpoint(store, anew=True))
    assert store.saved == [(5, True), (6, False)]


def test_growth_is_kept_at_doubling_steps_and_each_has_the_weights_of_its_step(tmp_path, tiny_model, alphabet):
    trainer = FakeTrainer(11)
    trainer.model = tiny_model

    class Drift(KeepGrowth):
        def on_step_end(self, trainer, metrics):
            with torch.no_grad():
                trainer.model.ln_f.weight.fill_(trainer.state.step)
            super().on_step_end(trainer, metrics)

    trainer.run(Drift(folder=tmp_path / "growth", tokenizer=alphabet, say=pytest.fail))
    folders = step_folders(tmp_path / "growth")
    assert list(folders) == [0, 1, 2, 4, 8]
    for step, folder in list(folders.items())[1:]:
        loaded = load_model(folder)
        assert loaded.info == {"step": step}
        assert loaded.model.ln_f.weight.unique().tolist() == [loaded.info["step"]]


def test_a_resumed_run_keeps_only_what_comes(tmp_path, tiny_model, alphabet):
    trainer = FakeTrainer(9, start=5)
    trainer.model = tiny_model
    trainer.run(KeepGrowth(folder=tmp_path / "growth", tokenizer=alphabet, say=pytest.fail))
    assert step_folders(tmp_path / "growth") == {8: tmp_path / "growth" / "step-0000008"}


@pytest.mark.fault(
    "E9",
    "the folder of the weights that show how a model grows cannot be made, listed or written",
    "the line that is lost is told, and training goes on",
)
def test_training_goes_on_without_growth(tmp_path, tiny_model, alphabet, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    said = []
    trainer = FakeTrainer(5)
    trainer.model = tiny_model
    trainer.run(KeepGrowth(folder=tmp_path / "file", tokenizer=alphabet, say=said.append))
    assert trainer.finished
    assert [line.partition(": the weights")[0] for line in said] == ["step 0", "step 1", "step 2", "step 4"]
    assert all(f"{tmp_path / 'file'} is a file where a folder is needed" in line and "\n" not in line for line in said)

    trainer = FakeTrainer(5, start=3)
    trainer.model = tiny_model
    monkeypatch.setattr(
        atomic, "write_synced", lambda path, data: (_ for _ in ()).throw(OSError(5, "Input/output error"))
    )
    trainer.run(KeepGrowth(folder=tmp_path / "growth", tokenizer=alphabet, say=said.append))
    assert said[-1].endswith("Input/output error")
    assert step_folders(tmp_path / "growth") == {}


def test_growth_makes_no_run_folder_anew(tmp_path, tiny_model, alphabet):
    said = []
    trainer = FakeTrainer(5, start=3)
    trainer.model = tiny_model
    trainer.run(KeepGrowth(folder=tmp_path / "moved" / "growth", tokenizer=alphabet, say=said.append))
    assert [line.partition(": the weights")[0] for line in said] == ["step 4"]
    assert not (tmp_path / "moved").exists()
