"""Rows of their own length: a batch of unequal prompts is what each of them is alone."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from groundup.config.model import GPTConfig, ModernConfig
from groundup.model.build import build_model
from groundup.model.init import init_weights
from groundup.model.kv_cache import KVCache
from groundup.runtime.stored import keep_rows, read_rows

LENGTHS = [3, 9, 1, 6]
ROOM = 16


@pytest.fixture(params=[GPTConfig, ModernConfig])
def model(request, tiny_config):
    model = init_weights(build_model(request.param(**dataclasses.asdict(tiny_config))), seed=1).double().eval()
    with torch.no_grad():
        for block in model.h:
            block.attn.c_attn.weight.mul_(20)  # attention that looks somewhere
    return model


@pytest.fixture
def ids():
    return torch.randint(27, (len(LENGTHS), ROOM), generator=torch.Generator().manual_seed(3))


def filled(model, ids, *, static):
    """A cache of the first LENGTHS[row] ids of every row, read together, padded with other ids."""
    cache = model.new_cache(len(ids), ROOM, static=static)
    with torch.no_grad():
        model(ids[:, : max(LENGTHS)], cache=cache)
    cache.truncate(LENGTHS)
    return cache


def alone(model, row, length):
    """Logits after `length` ids of a row, without a cache."""
    with torch.no_grad():
        return model(row[None, :length])[0, -1]


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("steps", [[1] * 7, [2, 1, 4], [7]])
def test_a_batch_of_unequal_prompts_is_each_alone(model, ids, static, steps):
    cache, read = filled(model, ids, static=static), list(LENGTHS)
    for n in steps:
        piece = torch.stack([row[start : start + n] for row, start in zip(ids, read, strict=True)])
        with torch.no_grad():
            logits = model(piece, cache=cache)[:, -1]
        read = [start + n for start in read]
        assert cache.held == read == cache.lengths.tolist()
        expected = torch.stack([alone(model, row, length) for row, length in zip(ids, read, strict=True)])
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("static", [False, True])
def test_a_row_begins_again_with_another_text(model, ids, static):
    cache = filled(model, ids, static=static)
    cache.truncate([0, *LENGTHS[1:]])
    for step in range(5):
        piece = torch.stack([ids[2, step], *(row[n + step] for row, n in zip(ids[1:], LENGTHS[1:], strict=True))])
        with torch.no_grad():
            logits = model(piece[:, None], cache=cache)[:, -1]
        torch.testing.assert_close(logits[0], alone(model, ids[2], step + 1), rtol=0, atol=1e-12)
        torch.testing.assert_close(logits[1], alone(model, ids[1], LENGTHS[1] + step + 1), rtol=0, atol=1e-12)


def test_copies_go_on_as_the_row_they_are_of(model, ids):
    cache = filled(model, ids, static=False).gather([1, 1, 0], max_tokens=12)
    assert (cache.held, cache.max_tokens) == ([9, 9, 3], 12)
    with torch.no_grad():
        logits = model(torch.stack([ids[1, 9], ids[2, 0], ids[0, 3]])[:, None], cache=cache)[:, -1]
    torch.testing.assert_close(logits[0], alone(model, ids[1], 10), rtol=0, atol=1e-12)
    torch.testing.assert_close(logits[2], alone(model, ids[0], 4), rtol=0, atol=1e-12)


def test_no_shape_of_a_static_step_depends_on_the_lengths(model, ids):
    cache = filled(model, ids, static=True)
    shapes = []
    for _ in range(3):
        k = torch.zeros(len(ids), 2, 1, 16, dtype=torch.float64)
        tensors = cache.positions(1), cache.mask(1), *cache.update(0, k, k)
        shapes.append([tuple(t.shape) for t in tensors])
        cache.advance(1)
    assert shapes[0] == shapes[1] == shapes[2]
    assert shapes[0][1] == (4, 1, 1, ROOM)


def test_equal_rows_are_read_as_a_slice_and_need_no_mask(model, ids):
    cache = model.new_cache(4, ROOM)
    with torch.no_grad():
        model(ids[:, :5], cache=cache)
    assert cache.even
    assert cache.mask(1) is None
    k, _ = cache.update(0, torch.zeros(4, 2, 1, 16), torch.zeros(4, 2, 1, 16))
    assert k.shape[2] == 6
    assert k.data_ptr() == cache.keys.data_ptr()


def test_rows_are_only_cut_to_what_they_hold(model, ids):
    cache = filled(model, ids, static=False)
    with pytest.raises(ValueError, match="cannot truncate 1 tokens to 2"):
        cache.truncate([3, 3, 2, 3])
    assert cache.held == LENGTHS
    k = torch.zeros(4, 2, 8, 16)
    with pytest.raises(ValueError, match="room for 16 tokens, 17 were given"):
        cache.update(0, k, k)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("n_layer", [0, 2])
def test_an_empty_cache_is_zeros_of_its_type(dtype, n_layer):
    cache = KVCache(n_layer=n_layer, batch_size=2, n_head=3, max_tokens=5, head_dim=4, dtype=dtype)
    for tensor in (cache.keys, cache.values):
        assert tensor.shape == (n_layer, 2, 3, 5, 4)
        assert tensor.dtype == dtype
        assert not tensor.any()
    if n_layer:
        cache.keys[1, 1, 2, 4, 3] = 1
        assert cache.keys.sum() == 1
        assert not cache.values.any()


@given(
    npst.arrays(np.float32, st.tuples(st.integers(1, 3), st.integers(1, 40)), elements=st.floats(-1e4, 1e4, width=32)),
)
def test_rows_of_8_bits_are_off_by_half_a_step_at_most(array):
    x = torch.from_numpy(array)
    kept = keep_rows(x, torch.int8)
    assert kept.shape == (x.shape[0], x.shape[1] + 4)
    read = read_rows(kept, torch.float64)
    step = x.double().abs().amax(-1, keepdim=True).clamp(min=1e-30) / 127
    assert ((read - x).abs() <= 0.5001 * step).all()
    assert torch.equal(read_rows(kept[:, None].expand(-1, 2, -1), torch.float64)[:, 1], read)  # wherever the rows lie


@pytest.mark.parametrize("static", [False, True])
def test_a_cache_of_8_bits_gives_nearly_the_logits_of_a_wide_one(model, ids, static):
    """For rows of their own lengths, one and many tokens at a time, and copies."""
    pair = []
    for dtype in (torch.float64, torch.int8):
        cache = KVCache.for_config(model.config, len(ids), ROOM, like=torch.empty(0, dtype=dtype), static=static)
        with torch.no_grad():
            model(ids[:, : max(LENGTHS)], cache=cache)
            cache.truncate(LENGTHS)
            logits = [model(ids[:, :n], cache=cache) for n in (1, 2, 3)]
            if not static:
                cache = cache.gather([1, 1, 0])
                logits.append(model(ids[:3, :1], cache=cache))
        assert cache.keys.dtype == dtype
        pair.append(torch.cat([part.flatten() for part in logits]))
    assert (pair[0] - pair[1]).square().mean().sqrt() < 0.02 * pair[0].std()
    assert not torch.equal(*pair)
