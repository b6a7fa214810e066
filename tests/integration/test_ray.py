"""A preparation on a real Ray cluster of this machine, with two workers."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
pytest.importorskip("ray")

DRIVER = Path(__file__).with_name("prepare_driver.py")


def run(texts, out, *words):
    command = [sys.executable, str(DRIVER), str(texts), str(out), str(out.with_suffix(".diary")), *map(str, words)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert result.returncode == 0, result.stderr


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_a_killed_worker_costs_its_part_and_memory_stays_small(tmp_path):
    texts = tmp_path / "texts"
    texts.mkdir()
    line = "all the world is a stage and all the men and women merely players " * 100
    for part in range(12):
        (texts / f"{part:02d}.txt").write_text("".join(f"{part} {k} {line}\n" for k in range(300)))  # 2 MB
    layout = ("--shard-tokens", 3_000_000)
    run(texts, tmp_path / "here", *layout)
    deadly = tmp_path / "deadly"
    deadly.touch()
    out = tmp_path / "by-ray"
    run(texts, out, *layout, "--ray", "--deadly", deadly)
    assert not deadly.exists()  # the worker that found it is dead
    assert contents(out) == contents(tmp_path / "here")
    diary = out.with_suffix(".diary").read_text().splitlines()
    assert sum(note.startswith("begin") for note in diary) == 13  # one part was done again, by another worker
    memory = [int(note.split()[1]) for note in diary if note.startswith("memory")]
    assert len(memory) == 12
    assert max(memory) < 600e6
    print(f"largest worker: {max(memory) / 1e6:.0f} MB")
