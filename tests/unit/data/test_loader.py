import hashlib
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.config.errors import UserError
from groundup.config.printable import counted
from groundup.data import loader
from groundup.data.loader import IGNORE, TrainBatches, eval_batches


@pytest.fixture
def split(make_split):
    """Shards whose tokens say where they stand; one is too short for a sample."""
    return make_split(np.arange(1000), np.arange(1000, 1010), np.arange(2000, 2700))


def batches(split, **options):
    return TrainBatches(split, **{"block_size": 16, "micro_batch_size": 4, "seed": 5, **options})


def stream_hash(split, *, world_size, micro_batch_size, n_samples, **options):
    """What all ranks together learn from, micro-step after micro-step."""
    ranks = [
        batches(split, micro_batch_size=micro_batch_size, rank=rank, world_size=world_size, **options)
        for rank in range(world_size)
    ]
    digest = hashlib.sha256()
    for _ in range(n_samples // (world_size * micro_batch_size)):
        for rank in ranks:
            idx, targets = rank.next_batch()
            for row in torch.cat((idx, targets[:, -1:]), dim=1):
                digest.update(row.numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.fault(
    "D2",
    "1, 2, 3, 4 or 8 ranks and any micro-batch, over several epochs",
    "the same samples in the same order",
)
@pytest.mark.parametrize("ahead", [1, 7, 1024])
def test_the_stream_is_the_same_for_every_number_of_ranks(split, monkeypatch, ahead):
    """Over several epochs, however many samples a rank takes at a time."""
    monkeypatch.setattr(loader, "AHEAD", ahead)
    hashes = {
        (world_size, B): stream_hash(split, world_size=world_size, micro_batch_size=B, n_samples=480)
        for world_size, B in ((1, 1), (1, 16), (2, 8), (4, 4), (8, 2), (3, 4), (1, 480))
    }
    assert len(set(hashes.values())) == 1, hashes


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 400), st.sampled_from([1, 2, 3, 6])), max_size=6), st.sampled_from([1, 2]))
def test_restarted_anywhere_with_any_micro_batch_it_is_the_same_stream(make_split_once, jumps, world_size):
    """Backwards over epochs, too, as a step does that is made again."""
    split = make_split_once
    whole = batches(split, micro_batch_size=420)
    samples = torch.cat([whole.next_batch()[0] for _ in range(2)])
    ranks = [batches(split, micro_batch_size=6, rank=rank, world_size=world_size) for rank in range(world_size)]
    for place, size in [(0, 6), *jumps]:
        for stream in ranks:
            stream.restart(place, micro_batch_size=size)
        for first in range(place, place + 3 * size * world_size, size * world_size):
            got = torch.cat([stream.next_batch()[0] for stream in ranks])
            assert torch.equal(got, samples[first : first + size * world_size])
        assert ranks[0].consumed == place + 3 * size * world_size


def test_targets_are_the_tokens_that_follow(split):
    stream = batches(split)
    for _ in range(60):
        idx, targets = stream.next_batch()
        assert idx.shape == targets.shape == (4, 16)
        assert idx.dtype == targets.dtype == torch.int64
        assert torch.equal(targets, idx + 1)


def test_an_epoch_sees_no_token_twice_and_almost_all(split):
    stream = batches(split, micro_batch_size=1)
    n = len(stream._epoch)
    seen = torch.cat([stream.next_batch()[1].flatten() for _ in range(n)])
    assert len(seen.unique()) == len(seen) == n * 16
    assert len(seen) >= 1700 - 4 * 16
    assert stream.consumed == n
    again = torch.cat([stream.next_batch()[1].flatten() for _ in range(n // 2)])
    assert len(again.unique()) == len(again)


@pytest.mark.parametrize("in_memory", [0, 1 << 30])
def test_memory_and_disk_give_the_same(split, in_memory):
    expected = stream_hash(split, world_size=1, micro_batch_size=4, n_samples=100)
    assert stream_hash(split, world_size=1, micro_batch_size=4, n_samples=100, in_memory_bytes=in_memory) == expected


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(["next", "ahead", "restart", "save"]), max_size=60), st.sampled_from([1, 2]))
def test_what_is_only_fetched_ahead_is_not_counted(make_split_once, actions, world_size):
    """A stream that fetches ahead at any moment, beside one that never does."""
    options = {"rank": world_size - 1, "world_size": world_size}
    plain, eager = (batches(make_split_once, **options) for _ in range(2))
    for action in actions:
        if action == "ahead":
            eager.fetch_ahead()
        elif action == "next":
            for a, b in zip(plain.next_batch(), eager.next_batch(), strict=True):
                assert torch.equal(a, b)
        elif action == "restart":
            plain.restart(8, micro_batch_size=2)
            eager.restart(8, micro_batch_size=2)
        else:
            state = json.loads(json.dumps(eager.state_dict()))
            eager = batches(make_split_once, **options, micro_batch_size=plain.micro_batch_size)
            eager.load_state_dict(state)
        assert eager.state_dict() == plain.state_dict()


@pytest.mark.fault(
    "D1",
    "the loader stops and goes on anywhere",
    "the samples that were to come",
)
@pytest.mark.fault(
    "D2",
    "the loader goes on anywhere with another number of ranks, of 1, 2 and 4",
    "the samples that were to come, shared out among them",
)
@settings(max_examples=25, deadline=None)
@given(before=st.integers(0, 120), worlds=st.tuples(st.sampled_from([1, 2, 4]), st.sampled_from([1, 2, 4])))
def test_a_stream_goes_on_where_it_stood(make_split_once, before, worlds):
    """Through JSON, in the middle of any epoch, on another number of ranks."""
    split = make_split_once
    old = batches(split, micro_batch_size=8 // worlds[0], rank=worlds[0] - 1, world_size=worlds[0])
    for _ in range(before):
        old.next_batch()
    state = json.loads(json.dumps(old.state_dict()))
    assert set(state) == {"consumed", "block_size", "seed", "fingerprint"}
    rank = worlds[1] - 1
    resumed = batches(split, micro_batch_size=8 // worlds[1], rank=rank, world_size=worlds[1], seed=999)
    resumed.next_batch()
    resumed.load_state_dict(state)
    whole = batches(split, micro_batch_size=8)
    for _ in range(before):
        whole.next_batch()
    for _ in range(20):
        width = 8 // worlds[1]
        expected = whole.next_batch()[0][rank * width : (rank + 1) * width]
        assert torch.equal(resumed.next_batch()[0], expected)
    assert resumed.state_dict() == whole.state_dict()


@pytest.fixture(scope="module")
def make_split_once(tmp_path_factory):
    from groundup.data.dataset import Split
    from groundup.data.index import ShardInfo
    from groundup.data.shards import write_shard

    folder = tmp_path_factory.mktemp("split")
    write_shard(folder / "a.bin", np.arange(3000), vocab_size=3000, fingerprint="00" * 32)
    info = ShardInfo(file="a.bin", split="train", n_tokens=3000, n_bytes=0, n_documents=0, max_id=2999, sha256="")
    return Split(folder, (info,), "aa" * 32)


@pytest.mark.fault(
    "C9",
    "the data is another when a run is resumed",
    "the loader refuses its fingerprint, unless it is told to go on",
)
def test_other_data_is_refused_unless_allowed(make_split, split):
    stream = batches(split)
    for _ in range(10):
        stream.next_batch()
    state = stream.state_dict()
    other = batches(make_split(np.arange(5000, 9000), fingerprint="cd" * 32))
    with pytest.raises(UserError, match=r"cdcdcdcdcdcd instead of aaaaaaaaaaaa; --allow-data-change"):
        other.load_state_dict(state)
    assert other.consumed == 0
    other.load_state_dict(state, allow_data_change=True)
    assert other.consumed == 40
    assert other.next_batch()[0].min() >= 5000
    assert other.state_dict()["fingerprint"] == "cd" * 32


def test_blocks_of_another_size_are_refused(split):
    with pytest.raises(UserError, match="blocks of 16 tokens, not of 8"):
        batches(split, block_size=8).load_state_dict(batches(split).state_dict())


def test_the_seed_decides_the_order(split):
    first = [batches(split, seed=seed).next_batch()[0].tolist() for seed in (1, 1, 2)]
    assert first[0] == first[1] != first[2]


@pytest.mark.fault(
    "C11",
    "a split shorter than a block",
    "one line with both numbers",
)
@pytest.mark.parametrize("n", [1, 15, 16])
def test_too_short_for_one_block(make_split, n):
    with pytest.raises(UserError, match=f"^the training split has {counted(n, 'token')}, too few for one block of 16"):
        batches(make_split(range(n)))
    of_two = f"^the longest of 2 shards of the training split has {counted(n, 'token')}, too few for one block of 16"
    with pytest.raises(UserError, match=of_two):
        batches(make_split(range(n), range(n)))


def test_the_shortest_that_is_enough(make_split):
    stream = batches(make_split(range(17)), micro_batch_size=3)
    idx, targets = stream.next_batch()
    assert idx.tolist() == [list(range(16))] * 3
    assert targets.tolist() == [list(range(1, 17))] * 3


def test_the_stream_is_the_one_that_checkpoints_count_in(split):
    """A change of this hash changes what resumed runs learn from: say so in the CHANGELOG."""
    assert stream_hash(split, world_size=1, micro_batch_size=4, n_samples=300)[:16] == "ee965fc739b18ddc"


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 70), min_size=1, max_size=4).filter(lambda n: max(n) > 1),
    T=st.integers(1, 20),
    B=st.integers(1, 5),
    world_size=st.integers(1, 4),
)
def test_evaluation_predicts_every_token_once(tmp_path_factory, lengths, T, B, world_size):
    shards = [np.arange(1000 * k, 1000 * k + n) for k, n in enumerate(lengths)]
    split = Memory(shards)
    found, empty, shapes = [], 0, []
    for rank in range(world_size):
        shapes.append([])
        for idx, targets in eval_batches(split, block_size=T, batch_size=B, rank=rank, world_size=world_size):
            assert idx.shape == targets.shape
            assert idx.shape[1] == T
            assert 1 <= idx.shape[0] <= B
            real = targets != IGNORE
            assert torch.equal(targets[real], idx[real] + 1)
            empty += int((~real[:, 0]).sum())
            shapes[-1].append(idx.shape)
            assert not (real[:, 1:] & ~real[:, :-1]).any()  # padding is at the end
            found += targets[real].tolist()
    assert all(shape == shapes[0] for shape in shapes)  # FSDP: all ranks go through the model equally often
    assert empty < world_size
    expected = [int(i) for shard in shards for i in shard[1:]]
    assert sorted(found) == expected
    if world_size == 1:
        assert found == expected


@pytest.mark.parametrize(("budget", "expected"), [(0, 99), (1, 8), (8, 8), (9, 16), (50, 56), (1000, 99)])
def test_a_budget_ends_after_the_block_that_reaches_it(budget, expected):
    for world_size in (1, 3):
        n = sum(
            int((targets != IGNORE).sum())
            for rank in range(world_size)
            for _, targets in eval_batches(
                Memory([np.arange(100)]),
                block_size=8,
                batch_size=4,
                max_tokens=budget,
                rank=rank,
                world_size=world_size,
            )
        )
        assert n == expected


@pytest.mark.parametrize("shards", [[[7]], [[7], [8]], [[]]])
def test_nothing_to_evaluate_is_told(shards):
    with pytest.raises(UserError, match="too few to predict one from another"):
        next(eval_batches(Memory([np.array(s) for s in shards]), block_size=8, batch_size=1))


class Memory:
    """A split that is not on the disk."""

    def __init__(self, shards):
        self.shards = shards
        self.n_tokens = sum(map(len, shards))

    def read(self, shard, start, count):
        return self.shards[shard][start : start + count]
