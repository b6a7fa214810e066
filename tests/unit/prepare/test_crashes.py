"""Preparations that crash, or find what a crash has left."""

import errno
import os
import shutil

import pytest
from filelock import FileLock, Timeout

from groundup.config.data import ShardConfig
from groundup.config.errors import UserError
from groundup.files import atomic as files
from groundup.prepare import prepare as prepare_module
from groundup.prepare.executors import run_here
from groundup.prepare.prepare import prepare
from groundup.tokenizer.char import CharTokenizer

SMALL = ShardConfig(val_rule="head", shard_tokens=300, val_fraction=0.2)


@pytest.mark.parametrize("finished", [True, False])
def test_another_preparation_is_refused(tmp_path, corpus, random_texts, separated, finished):
    texts = random_texts(6)
    prepare(corpus(texts), separated, tmp_path, SMALL, only=None if finished else (0, 2))
    other = CharTokenizer([*separated.symbols, "0"])
    for source, tokenizer, layout, key in (
        (
            corpus(texts),
            separated,
            ShardConfig(val_rule="head", shard_tokens=301, val_fraction=0.2),
            "shard_tokens: 300, now 301",
        ),
        (corpus(texts[:-1]), separated, SMALL, r"corpus\.texts"),
        (corpus(texts, name="books"), separated, SMALL, "source: corpus, now books"),
        (corpus(texts), other, SMALL, "tokenizer"),
    ):
        with pytest.raises(UserError, match=f"was made with other settings \\({key}"):
            prepare(source, tokenizer, tmp_path, layout)
    prepare(corpus(texts), separated, tmp_path, SMALL)


def count_points(monkeypatch, run):
    points = []
    with monkeypatch.context() as patch:
        patch.setattr(files, "fault_point", lambda operation, path: points.append((operation, path.name)))
        run()
    return len(points)


@pytest.mark.fault(
    "C4",
    "crash at every point of a preparation",
    "done again, it ends with the bytes of an undisturbed one",
)
@pytest.mark.parametrize("n_parts", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_a_crash_at_every_point(
    tmp_path, monkeypatch, record_property, corpus, random_texts, separated, contents, n_parts
):
    """Killed before each operation on the disk in turn, then run again; also killed at every point of one run."""
    texts = random_texts(7, n_parts=n_parts, n_documents=4)
    n = count_points(monkeypatch, lambda: prepare(corpus(texts), separated, tmp_path / "whole", SMALL))
    expected = contents(tmp_path / "whole")
    assert n > 30

    def killed_at(k, folder):
        left = [k]

        def die(operation, path):
            if left[0] == 0:
                os._exit(42)
            left[0] -= 1

        pid = os.fork()
        if pid == 0:
            files.fault_point = die
            try:
                prepare(corpus(texts), separated, folder, SMALL)
            except BaseException:
                os._exit(99)
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    for k in range(n):
        folder = tmp_path / "once"
        assert killed_at(k, folder) == 42
        assert prepare(corpus(texts), separated, folder, SMALL) is not None
        assert contents(folder) == expected, f"after a crash at point {k}"
        shutil.rmtree(folder)
    folder = tmp_path / "often"
    codes = [killed_at(5, folder) for _ in range(20)]
    assert codes.count(42) > 5
    assert prepare(corpus(texts), separated, folder, SMALL) is not None
    assert contents(folder) == expected
    record_property("figure", f"{n} of {n} points")


@pytest.mark.fault(
    "C4",
    "the disk says ENOSPC or EIO at any call of a preparation",
    "one line of error; done again, it ends with the bytes of an undisturbed one",
)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_refusing_disk_at_every_point(
    tmp_path, monkeypatch, record_property, corpus, random_texts, separated, contents, code
):
    texts = random_texts(8, n_parts=2, n_documents=4)
    n = count_points(monkeypatch, lambda: prepare(corpus(texts), separated, tmp_path / "whole", SMALL))
    for k in range(n):
        left = [k]

        def refuse(operation, path, left=left):
            left[0] -= 1
            if left[0] == -1:
                raise OSError(code, os.strerror(code))

        folder = tmp_path / str(k)
        with monkeypatch.context() as patch:
            patch.setattr(files, "fault_point", refuse)
            with pytest.raises(UserError, match=os.strerror(code)) as error:
                prepare(corpus(texts), separated, folder, SMALL)
        assert "\n" not in str(error.value)
        assert not list(folder.rglob(".*.tmp-*"))
        assert prepare(corpus(texts), separated, folder, SMALL) is not None
        assert contents(folder) == contents(tmp_path / "whole")
        shutil.rmtree(folder)
    record_property("figure", f"{n} of {n} calls")


def test_leftovers_of_crashes_do_not_fill_the_disk(tmp_path, monkeypatch, corpus, random_texts, separated):
    source = corpus(random_texts(9))
    assert prepare(source, separated, tmp_path, SMALL, only=(0, 2)) is None
    leftover = tmp_path / ".work" / ".tmp-part-000001.train-0badcafe-99999"  # made on another machine
    leftover.write_bytes(b"half")
    monkeypatch.setattr(prepare_module, "_tokenize", lambda *_: None)
    assert prepare(source, separated, tmp_path, SMALL, only=(1, 2)) is None
    assert leftover.exists()  # another task may be writing it
    assert prepare(source, separated, tmp_path, SMALL) is None
    assert not leftover.exists()


@pytest.mark.fault(
    "C4",
    "a worker of a killed preparation still holds a shard",
    "a single task waits for it; of several, each goes on, and a later one makes the shard",
)
def test_a_shard_that_is_held_for_longer_than_any_limit(
    tmp_path, monkeypatch, corpus, random_texts, separated, contents
):
    source = corpus(random_texts(11))
    prepare(source, separated, tmp_path / "whole", SMALL)
    acquire, met = FileLock.acquire, []

    def held(lock, timeout):
        if lock.lock_file.endswith(".bin.lock"):
            met.append(timeout)
            if timeout >= 0:
                raise Timeout(lock.lock_file)
        return acquire(lock, timeout=timeout)

    with monkeypatch.context() as patch:
        patch.setattr(FileLock, "acquire", held)
        assert prepare(source, separated, tmp_path / "shared", SMALL, only=(0, 2)) is None
        assert not met
        assert prepare(source, separated, tmp_path / "shared", SMALL, only=(1, 2)) is None
        assert len(met) > 1
        assert prepare(source, separated, tmp_path / "alone", SMALL) is not None
    assert prepare(source, separated, tmp_path / "shared", SMALL, only=(0, 2)) is not None
    for name in ("alone", "shared"):
        assert contents(tmp_path / name) == contents(tmp_path / "whole")


@pytest.mark.parametrize(("first", "second"), [((0, 2), None), (None, (1, 2))])
def test_a_task_and_a_whole_preparation_are_not_at_one_folder(
    tmp_path, corpus, random_texts, separated, contents, first, second
):
    texts = random_texts(12)
    folder, refused = tmp_path / "data", []

    def beside(function, calls):
        with pytest.raises(UserError, match=f"^another process is preparing {folder}; ") as error:
            prepare(corpus(texts), separated, folder, SMALL, only=second)
        refused.append(error)
        return run_here(function, calls)

    prepare(corpus(texts), separated, folder, SMALL, only=first, executor=beside)
    assert refused
    prepare(corpus(texts), separated, folder, SMALL)
    prepare(corpus(texts), separated, tmp_path / "whole", SMALL)
    assert contents(folder) == contents(tmp_path / "whole")


def test_lost_and_cut_work_is_done_again(tmp_path, corpus, random_texts, separated, contents):
    texts = random_texts(10, n_parts=4)
    prepare(corpus(texts), separated, tmp_path / "whole", SMALL)
    folder = tmp_path / "data"
    assert prepare(corpus(texts), separated, folder, SMALL, only=(0, 2)) is None
    part = folder / ".work" / "part-000002.train"
    os.truncate(part, part.stat().st_size - 2)
    again = corpus(texts)
    prepare(again, separated, folder, SMALL)
    assert again.read_parts == [1, 2, 3]
    assert contents(folder) == contents(tmp_path / "whole")
