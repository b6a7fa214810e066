import shutil

import numpy as np
import psutil
import pytest

from groundup.config.data import ShardConfig
from groundup.config.errors import UserError
from groundup.data.dataset import OPEN_SHARDS, TokenDataset
from groundup.data.verify import verify
from groundup.prepare.prepare import prepare
from groundup.tokenizer.char import CharTokenizer

TEXT = "".join(f"the {i} quick foxes\n" for i in range(300))


@pytest.fixture
def folder(tmp_path, corpus):
    path = tmp_path / "data"
    prepare(
        corpus([[TEXT]]),
        CharTokenizer.from_text([TEXT]),
        path,
        ShardConfig(val_rule="head", shard_tokens=2000, val_fraction=0.1),
    )
    return path


def check(folder):
    """All that a careful user does before a long run."""
    TokenDataset(folder).tokenizer()
    faults = [fault for _, fault in verify(folder) if fault]
    if faults:
        raise UserError(faults[0])


def test_the_splits_are_the_text(folder):
    dataset = TokenDataset(folder)
    tokenizer = dataset.tokenizer()
    val, train = dataset.split("val"), dataset.split("train")
    assert tokenizer.decode(np.concatenate([val.read_all(), train.read_all()])) == TEXT
    assert (val.n_tokens, train.n_tokens) == (len(TEXT) // 10, len(TEXT) - len(TEXT) // 10)
    assert (val.n_bytes, train.n_bytes) == (val.n_tokens, train.n_tokens)
    assert len(train.shards) == 3
    assert train.read(1, 5, 20).tolist() == train.read_all()[2005:2025].tolist()
    check(folder)


@pytest.mark.fault(
    "C2",
    "a bit of any file of a dataset is flipped",
    "opening the dataset or verifying it names the file",
)
@pytest.mark.parametrize("n", [250, pytest.param(1000, marks=pytest.mark.slow)])
def test_every_flipped_bit_of_a_dataset_is_found(folder, record_property, n):
    rng = np.random.default_rng(n)
    files = sorted(folder.iterdir())
    assert len(files) == 6
    # Small files as often as large ones: a flipped bit in the index matters as much.
    weights = np.sqrt([f.stat().st_size for f in files])
    for file in rng.choice(files, size=n, p=weights / weights.sum()):
        original = file.read_bytes()
        bit = int(rng.integers(8 * len(original)))
        damaged = bytearray(original)
        damaged[bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        with pytest.raises(UserError) as found:
            check(folder)
        assert file.name in str(found.value)
        file.write_bytes(original)
    check(folder)
    record_property("figure", f"{n:,} of {n:,} bits")


@pytest.mark.fault(
    "C2", "a bit of the header of a dataset's shard is flipped", "the dataset is not opened; it is named"
)
def test_every_flipped_bit_of_a_header_is_refused_on_opening(folder, record_property):
    shard = folder / "train-000001.bin"
    original = shard.read_bytes()
    bits = range(0, 8 * 256, 5)
    for bit in bits:
        damaged = bytearray(original)
        damaged[bit // 8] ^= 1 << bit % 8
        shard.write_bytes(damaged)
        with pytest.raises(UserError, match=r"train-000001\.bin"):
            TokenDataset(folder)
    record_property("figure", f"{len(bits)} of {len(bits)} bits")


@pytest.mark.fault(
    "C2",
    "two shards with equal headers have changed places",
    "groundup data verify finds that their SHA-256 are not those of the index",
)
def test_shards_that_changed_places_are_noticed(folder):
    """Equal headers, other contents."""
    a, b = folder / "train-000000.bin", folder / "train-000001.bin"
    data = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(data)
    with pytest.raises(UserError, match="SHA-256"):
        check(folder)


def test_missing_and_foreign_files_are_named(folder, tmp_path):
    (folder / "train-000002.bin").rename(tmp_path / "kept")
    with pytest.raises(UserError, match=r"train-000002\.bin: No such file or directory; remove .* prepare it again"):
        TokenDataset(folder)
    (folder / "train-000002.bin").write_bytes((tmp_path / "kept").read_bytes() + b"1")
    with pytest.raises(UserError, match=r"train-000002\.bin is damaged: .* bytes instead of .*; remove .* prepare it"):
        TokenDataset(folder)
    shutil.copy(folder / "val-000000.bin", folder / "train-000002.bin")
    with pytest.raises(UserError, match=r"is not the shard that .*; remove .* and prepare it again"):
        TokenDataset(folder)


@pytest.mark.fault(
    "C3",
    "tokenizer.json beside the shards is another",
    "refused when the tokenizer is loaded",
)
def test_another_tokenizer_is_refused(folder):
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace('"q"', '"Q"'))
    with pytest.raises(UserError, match="not the tokenizer that these shards were made with"):
        TokenDataset(folder).tokenizer()
    with pytest.raises(UserError, match=r"tokenizer\.json"):
        check(folder)


def test_a_split_that_is_not_there(folder):
    dataset = TokenDataset(folder)
    with pytest.raises(UserError, match="has no test split"):
        dataset.split("test")


def test_thousands_of_shards_need_few_open_files(make_split):
    split = make_split(*[[k, k + 1] for k in range(3 * OPEN_SHARDS)])
    process = psutil.Process()
    before = process.num_fds()
    rng = np.random.default_rng(0)
    for shard in rng.integers(len(split.shards), size=2000):
        assert split.read(int(shard), 0, 2).tolist() == [shard, shard + 1]
    assert split.read_all()[::2].tolist() == list(range(3 * OPEN_SHARDS))
    assert process.num_fds() - before <= OPEN_SHARDS
