"""Runs of several ranks, through the command line."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
from pathlib import Path

import pytest

from groundup.checkpoint.tensor_file import load_tensors
from groundup.cli.main import main
from groundup.kernels.training import TrainingKernels, load_training_kernels
from small_runs import checkpoints, column, plays, until

FLAGS = [
    "--data.source=text", "--data.path=text.txt", "--model.n-layer=2", "--model.n-head=2", "--model.n-embd=16",
    "--model.block-size=16", "--tokens-per-step=256", "--runtime.micro-batch-size=4", "--runtime.threads=1",
    "--runtime.compile=off", "--runtime.device=cpu", "--optim.name=adamw", "--optim.warmup-steps=3", "--eval.every=8",
    "--eval.sample-every=8", "--eval.sample-tokens=5", "--checkpoint.every=4", "--log-every=1",
]  # fmt: skip


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch, short_ends):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(plays(60))
    return tmp_path


@pytest.fixture
def train(start, place):
    """train(size, name, ...) -> (exit codes by rank, team): a new run, or with --resume the rest of one."""

    def run(size, name, *words, wait=True, patch=None, per_rank=None, resume=False):
        base = ["--resume", f"runs/{name}"] if resume else ["shakespeare", f"--name={name}", *FLAGS]
        team = start(size, "command", words=["train", *base, *words], patch=patch, per_rank=per_rank)
        return (team.results() if wait else None), team

    return run


def short_of_time():
    """How many seconds the ranks had that have 6 now."""
    return [path.read_text() for path in Path().glob("short?.txt")]


def free_port():
    """Below those that the system hands out: nobody takes it before it is used."""
    for port in range(20_000 + os.getpid() % 1000 * 10, 32_768):
        with contextlib.suppress(OSError), socket.create_server(("", port)):
            return port
    raise AssertionError("no port is free")


def test_rank_0_alone_writes_and_prints(train, place):
    codes, team = train(2, "two", "--max-steps=8")
    assert codes == [0, 0], team.texts()
    assert "on cpu in fp32, 2 processes (ddp)" in team.text(0)
    assert "what to try next" in team.text(0)
    assert team.text(1) == ""
    assert [r for r in column("two", "step") if r == 8]
    assert len(column("two", "train/loss")) == 8
    assert column("two", "tokens")[-1] == 8 * 256
    run = json.loads(Path("runs/two/run.json").read_text())
    assert run["resolved"]["parallel"] == "ddp"
    assert run["resolved"]["processes"] == 2
    assert run["command"].startswith("torchrun --standalone --nproc_per_node 2 -m groundup train shakespeare")
    assert main(["generate", "runs/two", "--prompt=the", "--max-new-tokens=3"]) == 0


@pytest.mark.fault(
    "D2",
    "stopped and resumed with 1 -> 2 -> 4 -> 1 ranks, FSDP on 2 and 4",
    "the run of one process, by its place and its losses",
)
@pytest.mark.fault(
    "D3",
    "16 steps on 1 -> 2 -> 4 -> 1 ranks",
    "losses, gradient norms, validation loss: to 1e-6 those of one process",
)
def test_resumed_with_other_world_sizes_it_is_the_same_run(train):
    """1 -> 2 -> 4 -> 1 ranks, each stopped by a signal, against one process: the same samples, losses to 1e-6.

    The optimizer's state is saved whole, in 2 shares and in 4, and each is read by another number of ranks.
    """
    options = ["--max-steps=16", "--eval.sample-every=0"]
    assert main(["train", "shakespeare", "--name=whole", *FLAGS, *options]) == 0
    sessions = [(1, "ddp", "stop_after_4_steps"), (2, "fsdp", "stop_after_4_steps"),
                (4, "fsdp", "stop_after_4_steps"), (1, "ddp", None)]  # fmt: skip
    for number, (size, parallel, patch) in enumerate(sessions):
        words = [*(options if number == 0 else []), f"--runtime.parallel={parallel}"]
        codes, team = train(size, "parts", *words, patch=patch, resume=number > 0)
        assert codes == [143 if patch else 0] * size, team.texts()
        assert number == 0 or f"resumed at step {4 * number}" in team.text(0)
        assert checkpoints("parts")[-1].name == f"step-{4 * (number + 1):07d}"
        shares = list(checkpoints("parts")[-1].glob("shard-*.safetensors"))
        assert len(shares) == (size if parallel == "fsdp" else 0)

    whole, parts = checkpoints("whole")[-1], checkpoints("parts")[-1]
    places = [json.loads((path / "training.json").read_text())["state"]["data"] for path in (whole, parts)]
    assert places[0] == places[1]
    assert places[0]["consumed"] == 16 * 256 // 16
    assert column("parts", "train/loss") == pytest.approx(column("whole", "train/loss"), abs=1e-6)
    assert column("parts", "optim/grad_norm") == pytest.approx(column("whole", "optim/grad_norm"), abs=1e-6)
    assert column("parts", "val/loss") == pytest.approx(column("whole", "val/loss"), abs=1e-6)


@pytest.mark.parametrize(("size", "parallel"), [(1, "ddp"), (2, "ddp"), (2, "fsdp")])
def test_shares_are_computed_as_the_run_began(train, size, parallel):
    """By one process, by copies or by shares: blocks in one call each way, where that measured faster."""
    if not isinstance(load_training_kernels(print), TrainingKernels):
        pytest.skip("needs a C++ compiler")
    options = ["--model.kind=gpt", "--model.n-head=1", "--runtime.precision=fp32", "--max-steps=8"]
    options.append("--eval.sample-every=0")
    assert train(1, "whole", *options, patch="in_one_call")[0] == [0]
    begin = [*options, f"--runtime.parallel={parallel}"]
    assert train(size, "parts", *begin, patch="in_one_call_for_4_steps")[0] == [143] * size
    codes, team = train(2, "parts", "--runtime.parallel=fsdp", resume=True)
    assert codes == [0, 0], team.texts()
    resolved = json.loads((checkpoints("parts")[-1] / "training.json").read_text())["state"]["resolved"]
    assert (resolved["parallel"], resolved["matmul"], resolved["one_call"]) == ("fsdp", "default", True)
    for what in ("train/loss", "optim/grad_norm", "val/loss"):
        assert column("parts", what) == pytest.approx(column("whole", what), abs=1e-6)


@pytest.mark.fault(
    "D1", "two ranks, DDP or FSDP, stopped and resumed", "weights, moments and generators end with the same bytes"
)
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_resume_is_bitwise(train, parallel):
    """With dropout: every rank's generators are in the checkpoint."""
    options = ["--model.dropout=0.2", "--max-steps=8", f"--runtime.parallel={parallel}", "--eval.sample-every=0"]
    assert train(2, "whole", *options)[0] == [0, 0]
    codes, team = train(2, "parts", *options, patch="stop_after_4_steps")
    assert codes == [143, 143], team.texts()
    assert train(2, "parts", resume=True)[0] == [0, 0]
    whole, parts = checkpoints("whole")[-1], checkpoints("parts")[-1]
    names = sorted(path.name for path in whole.glob("*.safetensors"))
    assert len(names) == (4 if parallel == "fsdp" else 2)
    for name in names:  # shares are written by torch, whose headers name things in any order
        if name.startswith("shard-"):
            tensors = load_tensors(parts / name)
            assert all(t.equal(tensors.pop(key)) for key, t in load_tensors(whole / name).items()), name
            assert tensors == {}
        else:
            assert (whole / name).read_bytes() == (parts / name).read_bytes(), name
    generators = {k: t for k, t in load_tensors(whole / "training.safetensors").items() if k.startswith("rng")}
    assert set(generators) == {"rng/cpu", "rng1/cpu"}
    assert not generators["rng/cpu"].equal(generators["rng1/cpu"])


@pytest.mark.fault("E1", "SIGTERM or SIGINT to one of two ranks", "both leave after the step, saved, with 143 or 130")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_one_rank_saves_and_stops_all(train, number):
    _, team = train(2, "stopped", "--max-steps=100000", wait=False)
    until(lambda: len(checkpoints("stopped")) >= 2)
    os.kill(team.processes[1].pid, number)
    assert team.results() == [128 + number] * 2
    assert "continue with: torchrun --standalone --nproc_per_node 2 -m groundup train --resume" in team.text(0)
    assert team.text(1) == ""
    step = int(checkpoints("stopped")[-1].name.removeprefix("step-"))
    assert step == column("stopped", "step")[-1]
    assert main(["train", "--resume", "runs/stopped", f"--max-steps={step + 1}"]) == 0


@pytest.mark.fault("E3", "NaN on one rank only", "both ranks stop before their weights change; the rank is named")
def test_nan_on_one_rank_stops_all_before_any_weight_changes(train):
    codes, team = train(2, "nan", "--max-steps=100", "--eval.every=100", patch="nan_on_rank_1")
    assert codes == [1, 1]
    errors = [line for line in (team.text(0) + team.text(1)).splitlines() if line.startswith("groundup:")]
    assert len(errors) == 1
    reason = r"the loss is nan and the gradient norm nan \(on rank 1; first in wte.weight; samples 32 to 47\)"
    assert re.match(rf"groundup: step 3: {reason}; the weights are those of the step before", errors[0])
    assert column("nan", "step")[-1] == 2
    assert checkpoints("nan") == []


@pytest.mark.fault("E3", "NaN on one rank only, under guard.nonfinite skip", "both ranks skip; weights stay equal")
def test_nan_on_one_rank_is_skipped_by_all(train):
    words = ["--max-steps=8", "--guard.nonfinite=skip", "--runtime.check-replicas-every=1"]
    codes, team = train(2, "skips", *words, patch="nan_on_rank_1")
    assert codes == [0, 0], team.texts()
    assert column("skips", "event") == ["step 3: the loss is nan and the gradient norm nan, skipped (samples 32 to 47)"]
    assert column("skips", "train/loss")[2] is None
    assert column("skips", "optim/skipped_steps") == [1] * 6


@pytest.mark.fault("E6", "one of two ranks runs out of memory", "both halve micro-batches and make the step again")
def test_a_rank_without_memory_makes_all_halve(train, record_property):
    words = ["--max-steps=8", "--model.dropout=0", "--eval.sample-every=0"]
    assert train(2, "fixed", *words, "--runtime.micro-batch-size=8")[0] == [0, 0]
    auto = [*words, "--runtime.micro-batch-size=auto", "--runtime.check-replicas-every=1"]
    codes, team = train(2, "auto", *auto, patch="little_memory_on_rank_1")
    assert codes == [0, 0], team.texts()
    note = "step 5: out of memory with micro-batches of 4 sequences; from here on they are of 2"
    assert column("auto", "event") == [note]
    assert note in team.text(0)
    run = json.loads(Path("runs/auto/run.json").read_text())
    assert (run["config"]["runtime"]["micro_batch_size"], run["resolved"]["micro_batch_size"]) == ("auto", 4)
    states = [json.loads((checkpoints(name)[-1] / "training.json").read_text())["state"] for name in ("fixed", "auto")]
    assert states[0]["data"] == states[1]["data"]
    assert [state["resolved"]["micro_batch_size"] for state in states] == [8, 2]
    for key in ("train/loss", "optim/grad_norm", "val/loss"):
        assert column("auto", key) == pytest.approx(column("fixed", key), abs=1e-6), key
    record_property("figure", "losses and norms of 8 steps to 1e-6")

    codes, team = train(2, "auto", "--max-steps=9", resume=True)
    assert codes == [0, 0], team.texts()
    assert json.loads((checkpoints("auto")[-1] / "training.json").read_text())["state"]["resolved"] == {
        **states[1]["resolved"]
    }


@pytest.mark.fault("E6", "a fixed micro-batch does not fit on one rank", "one line says what to use instead")
def test_a_fixed_size_that_does_not_fit_on_one_rank_is_one_line(train):
    words = ["--max-steps=8", "--runtime.micro-batch-size=8"]
    codes, team = train(2, "large", *words, patch="little_memory_on_rank_1")
    assert codes == [1, 1]
    errors = [line for line in (team.text(0) + team.text(1)).splitlines() if line.startswith("groundup:")]
    assert errors == ["groundup: step 1: out of memory with micro-batches of 8 sequences; use"
                      " --runtime.micro-batch-size 4 (tokens_per_step stays), or auto"]  # fmt: skip
    assert "Traceback" not in team.texts()


@pytest.mark.parametrize(
    ("size", "words", "options", "message"),
    [
        (2, ["--runtime.parallel=none"], {}, "would train 2 models that know nothing of each other"),
        (3, [], {}, "a multiple of micro_batch_size * block_size * processes = 4 * 16 * 3 = 192, got 256"),
        (2, ["--runtime.parallel=fsdp", "--optim.name=muon"], {}, "muon needs whole gradient matrices"),
        (2, ["--runtime.parallel=fsdp", "--runtime.compile=on"], {}, "does not go with --runtime.parallel fsdp"),
        (2, [], {"patch": "other_weights_on_rank_1"}, "the ranks do not have the same weights: wte.weight of rank 1"),
    ],
)  # fmt: skip
def test_a_wrong_setup_is_one_line_and_trains_nothing(size, words, options, message, train):
    codes, team = train(size, "wrong", "--max-steps=8", *words, **options)
    assert set(codes) <= {1, 2}
    said = "".join(team.text(rank) for rank in range(size))
    assert len(set(re.findall(r"groundup: .*", said))) == 1, said
    assert message in said
    assert "Traceback" not in said
    assert not checkpoints("wrong")


def test_ranks_with_other_settings_are_refused(train, start):
    words = ["train", "shakespeare", "--name=other", *FLAGS, "--max-steps=8"]
    team = start(2, "command", per_rank=[{"words": words}, {"words": [*words, "--optim.lr=0.5"]}])
    assert team.results() == [1, 1]
    assert (team.text(0) + team.text(1)).count("rank 1 was started with other settings than rank 0") == 1


@pytest.mark.fault(
    "E7", "one of two ranks dies (SIGKILL) or hangs (SIGSTOP)", "the other leaves with one line that names it"
)
@pytest.mark.parametrize(("number", "patch"), [(signal.SIGKILL, None), (signal.SIGSTOP, "short_of_time_later")])
def test_a_rank_that_dies_or_hangs_is_named(train, number, patch):
    _, team = train(2, "lost", "--max-steps=100000", "--runtime.timeout=600", wait=False, patch=patch)
    until(lambda: checkpoints("lost") if patch is None else short_of_time() == ["600", "600"])
    os.kill(team.processes[1].pid, number)
    team.processes[0].join(240)
    assert not team.processes[0].is_alive()
    errors = [line for line in team.text(0).splitlines() if line.startswith("groundup:")]
    assert len(errors) == 1, team.text(0)
    assert "rank 1 of 2 is lost" in errors[0]
    assert "Traceback" not in team.text(0)
    assert checkpoints("lost")


@pytest.mark.fault(
    "E7",
    "rank 0 hangs (SIGSTOP) and holds the store, as under srun",
    "the other leaves with one line",
)
def test_a_rank_0_that_hangs_with_the_store_is_left(train, place):
    (place / "port.txt").write_text(str(free_port()))
    _, team = train(2, "held", "--max-steps=100000", "--runtime.timeout=600", wait=False, patch="store_of_rank_0")
    until(lambda: short_of_time() == ["600", "600"])
    os.kill(team.processes[0].pid, signal.SIGSTOP)
    team.processes[1].join(240)
    assert not team.processes[1].is_alive()
    errors = [line for line in team.text(1).splitlines() if line.startswith("groundup:")]
    assert len(errors) == 1, team.text(1)
    assert "Traceback" not in team.text(1)


@pytest.mark.fault(
    "A7",
    "the disk is full for one rank that writes its share of a checkpoint",
    "all ranks stop with one line; nothing half-written has a checkpoint's name",
)
def test_a_full_disk_on_one_rank_saves_nothing(train):
    codes, team = train(2, "full", "--max-steps=8", "--runtime.parallel=fsdp", patch="full_disk_on_rank_1")
    assert codes == [1, 1]
    errors = [line for line in (team.text(0) + team.text(1)).splitlines() if line.startswith("groundup:")]
    assert len(errors) == 1, team.texts()
    assert "rank 1: No space left on device" in errors[0]
    assert "Traceback" not in team.texts()
    assert checkpoints("full") == []
    assert list(Path("runs/full/checkpoints").iterdir()) == []


@pytest.mark.fault(
    "B1",
    "a pickle under the name .metadata beside the shares of a checkpoint; shares that its manifest does not know",
    "the pickle is never opened; the shares are refused by name",
)
def test_nothing_foreign_is_taken_for_a_share(train):
    options = ["--max-steps=8", "--runtime.parallel=fsdp", "--eval.sample-every=0"]
    assert train(2, "run", *options, patch="stop_after_4_steps")[0] == [143, 143]
    last = checkpoints("run")[-1]
    (last / ".metadata").write_bytes(b"cposix\nsystem\n(S'touch canary'\ntR.")
    shutil.copy(next(last.glob("shard-*")), last / "shard-00003-model-00001-of-00001.safetensors")
    codes, team = train(2, "run", resume=True)
    assert codes == [1, 1]
    assert "its manifest does not know shard-00003-model-00001-of-00001.safetensors" in team.text(0) + team.text(1)
    (last / "shard-00003-model-00001-of-00001.safetensors").unlink()
    assert train(2, "run", resume=True)[0] == [0, 0]
    assert not Path("canary").exists()
