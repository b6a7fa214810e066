import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.config.errors import UserError
from groundup.data.shards import HEADER_BYTES, ShardHeader, ShardReader, id_dtype, read_header, write_shard

FINGERPRINT = "5a" * 32


@pytest.fixture
def shard(tmp_path):
    path = tmp_path / "train-000000.bin"
    write_shard(path, np.arange(1000) % 300, vocab_size=300, fingerprint=FINGERPRINT)
    return path


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 1 << 20), st.lists(st.integers(0, (1 << 20) - 1), max_size=50))
def test_what_is_written_is_read(tmp_path_factory, vocab_size, ids):
    ids = np.array([i % vocab_size for i in ids], dtype=np.int64)
    path = tmp_path_factory.mktemp("shard") / "a.bin"
    header = write_shard(path, ids, vocab_size=vocab_size, fingerprint=FINGERPRINT)
    assert read_header(path) == header == ShardHeader(len(ids), vocab_size, int(ids.max(initial=0)), FINGERPRINT)
    assert path.stat().st_size == 256 + len(ids) * (2 if vocab_size <= 65_536 else 4)
    reader = ShardReader(path)
    assert reader.read(0, len(ids)).tolist() == ids.tolist()
    for start in range(0, len(ids), 7):
        count = min(3, len(ids) - start)
        assert reader.read(start, count).tolist() == ids[start : start + count].tolist()


def test_the_bytes_are_what_the_page_says(shard):
    """An independent reading of the format, from its table."""
    data = shard.read_bytes()
    assert data[:8] == b"GRUPSHRD"
    numbers = [int.from_bytes(data[a:b], "little") for a, b in ((8, 12), (12, 16), (16, 24), (24, 32), (32, 40))]
    assert numbers == [1, 2, 1000, 300, 299]
    assert data[40:72].hex() == FINGERPRINT
    assert not any(data[72:256])
    assert [int.from_bytes(data[i : i + 2], "little") for i in range(256, len(data), 2)] == [
        i % 300 for i in range(1000)
    ]


def test_width_follows_the_vocabulary():
    assert id_dtype(65_536).itemsize == 2
    assert id_dtype(65_537).itemsize == 4


@pytest.mark.fault(
    "C3",
    "an id outside the vocabulary is to be written",
    "refused: no shard holds one",
)
@pytest.mark.parametrize("ids", [[300], [-1], [0, 299, 301]])
def test_ids_outside_the_vocabulary_are_never_written(tmp_path, ids):
    with pytest.raises(ValueError, match="do not fit a vocabulary of 300"):
        write_shard(tmp_path / "a.bin", np.array(ids), vocab_size=300, fingerprint=FINGERPRINT)
    assert not list(tmp_path.iterdir())


@pytest.mark.fault(
    "C2",
    "a bit of a shard's header is flipped: each that means something, and every 11th of the padding",
    "refused in words that name the shard, or read as a header that the index of the dataset contradicts",
)
def test_every_flipped_bit_of_the_header_is_seen(shard, record_property):
    """Refused, or read as another header: `TokenDataset` compares every field with the index."""
    original = shard.read_bytes()
    header = read_header(shard)
    bits = [*range(8 * 72), *range(8 * 72, 8 * HEADER_BYTES, 11)]
    for bit in bits:
        damaged = bytearray(original)
        damaged[bit // 8] ^= 1 << bit % 8
        shard.write_bytes(damaged)
        try:
            seen = read_header(shard) != header
        except UserError as error:
            seen = str(shard) in str(error)
        assert seen, f"bit {bit}"
    record_property("figure", f"{len(bits)} of {len(bits)} bits")


@pytest.mark.fault(
    "C1",
    "a shard is shorter or longer than its header says, by one byte or much",
    "refused when it is opened, by name",
)
@pytest.mark.parametrize("size", [0, 1, 71, 255, 256, 257, 2255, 2257, 4000])
def test_a_wrong_size_is_refused(shard, size):
    os.truncate(shard, size)
    with pytest.raises(UserError, match=r"train-000000\.bin is (damaged|not a token shard)"):
        read_header(shard)


def test_what_is_not_a_shard_is_told(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        read_header(tmp_path / "absent.bin")
    with pytest.raises(UserError, match=r"cannot read .*directory"):
        read_header(tmp_path)
    raw = tmp_path / "raw.bin"
    np.arange(1000, dtype=np.uint16).tofile(raw)
    with pytest.raises(UserError, match="not a token shard"):
        ShardReader(raw)


def test_a_failed_reader_leaves_no_noise(tmp_path):
    code = (
        f"from pathlib import Path\nfrom groundup.data.shards import ShardReader\nShardReader(Path({str(tmp_path)!r}))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "Exception ignored" not in result.stderr
    assert result.stderr.strip().endswith("Is a directory")


def test_a_later_version_is_named(shard):
    data = bytearray(shard.read_bytes())
    data[8] = 2
    shard.write_bytes(data)
    with pytest.raises(UserError, match="shard version 2; this groundup reads version 1"):
        read_header(shard)


@pytest.mark.fault(
    "C8",
    "a shard shrinks while it is read",
    "one line of error, never SIGBUS",
)
def test_a_shard_that_shrinks_while_open_is_our_error(shard):
    """In a process of its own: a mapped file would kill it with SIGBUS."""
    code = f"""
import os
from pathlib import Path
from groundup.config.errors import UserError
from groundup.data.shards import ShardReader
reader = ShardReader(Path({str(shard)!r}))
reader.read(0, 10)
os.truncate({str(shard)!r}, 1000)
assert reader.read(0, 372)[-1] == 71
for start, count in ((900, 10), (370, 10), (0, 1000)):
    try:
        reader.read(start, count)
    except UserError as error:
        assert "shrank" in str(error)
    else:
        raise SystemExit("read tokens that are gone")
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.fault(
    "C3",
    "a shard holds an id above the largest of its header",
    "an error that names shard and id when it is read",
)
@pytest.mark.parametrize("vocab_size", [300, 100_000])
def test_an_id_that_cannot_be_is_told_where_it_is_read(tmp_path, vocab_size):
    path = tmp_path / "train-000000.bin"
    write_shard(path, np.arange(100), vocab_size=vocab_size, fingerprint=FINGERPRINT)
    width = id_dtype(vocab_size).itemsize
    data = bytearray(path.read_bytes())
    data[HEADER_BYTES + 7 * width + 1] = 1
    path.write_bytes(data)
    reader = ShardReader(path)
    assert reader.read(8, 92).tolist() == list(range(8, 100))
    with pytest.raises(
        UserError, match=r"000000\.bin is damaged: it holds the id 263, .* 99; see groundup data verify"
    ):
        reader.read(0, 8)


def test_reading_outside_the_shard_is_a_bug_of_ours(shard):
    reader = ShardReader(shard)
    for start, count in ((-1, 2), (0, 1001), (1000, 1), (5, -1)):
        with pytest.raises(IndexError):
            reader.read(start, count)
    assert len(reader.read(1000, 0)) == 0


def test_a_closed_reader_opens_again(shard):
    reader = ShardReader(shard)
    before = reader.read(5, 5).tolist()
    reader.close()
    reader.close()
    assert reader.read(5, 5).tolist() == before


def test_short_reads_of_the_system_go_on(shard, monkeypatch):
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda file, count, offset: pread(file, min(count, 7), offset))
    assert ShardReader(shard).read(0, 1000).tolist() == [i % 300 for i in range(1000)]


def test_without_pread_the_same_ids_are_read_by_threads(shard, monkeypatch):
    expected = ShardReader(shard).read(0, 1000).tolist()
    monkeypatch.delattr(os, "pread")  # as on Windows
    seek = os.lseek
    monkeypatch.setattr(os, "lseek", lambda *place: (seek(*place), time.sleep(1e-4)))  # others get their turn here
    reader = ShardReader(shard)
    places = list(range(0, 990, 7))
    with ThreadPoolExecutor(8) as pool:
        pieces = list(pool.map(lambda start: reader.read(start, 9).tolist(), places))
    assert pieces == [expected[start : start + 9] for start in places]


def test_reads_are_announced_only_where_the_system_listens(shard, monkeypatch):
    asked = []
    monkeypatch.setattr(os, "posix_fadvise", lambda file, *place: asked.append(place), raising=False)
    monkeypatch.setattr(os, "POSIX_FADV_WILLNEED", 3, raising=False)
    reader = ShardReader(shard)
    reader.announce(10, 5)
    assert asked == [(HEADER_BYTES + 20, 10, 3)]
    monkeypatch.delattr(os, "posix_fadvise")  # as on macOS and Windows
    reader.announce(10, 5)
    assert len(asked) == 1


def test_shards_are_opened_as_bytes(shard, monkeypatch):
    """On Windows a file is text, whose line ends change, unless it is opened as bytes."""
    seen = []
    opened = os.open
    monkeypatch.setattr(os, "O_BINARY", 1 << 30, raising=False)
    monkeypatch.setattr(os, "open", lambda path, flags: seen.append(flags) or opened(path, flags & ~(1 << 30)))
    ShardReader(shard).read(0, 1)
    assert seen == [os.O_RDONLY | 1 << 30]
