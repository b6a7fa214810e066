"""Preparations in processes of their own: several workers, killed anywhere, side by side, on a full disk."""

import contextlib
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from forked import ForkedPopen, still_running

DRIVER = Path(__file__).with_name("prepare_driver.py")
FORKED = """
import sys
from forked import start_from_server
start_from_server()
sys.path.insert(0, {folder!r})
import prepare_driver
prepare_driver.main()
"""
N_PARTS = 24


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    return write_texts(tmp_path_factory.mktemp("parts") / "texts", n_parts=N_PARTS, n_lines=60)


@pytest.fixture(scope="module")
def whole(texts, tmp_path_factory):
    """The files of an undisturbed preparation by one process."""
    out = tmp_path_factory.mktemp("whole") / "out"
    run(texts, out)
    return contents(out)


def write_texts(folder, *, n_parts, n_lines):
    folder.mkdir()
    rng = np.random.default_rng(0)
    for part in range(n_parts):
        lines = ["".join(map(chr, rng.integers(32, 127, size=rng.integers(1, 100)))) for _ in range(n_lines)]
        (folder / f"{part:03d}.txt").write_text("\n".join(lines))
    return folder


def words_of(texts, out, *words):
    return [str(texts), str(out), str(out.with_suffix(".diary")), *map(str, words)]


def start(texts, out, *words):
    """A preparation in a process that costs little to start, and so do its workers."""
    code = FORKED.format(folder=str(DRIVER.parent))
    command = [sys.executable, "-c", code, *words_of(texts, out, *words)]
    return ForkedPopen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)


def start_fresh(texts, out, *words, **options):
    """One as everybody starts it: its workers are its children."""
    command = [sys.executable, str(DRIVER), *words_of(texts, out, *words)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True, **options)


def finish(process):
    _, errors = process.communicate(timeout=240)
    return process.returncode, errors


def run(texts, out, *words, start=start):
    code, errors = finish(start(texts, out, *words))
    assert code == 0, errors


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def diary(out, word):
    path = out.with_suffix(".diary")
    lines = path.read_text().splitlines() if path.exists() else []
    return [line.split(" ", 1)[1] for line in lines if line.startswith(word)]


def wait_for(condition, process):
    while not condition():
        assert process.poll() is None, finish(process)
        time.sleep(0.005)


@pytest.mark.fault(
    "C5",
    "1, 3 or 8 workers",
    "the same bytes",
)
def test_bytes_are_the_same_for_1_3_and_8_workers(tmp_path, texts, whole):
    assert len(whole) > 10
    for workers in (3, 8):
        out = tmp_path / f"by-{workers}"
        run(texts, out, "--workers", workers)
        assert contents(out) == whole
        assert sorted(diary(out, "begin")) == sorted(map(str, texts.iterdir()))


@pytest.mark.fault(
    "C4",
    "SIGKILL of a preparation, of one of its workers, or of all, at any moment",
    "started again, it goes on (a worker repeats one part at most) and ends with the same bytes",
)
@pytest.mark.parametrize("n", [5, pytest.param(100, marks=pytest.mark.slow)])
def test_killed_anywhere_it_goes_on(tmp_path, record_property, texts, whole, n):
    """The parent, one of its workers, or all of them, at random times: at most one part a worker is done again."""
    rng = random.Random(n)
    out, workers = tmp_path / "killed", 2
    hit = lost = 0
    while hit < n:
        if (out / "index.json").exists():  # start over: a kill shall hit something
            assert contents(out) == whole
            subprocess.run(["rm", "-r", out, out.with_suffix(".diary")], check=True)
            lost = 0
        before = len(diary(out, "process"))
        process = start(texts, out, "--workers", workers, "--nap", 0.02)
        target = len(diary(out, "begin")) + rng.randrange(9)
        while len(diary(out, "begin")) < target and process.poll() is None:
            time.sleep(0.005)
        time.sleep(rng.random() * 0.1)
        if process.poll() is not None:
            continue
        hit += 1
        lost += 1
        victims = [process.pid, *{int(pid) for pid in diary(out, "process")[before:]}]
        whom = rng.choice(["parent", "worker", "all"])
        for pid in {"parent": victims[:1], "worker": victims[-1:], "all": victims}[whom]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        finish(process)
        if not (out / "index.json").exists():
            done = len(list((out / ".work").glob("part-*.json")))
            assert len(diary(out, "begin")) - done <= workers * lost
    run(texts, out, "--workers", workers)
    assert contents(out) == whole
    record_property("figure", f"{n} of {n} kills")


@pytest.mark.fault(
    "C12",
    "SIGKILL of a worker",
    "one line names its part of the work; run again, the rest is not done again",
)
def test_a_dead_worker_is_named_and_the_rest_is_kept(tmp_path, texts, whole):
    deadly = tmp_path / "deadly"
    deadly.touch()
    out = tmp_path / "out"
    code, errors = finish(start(texts, out, "--workers", 2, "--deadly", deadly))
    assert code == 1
    assert re.match(
        rf"a worker process was killed by SIGKILL \(out of memory\?\) at (\d+), {texts}/0*\1\.txt;", errors
    ), errors
    assert errors.count("\n") == 1
    assert errors.strip().endswith("run the command again to go on")
    assert not (out / "index.json").exists()
    run(texts, out, "--workers", 2)
    assert contents(out) == whole
    assert len(diary(out, "begin")) <= N_PARTS + 2


@pytest.mark.fault(
    "E11",
    "the parent of a preparation is killed",
    "its workers end, too",
)
def test_workers_end_with_their_parent(tmp_path, texts):
    process = start_fresh(texts, tmp_path / "out", "--workers", 3, "--nap", 0.5)
    wait_for(lambda: len(diary(tmp_path / "out", "begin")) >= 3, process)
    children = psutil.Process(process.pid).children()
    assert len(children) >= 3
    process.kill()
    finish(process)
    assert not still_running(children)


@pytest.mark.fault(
    "C6",
    "a second preparation of a folder",
    "refused while the first goes on",
)
def test_a_second_preparation_of_the_folder_is_refused(tmp_path, texts):
    out = tmp_path / "out"
    first = start(texts, out, "--nap", 60)
    wait_for(lambda: diary(out, "begin"), first)
    code, errors = finish(start(texts, out))
    assert first.poll() is None  # the first is far from done: the second did not wait for it
    assert code == 1
    assert errors == f"another process is preparing {out}; wait for it, or choose another folder\n"
    first.kill()
    finish(first)
    run(texts, out)


def test_a_full_disk_is_told_and_nothing_half_written_is_taken_for_whole(tmp_path, texts, whole):
    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))

    out = tmp_path / "out"
    for workers in (1, 2):
        code, errors = finish(start_fresh(texts, out, "--workers", workers, preexec_fn=small_files))
        assert code == 1
        assert "cannot write" in errors
        assert "File too large" in errors
        assert errors.count("\n") == 1
        assert not (out / "index.json").exists()
        assert all(p.stat().st_size < 9000 for p in out.rglob("*") if p.is_file())
    run(texts, out)
    assert contents(out) == whole
    assert len(diary(out, "begin")) == N_PARTS  # all parts fitted, only shards did not


def test_memory_is_flat(tmp_path):
    """Four times the parts, the same memory in every worker."""
    peaks = []
    for n_parts in (2, 8):
        texts = tmp_path / f"texts-{n_parts}"
        texts.mkdir()
        line = "all the world is a stage and all the men and women merely players " * 150
        for part in range(n_parts):
            (texts / f"{part}.txt").write_text("".join(f"{k} {line}\n" for k in range(400)))  # 4 MB
        out = tmp_path / f"out-{n_parts}"
        run(texts, out, "--workers", 2, "--shard-tokens", 10_000_000, start=start_fresh)
        peaks.append(max(map(int, diary(out, "memory"))))
    assert peaks[1] < 600e6
    assert peaks[1] < 1.2 * peaks[0]
