"""The scripts of runs/: valid bash, whose command lines groundup understands."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from groundup.cli.train import read_request
from groundup.studies.options import AblationOptions, ScalingLawOptions
from groundup.terminal.parse import parse

RUNS = Path(__file__).parents[2] / "runs"
SCRIPTS = sorted(RUNS.glob("*.sh"))
TRAIN = [path for path in SCRIPTS if path.name.startswith("train_")]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_is_valid_bash(path):
    subprocess.run(["bash", "-n", str(path)], check=True)
    text = path.read_text()
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in text


@pytest.fixture
def typed(tmp_path):
    """Run a script with every program it calls replaced by one that writes down its words."""
    for name in ("groundup", "torchrun", "srun", "scontrol"):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >> "$(dirname "$0")/typed.txt"\necho node-a\n')
        program.chmod(0o755)

    def run(path, *words):
        slurm = {"SLURM_JOB_NODELIST": "node-[a-b]", "SLURM_NNODES": "2", "SLURM_JOB_ID": "77", "HEAD": "10.0.0.1"}
        environment = {**os.environ, **slurm, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        subprocess.run(["bash", str(path), *words], env=environment, check=True, capture_output=True)
        return (tmp_path / "typed.txt").read_text().splitlines()[-1]

    return run


@pytest.mark.parametrize("path", TRAIN, ids=lambda path: path.name)
def test_says_what_groundup_understands(path, typed):
    line = typed(path, "--max-steps", "7")
    words = re.search(r"\bgroundup train (.*)", line)[1].split()
    config = read_request(words).config
    assert config.max_steps == 7
    processes = re.search(r"--nproc_per_node (\d+)", line)
    nodes = re.search(r"--nnodes (\d+)", line)
    size = int(processes[1] if processes else 1) * int(nodes[1] if nodes else 1)
    assert size == {"train_1gpu.sh": 1, "train_speedrun.sh": 1, "train_8gpu.sh": 8}.get(path.name, 16)
    assert config.micro_steps(size) >= 1
    if size > 8:
        assert "--rdzv-id" in line


@pytest.mark.parametrize("part", ["candidates", "minutes", "final", "scaling"])
@pytest.mark.parametrize("text", [None, "/my texts/a.txt"])
def test_each_part_of_the_studies_is_understood(part, text, tmp_path):
    program = tmp_path / "python"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@" "" >> "$(dirname "$0")/typed.txt"\n')
    program.chmod(0o755)
    environment = {**os.environ, "PYTHON": str(program)} | ({"TEXT": text} if text else {})
    subprocess.run(["bash", str(RUNS / "studies_gpu.sh"), part], env=environment, check=True)
    commands = [words.split("\n") for words in (tmp_path / "typed.txt").read_text().removesuffix("\n\n").split("\n\n")]
    assert len(commands) == (2 if part == "minutes" else 1)
    for words in commands:
        spec, flags = (ScalingLawOptions, words[3:]) if words[2] == "scaling" else (AblationOptions, words[4:])
        options = parse(spec, flags, prog="groundup")
        read = options.text if words[2] == "scaling" else options.tiny_shakespeare
        assert read == (text and Path(text))


@pytest.mark.parametrize("path", [path for path in TRAIN if "torchrun" in path.read_text()], ids=lambda path: path.name)
def test_torchrun_waits_for_a_step_and_for_saving(path):
    waits = int(re.search(r"^export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=(\d+)$", path.read_text(), re.MULTILINE)[1])
    warned = re.search(r"--signal=B:TERM@(\d+)", path.read_text())
    assert 300 <= waits < int(warned[1] if warned else 3600)


def test_two_nodes_need_to_know_the_first(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "HEAD"}
    result = subprocess.run(
        ["bash", str(RUNS / "train_2nodes.sh")], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode != 0
    assert "say HEAD=ADDRESS" in result.stderr
