"""Runs of a few steps: their text, and what they leave in runs/NAME of the working folder."""

import json
import time
from pathlib import Path


def plays(n):
    """A text of n short speeches."""
    return "".join(f"SPEAKER {i % 7}:\nthe {i} quick brown foxes jump over {i * i} lazy dogs\n\n" for i in range(n))


def rows(name):
    return [json.loads(line) for line in Path(f"runs/{name}/metrics.jsonl").read_text().splitlines()]


def column(name, key):
    return [row[key] for row in rows(name) if key in row]


def checkpoints(name="run"):
    return sorted(Path(f"runs/{name}/checkpoints").glob("step-*"))


def until(condition, seconds=240.0):
    """Wait for a condition, and return what it says; in vain, what the processes have written is told."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError("waited in vain: " + "".join(p.read_text()[-3000:] for p in Path().glob("*.txt")))
