import contextlib
import math
import types

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fake_trainer import FakeTrainer
from groundup.evaluation.benchmarks import measure_choices
from groundup.evaluation.examples import ChoiceExample
from groundup.evaluation.loss import LossResult
from groundup.evaluation.scoring import Question
from groundup.loop.callbacks import Evaluate, Every, HellaSwag, Sample
from groundup.loop.log_metrics import LogMetrics
from groundup.loop.trainer import StepMetrics


class Notes:
    """Stands for a log and a display: remembers what it is told."""

    def __init__(self):
        self.rows, self.updates, self.lines, self.quotes = [], [], [], []
        self.titles, self.ticks, self.shares = [], [], []

    def write(self, **values):
        self.rows.append(values)

    def update(self, **values):
        self.updates.append(values)

    def say(self, text):
        self.lines.append(text)

    def quote(self, text, *, title):
        self.quotes.append(text)
        self.titles.append(title)

    def tick(self, step):
        self.ticks.append(step)

    def doing(self, what, share):
        self.shares.append((what, share))


@pytest.fixture
def notes():
    return Notes()


def log_metrics(notes, **changes):
    values = {"when": Every(4, first=1, last=True), "lr": 0.01, "flops_per_token": 6.0, "peak_flops": 2400.0}
    return LogMetrics(log=notes, display=notes, **{**values, **changes})


def test_metrics_are_logged_at_the_first_every_nth_and_the_last_step(notes):
    FakeTrainer(10).run(log_metrics(notes))
    assert [row["step"] for row in notes.rows] == [1, 4, 8, 10]
    row = notes.rows[1]
    assert row == {
        "step": 4, "tokens": 400, "seconds": 2.0, "train/loss": 4.0, "optim/lr": 0.005, "optim/grad_norm": 40.0,
        "perf/tokens_per_sec": 200.0, "perf/mfu": 0.5,
    }  # fmt: skip
    assert notes.updates[1] == {"step": 4, "loss": 4.0, "tokens_per_sec": 200.0, "mfu": 0.5, "left": 3.0}


def test_a_stopped_run_logs_its_last_step(notes):
    FakeTrainer(100).run(log_metrics(notes), stop_at=6)
    assert [row["step"] for row in notes.rows] == [1, 4, 6]


def test_speed_is_that_since_the_last_line(notes):
    trainer, callback = FakeTrainer(8), log_metrics(notes)
    slow = StepMetrics(torch.tensor(1.0), torch.tensor(1.0), 1.0, 2.0)
    fast = StepMetrics(torch.tensor(1.0), torch.tensor(1.0), 1.0, 0.25)
    for step in range(1, 9):
        trainer.state.step = step
        callback.on_step_end(trainer, slow if step <= 4 else fast)
    assert [row["perf/tokens_per_sec"] for row in notes.rows] == [50.0, 50.0, 400.0]


def test_the_parts_of_steps_are_averaged_since_the_last_line(notes):
    trainer, callback = FakeTrainer(6), log_metrics(notes)
    for step in range(1, 7):
        trainer.state.step = step
        # A GPU tells of an update one step late.
        parts = {"data": 0.001 * step, "optimizer": 0.004} if step > 1 else {"data": 0.001}
        callback.on_step_end(trainer, StepMetrics(torch.tensor(1.0), torch.tensor(1.0), 1.0, 0.5, parts))
    times = [{key: value for key, value in row.items() if key.endswith("_ms")} for row in notes.rows]
    assert times == [
        {"perf/data_ms": 1.0},
        {"perf/data_ms": 3.0, "perf/optimizer_ms": 4.0},
        {"perf/data_ms": 5.5, "perf/optimizer_ms": 4.0},
    ]


def test_without_a_known_peak_there_is_no_mfu(notes):
    FakeTrainer(1).run(log_metrics(notes, peak_flops=None))
    assert "perf/mfu" not in notes.rows[0]
    assert notes.updates[0]["mfu"] is None


def evaluate(notes, losses, *, from_start=False, anew=False):
    values = iter(losses)
    return Evaluate(
        when=Every(4, first=0, last=True),
        measure=lambda *, most, progress: LossResult(next(values), 1, 2.0),
        from_start=from_start,
        log=notes,
        display=notes,
        anew=anew,
    )


def test_evaluates_before_the_first_step_every_nth_and_after_the_last_once(notes):
    trainer = FakeTrainer(8)
    trainer.run(evaluate(notes, [5.0, 3.0, 4.0]))
    assert [row["step"] for row in notes.rows] == [0, 4, 8]
    row = notes.rows[1]
    assert row["val/loss"] == 3.0
    assert row["val/perplexity"] == pytest.approx(math.exp(3))
    assert row["val/bpb"] == pytest.approx(3 / math.log(2) / 2)
    assert (trainer.state.best_loss, trainer.state.best_step) == (3.0, 4)
    assert notes.lines[1].startswith("step 4: validation loss 3.0000")


def test_the_last_step_is_evaluated_even_between_two(notes):
    FakeTrainer(6).run(evaluate(notes, [5.0, 3.0, 4.0]))
    assert [row["step"] for row in notes.rows] == [0, 4, 6]


def test_a_resumed_run_does_not_evaluate_where_it_stopped(notes):
    FakeTrainer(8, start=4).run(evaluate(notes, [3.0]))
    assert [row["step"] for row in notes.rows] == [8]


def test_a_run_that_goes_on_with_another_text_measures_its_weights_anew(notes):
    trainer = FakeTrainer(8, start=4)
    trainer.state.best_loss, trainer.state.best_step = 2.0, 4
    assert not trainer.state.measure_on("a", before="")
    assert not trainer.state.measure_on("a", before="b")
    assert (trainer.state.best_loss, trainer.state.best_step) == (2.0, 4)
    assert trainer.state.measure_on("b", before="b")
    assert (trainer.state.best_loss, trainer.state.best_step) == (math.inf, -1)
    trainer.run(evaluate(notes, [4.0, 3.0], anew=True))
    assert [(row["step"], row["val/loss"], row["val/text"]) for row in notes.rows] == [(4, 4.0, 1), (8, 3.0, 1)]
    assert (trainer.state.best_loss, trainer.state.best_step) == (3.0, 8)


def test_a_state_that_does_not_say_its_text_is_of_the_one_before():
    assert FakeTrainer(8).state.measure_on("b", before="a")
    assert not FakeTrainer(8).state.measure_on("b", before="b")


@pytest.mark.parametrize("loss", [math.nan, math.inf, 5.0])
def test_no_better_loss_is_not_the_best(notes, loss):
    trainer = FakeTrainer(4)
    trainer.run(evaluate(notes, [5.0, loss], from_start=True))
    assert (trainer.state.best_loss, trainer.state.best_step) == (5.0, 0)


def test_random_weights_are_never_the_best(notes):
    trainer = FakeTrainer(8)
    trainer.run(evaluate(notes, [3.0, 5.0, 6.0]))
    assert (trainer.state.best_loss, trainer.state.best_step) == (5.0, 4)


def test_samples_between_but_not_at_the_end(notes, monkeypatch):
    asked = []

    class Generator:
        def __init__(self, model, tokenizer):
            assert (model.config, tokenizer) == ("config", "tokenizer")
            self.model = model

        def generate(self, prompt, **options):
            assert not self.model.training
            asked.append((prompt, options))
            return [" and so on"]

    monkeypatch.setattr("groundup.loop.callbacks.TextGenerator", Generator)
    sample = Sample(
        tokenizer="tokenizer", prompt="O", when=Every(3), max_new_tokens=7, seed=9, log=notes, display=notes
    )
    trainer = FakeTrainer(9)
    trainer.run(sample)
    assert trainer.model.training
    assert notes.rows == [{"step": step, "sample": "O and so on"} for step in (3, 6)]
    assert notes.quotes == ["O and so on"] * 2
    assert [title.split(",")[0] for title in notes.titles] == [f"step {row['step']}" for row in notes.rows]
    assert asked == [("O", {"max_new_tokens": 7, "seed": 9})] * 2


@given(n=st.integers(0, 6), first=st.none() | st.integers(0, 3), last=st.booleans(), steps=st.integers(1, 20))
def test_every_is_what_it_says(n, first, last, steps):
    """Against the steps written out one by one."""
    due = {first, *([k * n for k in range(1, steps + 1)] if n else [])} - {steps} | ({steps} if last else set())
    trainer = FakeTrainer(steps)
    for trainer.state.step in range(steps + 1):
        assert Every(n, first=first, last=last)(trainer) == (trainer.state.step in due)


def test_hellaswag_is_measured_every_nth_step_and_after_the_last(notes, tiny_model):
    """By the model itself, in evaluation mode, under the precision of the run."""
    entered = []

    @contextlib.contextmanager
    def autocast():
        entered.append(tiny_model.training)
        yield

    trainer = FakeTrainer(7)
    trainer.model, trainer.precision = tiny_model.train(), types.SimpleNamespace(autocast=autocast)
    examples = [ChoiceExample(Question([n, n + 1], [[n], [5, 6], [n + 2]]), n % 3) for n in range(6)]
    trainer.run(HellaSwag(examples=examples, when=Every(3, last=True), log=notes, display=notes))
    expected = measure_choices(tiny_model, examples)
    assert [row["step"] for row in notes.rows] == [3, 6, 7]
    for row in notes.rows:
        assert (row["hellaswag/acc"], row["hellaswag/acc_norm"]) == (expected.acc, expected.acc_norm)
        assert row["tokens"] == 100 * row["step"]
        assert row["perf/hellaswag_seconds"] >= 0
    assert len(entered) == 3
    assert tiny_model.training
    assert notes.lines[0] == f"step 3: HellaSwag {expected.acc:.4f}, by tokens {expected.acc_norm:.4f}"


def measured(notes, *, every, from_start=False):
    seen = []

    def measure(*, most, progress):
        seen.append(most)
        progress(0.5)
        n_tokens = most or 1_000_000
        return LossResult(n_tokens, n_tokens, 2.0)

    when = Every(every, last=True)
    return Evaluate(when=when, measure=measure, from_start=from_start, log=notes, display=notes), seen


def test_the_steep_part_of_a_curve_has_points_from_a_part_of_the_split(notes):
    callback, seen = measured(notes, every=300)
    trainer = FakeTrainer(700)
    trainer.run(callback)
    assert [row["step"] for row in notes.rows] == [0, 25, 50, 100, 200, 300, 600, 700]
    assert [row.get("val/tokens") for row in notes.rows] == [16384] + [65536] * 4 + [None] * 3
    assert seen == [16384] + [65536] * 4 + [0] * 3
    assert trainer.state.best_step == 300  # a part picks no best
    assert notes.shares[0] == ("validating", 0.5)
    assert notes.lines[1].endswith("of 65,536 tokens")


def test_where_evaluations_are_frequent_they_are_enough(notes):
    callback, _ = measured(notes, every=40)
    FakeTrainer(90).run(callback)
    assert [row["step"] for row in notes.rows] == [0, 25, 40, 80, 90]


def test_a_trained_model_is_measured_whole_before_its_first_step(notes):
    callback, seen = measured(notes, every=10, from_start=True)
    FakeTrainer(10).run(callback)
    assert seen == [0, 0]


def test_the_bar_moves_with_every_step(notes):
    FakeTrainer(5).run(log_metrics(notes, when=Every(3, first=1, last=True)))
    assert sorted(notes.ticks + [update["step"] for update in notes.updates]) == [1, 2, 3, 4, 5]


def test_the_first_line_does_not_wait_for_the_peak(notes):
    callback = log_metrics(notes, when=Every(1), peak_flops=None, measure_peak=lambda: 2400.0)
    FakeTrainer(3).run(callback)
    assert [row.get("perf/mfu") for row in notes.rows] == [None, 0.5, 0.5]


@pytest.mark.parametrize(("second_look", "mfu"), [(8e4, 0.5), (1e4, None)])
def test_no_share_of_the_peak_is_above_one(notes, second_look, mfu):
    callback = log_metrics(notes, peak_flops=1e4)  # 200 tokens/s at 200 FLOPs are 4e4
    callback.flops_per_token, callback.measure_peak = 200.0, lambda: second_look
    FakeTrainer(1).run(callback)
    assert notes.rows[0].get("perf/mfu") == mfu


@pytest.mark.parametrize(("steps", "measured"), [(59, False), (61, True)])  # of half a second each
def test_the_peak_is_measured_again_at_the_end_of_a_session_that_was_long(notes, steps, measured):
    FakeTrainer(steps).run(callback := log_metrics(notes, measure_peak=lambda: 3000.0))
    callback.on_fit_end(FakeTrainer(steps))
    last = {"perf/peak_flops_start": 2400.0, "perf/peak_flops_end": 3000.0}
    assert (last.items() <= notes.rows[-1].items()) == measured
