"""What goes wrong in the middle of training, by the command line: signals, disks, spikes, processes left behind."""

import errno
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from torch._dynamo.callback import callback_handler

from forked import ForkedPopen
from groundup.checkpoint.state import CheckpointStore
from groundup.cli.main import main
from groundup.data.loader import TrainBatches
from groundup.files import atomic as files
from groundup.loop.callbacks import Evaluate
from groundup.loop.trainer import Trainer
from groundup.model.loss import LossModule
from groundup.records.metrics import MetricsLog
from small_runs import checkpoints, column, plays, until

RUN = [
    "train", "shakespeare", "--data.source=text", "--data.path=text.txt", "--model.n-layer=1", "--model.n-head=2",
    "--model.n-embd=16", "--model.block-size=16", "--model.dropout=0.1", "--tokens-per-step=64",
    "--runtime.micro-batch-size=2", "--runtime.threads=1", "--runtime.compile=off", "--runtime.matmul=default",
    "--runtime.device=cpu", "--optim.name=adamw", "--eval.every=5", "--eval.max-tokens=200", "--eval.sample-every=0",
    "--checkpoint.every=5", "--log-every=1", "--name=run",
]  # fmt: skip


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch, short_ends) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(plays(100))
    return tmp_path


def newest():
    """The newest checkpoint that is whole; none is damaged."""
    return CheckpointStore(Path("runs/run/checkpoints")).latest_verified(pytest.fail).path.name


def act_in(monkeypatch, moment, act, *, number=0):
    """Do something once: in the data or the forward pass of step 7, in the evaluation after step 5, or at an operation
    on the disk of the save after step 10."""
    passes, done, operations = [], [], []
    forward, next_batch = LossModule.forward, TrainBatches.next_batch

    def once(here):
        if here and not done:
            done.append(1)
            act()

    def watched_batch(self):
        once(moment == "data" and len(passes) == 13)
        return next_batch(self)

    def watched_forward(self, idx, targets, *tokens):
        if torch.is_grad_enabled():
            passes.append(1)
        once(moment == "forward" and len(passes) == 14)
        once(moment == "eval" and len(passes) == 10 and not torch.is_grad_enabled())
        return forward(self, idx, targets, *tokens)

    def watched_operation(operation, path):
        if "step-0000010" in str(path):
            operations.append(1)
        once(moment == "save" and len(operations) > number)

    monkeypatch.setattr(TrainBatches, "next_batch", watched_batch)
    monkeypatch.setattr(LossModule, "forward", watched_forward)
    monkeypatch.setattr(files, "fault_point", watched_operation)
    return done


@pytest.mark.fault("E1", "SIGTERM, SIGINT or SIGHUP", "the step is finished and saved; exit code 143, 130 or 129")
@pytest.mark.fault(
    "E2", "a signal while data is read, in a pass, an evaluation or a save", "saved within one more step"
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize(("moment", "step"), [("data", 7), ("forward", 7), ("eval", 6), ("save", 11)])
def test_a_signal_at_any_moment_saves_and_leaves(monkeypatch, moment, step, number):
    done = act_in(monkeypatch, moment, lambda: signal.raise_signal(number), number=3)
    assert main([*RUN, "--max-steps=100"]) == 128 + number
    assert done
    assert newest() == f"step-{step:07d}"
    assert column("run", "event") == ["stopped"]


def act_at_call(monkeypatch, k, act):
    """Do something at the k-th call of a Python function within Trainer.fit; a list that gets the step there is of, and
    one that gets the number of calls."""
    fit, steps, calls = Trainer.fit, [], []

    def watched(self):
        counter = itertools.count()

        def heard(frame, event, _):
            if event == "call" and next(counter) == k:
                steps.append(self.state.step)
                act()

        sys.setprofile(heard)
        try:
            fit(self)
        finally:
            sys.setprofile(None)
            calls.append(next(counter))

    monkeypatch.setattr(Trainer, "fit", watched)
    return steps, calls


@pytest.mark.slow
@pytest.mark.fault(
    "E2",
    "SIGTERM or SIGINT at any call of a Python function while a run trains, saving at once or in the background",
    "saved within one more step; resumed, it ends with the bytes of an undisturbed run",
)
def test_a_signal_at_any_call_saves_and_the_rest_is_as_if_nothing_had_been(monkeypatch, record_property):
    n, last, moments, hit = 50, 12, random.Random(2), 0
    for _ in range(2):  # the first run also imports
        with monkeypatch.context() as patch:
            _, calls = act_at_call(patch, -1, None)
            assert main([*RUN, f"--max-steps={last}"]) == 0
    whole = [(checkpoints()[-1] / name).read_bytes() for name in ("model.safetensors", "training.safetensors")]
    while hit < n:
        number = (signal.SIGTERM, signal.SIGINT)[hit % 2]
        words = ["--checkpoint.background=on"] if hit % 4 > 1 else []
        k = moments.randrange(calls[0])
        with monkeypatch.context() as patch:
            steps, _ = act_at_call(patch, k, lambda number=number: signal.raise_signal(number))
            code = main([*RUN, f"--max-steps={last}", *words])
        if not steps:  # fewer calls this time
            continue
        hit += 1
        stopped = int(newest().removeprefix("step-"))
        assert stopped - steps[0] <= 1, f"call {k}"
        assert code == (128 + number if stopped < last else 0), f"call {k}"
        if stopped < last:
            assert main(["train", "--resume", "runs/run"]) == 0
        assert newest() == f"step-{last:07d}"
        ends = [(checkpoints()[-1] / name).read_bytes() for name in ("model.safetensors", "training.safetensors")]
        assert ends == whole, f"call {k}"
    record_property("figure", f"{n} of {n} moments")


@pytest.mark.slow
@pytest.mark.fault("E2", "SIGTERM or SIGINT while the model is compiled", "the step is made and saved")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_compiling(monkeypatch, number):
    fit, done = Trainer.fit, []

    def once(arguments):
        if not done:
            done.append(arguments)
            signal.raise_signal(number)

    def watched(self):
        torch.compiler.reset()  # as if nothing had been compiled before the first step; forgets callbacks, too
        callback_handler.register_start_callback(once)
        fit(self)

    monkeypatch.setattr(Trainer, "fit", watched)
    try:
        assert main([*RUN, "--max-steps=100", "--runtime.compile=on"]) == 128 + number
    finally:
        torch.compiler.reset()
    assert done
    assert newest() == "step-0000001"


@pytest.mark.fault(
    "E1",
    "SIGTERM or SIGINT, then SIGINT at once, at 4 operations of a save",
    "exit code 130 without that checkpoint; the one before it loads, and --resume goes on",
)
@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("number", [0, 3, 7, 11])
def test_a_second_signal_leaves_at_once_and_harms_nothing(monkeypatch, first, number):
    def twice():
        signal.raise_signal(first)
        signal.raise_signal(signal.SIGINT)

    done = act_in(monkeypatch, "save", twice, number=number)
    assert main([*RUN, "--max-steps=100"]) == 130
    assert done
    assert newest() == "step-0000005"
    assert main(["train", "--resume", "runs/run", "--max-steps=6"]) == 0  # the act is done once


@pytest.mark.fault(
    "E2",
    "Ctrl-C, SIGTERM or SIGHUP before the first step: while data is opened, a model is compiled, pairs are counted, or"
    " the folder of an earlier run is taken",
    "one line; the earlier run lies where it lay, and nothing half-written beside it",
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize(
    "where", ["build.open_corpus", "build.build_loss_module", "run.fit_bigram", "run.write_file", "run.open_loggers"]
)
def test_a_signal_before_the_first_step_is_one_line(monkeypatch, capsys, where, number):
    Path("runs/run").mkdir(parents=True)
    Path("runs/run/metrics.jsonl").write_text("what an earlier run wrote")
    function = f"groundup.training.{where}"
    monkeypatch.setattr(function, lambda *_, **__: signal.raise_signal(number))
    assert main([*RUN, "--max-steps=100"]) == 128 + number
    told = "interrupted" if number == signal.SIGINT else f"ended by {number.name}"
    assert capsys.readouterr().err == f"groundup: {told}\n"
    left = sorted(str(path) for path in Path("runs").rglob("*"))
    assert left == ["runs/run", "runs/run/metrics.jsonl"]
    assert not list(Path().rglob(".tmp-*"))


@pytest.mark.fault("E2", "a signal during the evaluation before the first step", "saved after that step")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_during_the_first_evaluation(monkeypatch, number):
    started = Evaluate.on_fit_start
    monkeypatch.setattr(
        Evaluate, "on_fit_start", lambda self, trainer: (signal.raise_signal(number), started(self, trainer))
    )
    assert main([*RUN, "--max-steps=100"]) == 128 + number
    assert newest() == "step-0000001"
    assert column("run", "event") == ["stopped"]


@pytest.mark.fault(
    "E9", "the disk is full when a checkpoint is saved", "the run ends with one line; the one before it loads"
)
def test_a_checkpoint_that_cannot_be_written_ends_the_run(monkeypatch, capsys):
    def full():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "the disk")

    act_in(monkeypatch, "save", full, number=3)
    assert main([*RUN, "--max-steps=100"]) == 1
    error = capsys.readouterr().err
    assert "No space left on device" in error
    assert error.count("\n") == 1
    assert newest() == "step-0000005"


@pytest.mark.fault(
    "A16",
    "the run folder is moved while the run goes on, and the run saves, ends or is stopped, even twice",
    "it ends with one line that names the last checkpoint; nothing is made under the old name, the moved run goes on",
)
@pytest.mark.parametrize("end", ["save", "last step", "stop", "stop at once"])
def test_a_run_folder_that_is_moved(monkeypatch, capsys, end):
    make = Trainer.train_step

    def moved(self):
        metrics = make(self)
        if self.state.step == 7:
            Path("runs/run").rename("elsewhere")
            if end == "stop":
                os.kill(os.getpid(), signal.SIGTERM)
            if end == "stop at once":
                raise KeyboardInterrupt
        return metrics

    steps = 8 if end == "last step" else 50
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", moved)
        code = main([*RUN, f"--max-steps={steps}", "--checkpoint.growth"])
    printed = capsys.readouterr()
    assert code == (130 if end == "stop at once" else 1)
    line = (printed.out if end == "stop at once" else printed.err).splitlines()[-1]
    assert (
        "runs/run is not there any more, it was moved or removed; step-0000005 is the last checkpoint in it: " in line
    )
    assert "continue with" not in printed.out
    assert not Path("runs/run").exists()
    assert main(["train", "--resume", "elsewhere", "--max-steps=9"]) == 0
    assert "resumed at step 5 from elsewhere" in capsys.readouterr().out


def test_a_run_folder_that_goes_in_the_middle_of_a_save(monkeypatch, capsys):
    act_in(monkeypatch, "save", lambda: Path("runs/run").rename("elsewhere"), number=2)
    assert main([*RUN, "--max-steps=20"]) == 1
    assert "step-0000005 is the last checkpoint in it" in capsys.readouterr().err
    assert not Path("runs/run").exists()
    assert [path.name for path in Path("elsewhere/checkpoints").glob("step-*")] == ["step-0000005"]


@pytest.mark.fault("E9", "the log cannot be written", "one warning, and the run goes on to its end")
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's full disk")
def test_a_log_that_cannot_be_written_does_not(monkeypatch, capsys):
    write, lines = MetricsLog.write, []

    def full_after_3(self, **values):
        lines.append(values)
        if len(lines) == 4:
            self.path = Path("/dev/full")
        write(self, **values)

    monkeypatch.setattr(MetricsLog, "write", full_after_3)
    assert main([*RUN, "--max-steps=12"]) == 0
    assert capsys.readouterr().out.count("cannot be written (No space left on device)") == 1
    assert len(column("run", "step")) == 3
    assert newest() == "step-0000012"


def spikes(monkeypatch):
    """About every 12th batch has a loss 30 times as large as it should be: the batch decides, whenever it comes."""
    forward = LossModule.forward

    def spiky(self, idx, targets, *tokens):
        loss = forward(self, idx, targets, *tokens)
        return 30 * loss if torch.is_grad_enabled() and int(idx.sum()) % 12 == 0 else loss

    monkeypatch.setattr(LossModule, "forward", spiky)


@pytest.mark.fault(
    "D1", "taken back to a checkpoint, where spikes are skipped", "weights, moments, skips: the same bytes"
)
@pytest.mark.fault("E4", "spikes under guard.spikes skip, after resuming, too", "the same steps are skipped")
def test_skipping_goes_on_bit_for_bit(monkeypatch, record_property):
    """The window is in the checkpoint: the next spike is measured against 40 values from before."""
    spikes(monkeypatch)
    options = ["--guard.spikes=skip", "--eval.every=200", "--checkpoint.every=40", "--max-steps=80"]
    assert main([*RUN, *options, "--name=whole"]) == 0
    assert main([*RUN, *options]) == 0
    for path in checkpoints()[-1:]:
        path.rename("later")
    assert checkpoints()[-1].name == "step-0000040"
    assert main(["train", "--resume", "runs/run"]) == 0
    ends = [checkpoints(name)[-1] for name in ("whole", "run")]
    assert ends[0].name == ends[1].name == "step-0000080"
    for name in ("model.safetensors", "training.safetensors"):
        assert (ends[0] / name).read_bytes() == (ends[1] / name).read_bytes(), name
    states = [json.loads((end / "training.json").read_text())["state"] for end in ends]
    assert states[0]["guard"] == states[1]["guard"]
    assert states[0]["train"]["skipped_steps"] == states[1]["train"]["skipped_steps"] > 3
    skipped = [event for event in column("whole", "event") if "is a spike" in event]
    assert skipped == [event for event in column("run", "event") if "is a spike" in event]
    assert any(int(event.split()[1][:-1]) > 40 for event in skipped)
    record_property("figure", f"{len(skipped)} steps of 80 skipped")


@pytest.mark.fault("E4", "a loss spike under guard.spikes stop", "one line; a resumed run may skip it instead")
def test_a_spike_can_stop_the_run_and_be_skipped_when_it_is_resumed(monkeypatch, capsys):
    spikes(monkeypatch)
    assert main([*RUN, "--guard.spikes=stop", "--max-steps=80", "--eval.every=200", "--checkpoint.every=10"]) == 1
    error = capsys.readouterr().err
    assert "is a spike" in error
    assert "--guard.spikes skip" in error
    assert error.count("\n") == 1
    assert main(["train", "--resume", "runs/run", "--guard.spikes=skip"]) == 0
    assert newest() == "step-0000080"


def test_auto_takes_all_that_fit_and_resumes_with_what_it_learned(capsys):
    assert main([*RUN, "--runtime.micro-batch-size=auto", "--max-steps=5"]) == 0
    assert json.loads(Path("runs/run/run.json").read_text())["resolved"]["micro_batch_size"] == 4
    file = checkpoints()[-1] / "training.json"
    assert json.loads(file.read_text())["state"]["resolved"]["micro_batch_size"] == 4
    capsys.readouterr()
    assert main([*RUN, "--name=odd", "--runtime.micro-batch-size=auto", "--tokens-per-step=70", "--max-steps=5"]) == 2
    assert "tokens_per_step must be a multiple" in capsys.readouterr().err
    assert main([*RUN, "--runtime.micro-batch-size=auto", "--dry-run"]) == 0
    assert "64 = 4 x 1 x 16, as many at a time as fit" in capsys.readouterr().out


@pytest.mark.fault(
    "E11", "the end of a run of one process, by itself or by SIGKILL", "no process is left 10 seconds later"
)
@pytest.mark.skipif(sys.platform != "linux", reason="reads the environment of processes")
@pytest.mark.parametrize("killed", [False, True])
def test_no_process_is_left(killed, tmp_path):
    environment = {**os.environ, "GROUNDUP_TEST_MARK": str(tmp_path)}
    steps = "--max-steps=100000" if killed else "--max-steps=5"
    process = ForkedPopen(
        [sys.executable, "-m", "groundup", *RUN, steps],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    if killed:
        until(checkpoints)
        process.kill()
    assert process.wait(240) == (-signal.SIGKILL if killed else 0)
    assert not left(str(tmp_path), process.pid)


def left(mark, session, seconds=10.0):
    """Processes of the session, or with the mark in their environment, that do not end by themselves."""
    end = time.monotonic() + seconds
    while True:
        found = []
        for process in psutil.process_iter():
            try:
                ours = os.getsid(process.pid) == session or process.environ().get("GROUNDUP_TEST_MARK") == mark
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.Error, ProcessLookupError):
                continue
        if not found or time.monotonic() > end:
            return found
        time.sleep(0.1)
