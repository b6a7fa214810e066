"""The blocks in one call, against the page that they stand for."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import needs
from groundup.config.model import GPTConfig
from groundup.inference import fused as fused_module
from groundup.inference import many_rows
from groundup.inference.fused import FusedBlocks
from groundup.inference.stored_linear import MAX_ROWS
from groundup.inference.weights import use_weights
from groundup.kernels.compiled import CompiledKernels, load_kernels
from groundup.model.build import build_model
from groundup.model.init import init_weights
from groundup.runtime.stored import DTYPES, PlainKernels, read_rows

pytestmark = needs.compiler


def models(weights, *, n_embd=32, n_head=2, bias=True, block_size=40):
    """One that goes the way of the page, and one that goes the kernel's: weights that look somewhere."""
    config = GPTConfig(n_layer=2, n_head=n_head, n_embd=n_embd, block_size=block_size, vocab_size=61, bias=bias)
    pair = []
    for kernels in (PlainKernels(), load_kernels(lambda _: None)):
        model = init_weights(build_model(config), seed=3).eval()
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn(p.shape, generator=generator) * 0.2)
        use_weights(model, weights, kernels)
        pair.append(model)
    assert isinstance(pair[1].h, FusedBlocks)
    return pair


def allowed(weights, kept):
    """A last bit of a sum decides which integer, or which number of 16 bits, something is rounded to."""
    if weights == "int8":  # of activations, in every product
        return 0.2
    return {torch.float32: 1e-4, torch.float16: 1e-2, torch.int8: 5e-2}[kept]


steps = st.lists(st.integers(1, 5), min_size=1, max_size=6)


@settings(max_examples=12, deadline=None)
@given(
    weights=st.sampled_from(list(DTYPES)),
    shape=st.sampled_from([(32, 2), (24, 3), (64, 1), (20, 5)]),
    bias=st.booleans(),
    kept=st.sampled_from([torch.float32, torch.float16, torch.int8]),
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=4),
    steps=steps,
)
@torch.inference_mode()
def test_the_logits_are_those_of_the_page(weights, shape, bias, kept, lengths, steps):
    plain, fused = models(weights, n_embd=shape[0], n_head=shape[1], bias=bias)
    generator = torch.Generator().manual_seed(len(lengths))
    caches = []
    atol = allowed(weights, kept)
    prompt = torch.randint(61, (len(lengths), max(lengths) or 1), generator=generator)
    for model in (plain, fused):
        model.h.cache_dtype = kept
        caches.append(model.new_cache(len(lengths), 40))
        model(prompt, cache=caches[-1])
        caches[-1].truncate(lengths)
    for T in steps:
        idx = torch.randint(61, (len(lengths), T), generator=generator)
        ours, theirs = fused(idx, cache=caches[1]), plain(idx, cache=caches[0])
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=atol)
    assert caches[0].held == caches[1].held


@pytest.mark.parametrize("way", ["kernels", "default"])
@pytest.mark.parametrize(
    ("weights", "kept"),
    [
        ("fp32", torch.float32),
        ("fp16", torch.float32),
        ("fp32", torch.float16),
        ("fp32", torch.int8),
        ("int8", torch.float16),
        ("int8", torch.int8),
    ],
)
@pytest.mark.parametrize(("n_embd", "n_head"), [(32, 2), (20, 5), (80, 1)])
@torch.inference_mode()
def test_prompts_have_the_logits_of_the_page(monkeypatch, way, weights, kept, n_embd, n_head):
    monkeypatch.setattr(fused_module, "pick_many", lambda *_, **__: way)
    monkeypatch.setattr(many_rows, "pick_many", lambda *_, **__: way)
    plain, fused = models(weights, n_embd=n_embd, n_head=n_head, block_size=300)
    plain.h.cache_dtype = fused.h.cache_dtype = kept
    atol = allowed(weights, kept)
    generator = torch.Generator().manual_seed(5)
    caches, apart = [model.new_cache(2, 300) for model in (plain, fused)], []
    for T in (MAX_ROWS + 1, 1, 210, 3, 50):  # the second and later ones behind others, and rows of different lengths
        idx = torch.randint(61, (2, T), generator=generator)
        theirs, ours = (model(idx, cache=cache) for model, cache in zip((plain, fused), caches, strict=True))
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=atol)
        apart.append((ours - theirs).abs().flatten())
        for ours, theirs in ((caches[1].keys, caches[0].keys), (caches[1].values, caches[0].values)):
            ours, theirs = (read_rows(rows, torch.float32) for rows in (ours, theirs))
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2 * atol if kept == torch.int8 else atol)
        for cache in caches:
            cache.truncate([cache.held[0] - 1, cache.held[1]])
    assert torch.cat(apart).mean() < atol / 20  # few are rounded otherwise


@pytest.mark.parametrize("weights", DTYPES)
@torch.inference_mode()
def test_a_row_gives_the_same_bits_in_every_batch(weights):
    _, model = models(weights)
    idx = torch.randint(61, (7, 12))
    together, cache = [], model.new_cache(7, 12)
    for t in range(12):
        together.append(model(idx[:, t : t + 1], cache=cache))
    for row in range(7):
        cache = model.new_cache(1, 12)
        for t in range(12):
            assert torch.equal(model(idx[row : row + 1, t : t + 1], cache=cache)[0], together[t][row])


@torch.inference_mode()
def test_the_kernel_is_used_for_a_few_new_tokens_and_by_whom_nobody_watches(monkeypatch):
    calls = []
    init = CompiledKernels.__init__

    def counted(self, *paths):
        init(self, *paths)
        call = self.blocks
        self.blocks = lambda *arguments: calls.append(None) or call(*arguments)

    monkeypatch.setattr(CompiledKernels, "__init__", counted)
    load_kernels.cache_clear()
    try:
        _, model = models("fp32")
    finally:
        load_kernels.cache_clear()
    calls.clear()  # of the kernels' own test
    cache = model.new_cache(1, 40)
    monkeypatch.setattr(fused_module, "pick_many", lambda *_, **__: "default")
    model(torch.zeros(1, MAX_ROWS + 1, dtype=torch.long), cache=cache)
    model(torch.zeros(1, 3, dtype=torch.long))
    assert not calls
    model(torch.zeros(1, 3, dtype=torch.long), cache=cache)
    assert len(calls) == 1
    seen = []
    model.h[0].attn.register_forward_hook(lambda *_: seen.append(None))
    model(torch.zeros(1, 1, dtype=torch.long), cache=cache)
    assert (len(calls), len(seen)) == (1, 1)


@torch.inference_mode()
def test_tensors_that_are_loaded_later_are_those_that_count():
    plain, fused = models("fp32")
    idx = torch.zeros(1, 1, dtype=torch.long)
    before = fused(idx, cache=fused.new_cache(1, 4))
    state = {name: tensor * 1.5 for name, tensor in plain.state_dict().items()}
    for model in (plain, fused):
        model.load_state_dict(state, assign=True)
    after = fused(idx, cache=fused.new_cache(1, 4))
    torch.testing.assert_close(after, plain(idx), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(before, after)


@torch.inference_mode()
def test_there_must_be_room():
    _, model = models("fp32")
    cache = model.new_cache(1, 3)
    model(torch.zeros(1, 2, dtype=torch.long), cache=cache)
    with pytest.raises(ValueError, match="room for 3 tokens, 4 were given"):
        model(torch.zeros(1, 2, dtype=torch.long), cache=cache)


@pytest.mark.parametrize("weights", DTYPES)
@torch.inference_mode()
def test_keys_are_kept_in_as_many_bits_as_weights(weights):
    plain, fused = models(weights)
    kept = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.float16, "int8": torch.int8}
    assert fused.new_cache(1, 4).keys.dtype == kept[weights]
    assert plain.new_cache(1, 4).keys.dtype == torch.float32  # PyTorch would widen all of them for each token
