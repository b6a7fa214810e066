"""A trainer that only counts its steps, for the tests of callbacks."""

import contextlib
import types

import torch

from groundup.distributed.ranks import World
from groundup.loop.state import TrainState
from groundup.loop.trainer import StepMetrics


class FakeTrainer:
    """Counts steps as the trainer does, and tells callbacks."""

    def __init__(self, max_steps, *, start=0):
        self.state = TrainState(step=start, tokens_seen=100 * start)
        self.max_steps, self.tokens_per_step, self.stopped = max_steps, 100, False
        self.world, self.average = World(), None
        self.model = types.SimpleNamespace(
            config="config", state_dict=lambda: {"w": torch.tensor(self.state.step)}, parameters=lambda: []
        )
        self.model.train = lambda mode=True: setattr(self.model, "training", mode)
        self.model.eval = lambda: self.model.train(False)
        self.model.train()

    @property
    def finished(self):
        return self.state.step >= self.max_steps or self.stopped

    def whole_model(self):
        return self.model

    def shown(self):
        return contextlib.nullcontext()

    def run(self, callback, *, stop_at=None, seconds=0.5):
        callback.on_fit_start(self)
        while not self.finished:
            self.state.step += 1
            self.state.tokens_seen += 100
            self.state.seconds += seconds
            self.stopped = self.state.step == stop_at
            step = float(self.state.step)
            callback.on_step_end(self, StepMetrics(torch.tensor(step), torch.tensor(10 * step), 0.5, seconds))
        callback.on_fit_end(self)
