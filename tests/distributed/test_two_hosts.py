"""Two hosts as network namespaces: one is killed and comes back, and the bytes in the end are an undisturbed run's."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from small_runs import checkpoints, plays, until

NETWORK = "10.213.77"
LET_HOSTS_COME_BACK = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
"""As runs/train_2nodes.sh: with a shared store torch 2.13 gives a host that comes back no address (pytorch#135712)."""
REBOOT_SECONDS = 20
"""torchrun takes a host for dead 15 seconds after its last sign of life; one that is back before confuses it."""
RUN = [
    "-m", "groundup", "train", "shakespeare", "--data.source=text", "--data.path=text.txt", "--model.n-layer=2",
    "--model.n-head=2", "--model.n-embd=16", "--model.block-size=16", "--model.dropout=0.1", "--tokens-per-step=128",
    "--runtime.micro-batch-size=4", "--runtime.threads=1", "--runtime.compile=off", "--runtime.matmul=default",
    "--runtime.device=cpu", "--optim.name=adamw", "--eval.every=100", "--eval.sample-every=0", "--checkpoint.every=20",
    "--log-every=20", "--max-steps=400",
]  # fmt: skip


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def hosts():
    """Two namespaces that see each other over a cable, .1 and .2."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and iproute2")
    names = [f"groundup-{os.getpid()}-{i}" for i in (1, 2)]
    try:
        ip("netns", "add", names[0])
    except subprocess.CalledProcessError:
        pytest.skip("this machine lets nobody make network namespaces")
    try:
        ip("netns", "add", names[1])
        ip("link", "add", "eth0", "netns", names[0], "type", "veth", "peer", "name", "eth0", "netns", names[1])
        for i, name in enumerate(names, start=1):
            ip("-n", name, "addr", "add", f"{NETWORK}.{i}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@pytest.fixture
def torchrun(hosts, tmp_path, monkeypatch):
    """torchrun(host number, name of the run, job) -> its process."""
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(plays(60))
    started = []

    def begin(host, name, job):
        command = [
            "ip", "netns", "exec", hosts[host - 1], sys.executable, "-m", "torch.distributed.run", "--nnodes=2",
            "--nproc_per_node=1", "--max-restarts=3", "--rdzv-backend=c10d", f"--rdzv-endpoint={NETWORK}.1:29400",
            f"--rdzv-conf=is_host={int(host == 1)}", f"--rdzv-id={job}",
            f"--local-addr={NETWORK}.{host}", *RUN, f"--name={name}",
        ]  # fmt: skip
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "eth0", **LET_HOSTS_COME_BACK}
        with Path(f"{name}-{host}.txt").open("a") as output:
            started.append(subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment))
        return started[-1]

    yield begin
    for process in started:
        kill_tree(process)


def kill_tree(process):
    """A host dies: the agent and its ranks, without a word."""
    if process.poll() is None:
        for one in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
            one.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.slow
@pytest.mark.fault("E7", "one of two hosts is killed and comes back", "the bytes are an undisturbed run's")
def test_a_killed_host_comes_back_and_the_bytes_are_those_of_an_undisturbed_run(torchrun):
    pair = {host: torchrun(host, "broken", "job-1") for host in (1, 2)}
    until(lambda: checkpoints("broken"))
    kill_tree(pair[2])
    time.sleep(REBOOT_SECONDS)
    pair[2] = torchrun(2, "broken", "job-1")
    assert [process.wait(240) for process in pair.values()] == [0, 0], Path("broken-1.txt").read_text()
    output = "".join(Path(f"broken-{host}.txt").read_text() for host in (1, 2))
    resumed = [int(step) for step in re.findall(r"resumed at step (\d+)", output)]
    assert resumed
    assert 20 <= resumed[-1] < 400

    whole = [torchrun(host, "whole", "job-2") for host in (1, 2)]
    assert [process.wait(240) for process in whole] == [0, 0], Path("whole-1.txt").read_text()
    ends = [checkpoints(name)[-1] for name in ("broken", "whole")]
    assert ends[0].name == ends[1].name == "step-0000400"
    for name in ("model.safetensors", "training.safetensors"):
        assert (ends[0] / name).read_bytes() == (ends[1] / name).read_bytes(), name
