import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.data.order import Order

shapes = st.tuples(
    st.lists(st.integers(1, 400), min_size=1, max_size=6),
    st.integers(1, 40),
    st.integers(0, 5),
    st.integers(0, 3),
    st.integers(1, 20),
).filter(lambda s: max(s[0]) > s[1])


@settings(max_examples=150, deadline=None)
@given(shapes)
def test_no_token_is_predicted_twice_and_few_wait(shape):
    shard_tokens, T, seed, number, window = shape
    epoch = Order(tuple(shard_tokens), T, seed, window).epoch(number)
    predicted = [np.zeros(n, dtype=int) for n in shard_tokens]
    shards, starts = epoch.locate(0, len(epoch))
    for shard, start in zip(shards, starts, strict=True):
        assert 0 <= start < start + T < shard_tokens[shard]  # T + 1 tokens are there
        predicted[shard][start + 1 : start + T + 1] += 1
    for times, n in zip(predicted, shard_tokens, strict=True):
        assert times.max() <= 1
        missing = n - times.sum()
        assert missing <= 2 * T if n > T else missing == n
        inner = np.flatnonzero(times)
        assert not len(inner) or times[inner[0] : inner[-1] + 1].all()  # only the two ends wait


@settings(max_examples=100, deadline=None)
@given(shapes, st.data())
def test_any_range_is_part_of_the_whole(shape, data):
    shard_tokens, T, seed, number, window = shape
    epoch = Order(tuple(shard_tokens), T, seed, window).epoch(number)
    shards, starts = epoch.locate(0, len(epoch))
    first = data.draw(st.integers(0, len(epoch) - 1))
    count = data.draw(st.integers(1, len(epoch) - first))
    some = epoch.locate(first, count)
    assert some[0].tolist() == shards[first : first + count].tolist()
    assert some[1].tolist() == starts[first : first + count].tolist()


def test_every_token_is_predicted_in_some_epoch():
    """Offsets move, also beside a shard that is too short for a sample; a shard's first token follows nothing."""
    order = Order((1000, 5, 333), 32, seed=0)
    predicted = [np.zeros(n, dtype=int) for n in order.shard_tokens]
    for number in range(200):
        epoch = order.epoch(number)
        for shard, start in zip(*epoch.locate(0, len(epoch)), strict=True):
            predicted[shard][start + 1 : start + 33] += 1
    assert predicted[0][0] == predicted[2][0] == predicted[1].max() == 0
    assert predicted[0][1:].min() > 0
    assert predicted[2][1:].min() > 0


def test_the_order_is_random_yet_windowed():
    """Windows come in random order, and samples in random order in them; a window lies close together on the disk."""
    T, window, n = 8, 100, 50
    order = Order((T * window * n + T + 1,), T, seed=3, window=window)
    epoch = order.epoch(0)
    _, starts = epoch.locate(0, len(epoch))
    samples = (starts - starts.min()) // T
    full = samples[: len(samples) // window * window].reshape(-1, window)
    spread = full.max(1) - full.min(1)
    assert (spread < window).sum() >= len(full) - 2  # the last, short window shifts those behind it
    first = [int(row.min()) // window for row in full]
    assert abs(np.corrcoef(first, np.arange(len(first)))[0, 1]) < 0.4
    within = [np.corrcoef(row, np.arange(window))[0, 1] for row in full]
    assert abs(np.mean(within)) < 0.05
    neighbors = np.abs(np.diff(samples)) == 1
    assert neighbors.mean() < 3 * 2 / window


@pytest.mark.parametrize("what", ["seed", "epoch"])
def test_seeds_and_epochs_have_orders_of_their_own(what):
    def starts(k):
        epoch = Order((5000,), 16, seed=k if what == "seed" else 0).epoch(k if what == "epoch" else 0)
        return epoch.locate(0, len(epoch))[1].tolist()

    assert starts(1) == starts(1)
    assert len({tuple(starts(k)) for k in range(5)}) == 5


def test_a_trillion_tokens_are_no_work():
    """1.3T tokens in 13,000 shards: an epoch is planned at once, and any place of it found."""
    order = Order((100_000_000,) * 13_000, 1024, seed=0)
    epoch = order.epoch(0)
    assert 1.26e9 < len(epoch) < 1.27e9
    for at in (0, len(epoch) // 2, len(epoch) - 1000):
        shards, starts = epoch.locate(at, 1000)
        assert len(set(shards.tolist())) <= 4
        assert starts.max() + 1024 < 100_000_000
