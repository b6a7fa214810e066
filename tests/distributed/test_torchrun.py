"""Under the real torchrun: a rank is killed, all are started again, and nothing shows in the end."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from forked import ForkedPopen, still_running
from small_runs import checkpoints, plays, until

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
RUN = [
    "-m", "groundup", "train", "shakespeare", "--data.source=text", "--data.path=text.txt", "--model.n-layer=2",
    "--model.n-head=2", "--model.n-embd=16", "--model.block-size=16", "--model.dropout=0.1", "--tokens-per-step=128",
    "--runtime.micro-batch-size=4", "--runtime.threads=1", "--runtime.compile=off", "--runtime.device=cpu",
    "--runtime.matmul=default", "--optim.name=adamw", "--eval.every=100", "--eval.sample-every=0",
    "--checkpoint.every=20", "--log-every=20",
]  # fmt: skip


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "text.txt").write_text(plays(60))
    return tmp_path


@pytest.fixture
def torchrun(place):
    """torchrun(name, flags of torchrun, flags of the run) -> its process."""
    started = []

    def begin(name, *words, options=(), run=RUN, popen=subprocess.Popen):
        command = [*TORCHRUN, *options, *run, f"--name={name}", *words]
        with Path(f"{name}.txt").open("w") as output:
            started.append(popen(command, stdout=output, stderr=subprocess.STDOUT))
        return started[-1]

    yield begin
    for process in started:
        for child in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []:
            child.kill()
        process.kill()
        process.wait()


def rank_process(process, rank):
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if child.environ().get("RANK") == str(rank):
                return child
        except psutil.Error:
            continue
    return None


DEADLY = """
import os, signal, sys
from pathlib import Path
from groundup.cli.main import main
from groundup.training import between_steps
from groundup.loop.trainer import Trainer

between_steps.gemm_rate = lambda *_: 1e12
step = Trainer.train_step

def dying(self):
    if self.state.step == 30 and self.world.rank == 1 and not Path("killed").exists():
        Path("killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self)

Trainer.train_step = dying
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.fault(
    "E7", "SIGKILL of a rank under torchrun", "all go on from the last checkpoint; the bytes are an undisturbed run's"
)
def test_a_killed_rank_is_started_again_and_the_bytes_are_those_of_an_undisturbed_run(torchrun, start):
    steps = "--max-steps=60"
    whole = start(2, "command", words=[*RUN[2:], "--name=whole", steps])
    assert whole.results() == [0, 0], whole.texts()
    deadly = [sys.executable, "-c", DEADLY, *RUN[2:]]
    options = ["--max-restarts=1", "--no-python"]
    broken = torchrun("broken", steps, options=options, run=deadly, popen=ForkedPopen)
    assert broken.wait(240) == 0, Path("broken.txt").read_text()
    output = Path("broken.txt").read_text()
    assert "torchrun started this job again" in output
    assert re.findall(r"resumed at step (\d+)", output) == ["20"]

    ends = [checkpoints(name)[-1] for name in ("broken", "whole")]
    assert ends[0].name == ends[1].name == "step-0000060"
    for name in ("model.safetensors", "training.safetensors"):
        assert (ends[0] / name).read_bytes() == (ends[1] / name).read_bytes(), name
    assert not Path("runs/broken.1").exists()


@pytest.mark.slow
@pytest.mark.fault(
    "E1", "SIGTERM to torchrun, and to a rank as well", "the run saves where it stops and says how to go on"
)
def test_sigterm_to_torchrun_saves(torchrun):
    """As a scheduler preempts: torchrun passes the signal on, and a rank that gets it twice still saves."""
    process = torchrun("preempted", "--max-steps=1000000")
    until(lambda: checkpoints("preempted"))
    rank_process(process, 0).send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    process.wait(240)
    output = Path("preempted.txt").read_text()
    assert "continue with: torchrun --standalone --nproc_per_node 2 -m groundup train --resume" in output
    step = int(re.search(r"stopped at step (\d+)", output)[1])
    assert checkpoints("preempted")[-1].name == f"step-{step:07d}"


@pytest.mark.slow
@pytest.mark.fault("E11", "SIGKILL of torchrun", "its ranks save and are gone within 10 seconds")
@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells children of their parent's death")
def test_no_rank_outlives_torchrun(torchrun):
    process = torchrun("orphans", "--max-steps=1000000")
    until(lambda: checkpoints("orphans"))
    ranks = [rank_process(process, rank) for rank in (0, 1)]
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not still_running(ranks)
    step = int(re.search(r"stopped at step (\d+)", Path("orphans.txt").read_text())[1])
    assert checkpoints("orphans")[-1].name == f"step-{step:07d}"


@pytest.mark.slow
@pytest.mark.fault("E8", "torchrun starts a job again that always fails alike", "the 4th start says why and stops")
def test_a_crash_loop_ends_with_its_cause(torchrun):
    wrong = ["--optim.lr=1e30", "--optim.grad-clip=0", "--optim.warmup-steps=0", "--guard.spikes=off"]
    process = torchrun("loop", "--max-steps=400", *wrong, options=["--max-restarts=3"])
    assert process.wait(240) == 1
    errors = re.findall(r"groundup: (.*)", Path("loop.txt").read_text())
    assert len(errors) == 4
    assert all("the weights are those of the step before" in error for error in errors[:3])
    assert errors[3] == f"began 3 times at step 0 and never saved a later one; the cause: {errors[2]}"
