import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.inspection.predictions import BLOCK, predictions


@settings(max_examples=30)
@given(
    n_tokens=st.integers(1, 5),
    vocab_size=st.one_of(st.integers(1, 300), st.integers(8 * BLOCK, 60 * BLOCK)),
    k=st.integers(1, 7),
    seed=st.integers(0, 2**31),
    step=st.sampled_from([0.0, 0.5]),
)
def test_every_figure_is_that_of_the_whole_sorted_distribution(n_tokens, vocab_size, k, seed, step):
    """Of many equal logits, too, and wherever in its block a likely token stands."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n_tokens, vocab_size, generator=generator, dtype=torch.float64) + 70
    if step:
        logits = (logits / step).round() * step
    came = torch.randint(vocab_size, (n_tokens - 1,), generator=generator)
    found = predictions(logits, came, k=k)
    p = logits.softmax(-1)
    torch.testing.assert_close(found.top_probabilities, p.sort(descending=True).values[:, :k])
    torch.testing.assert_close(p.gather(1, found.top), found.top_probabilities)
    assert all(len(set(row)) == len(row) == min(k, vocab_size) for row in found.top.tolist())
    torch.testing.assert_close(found.entropy, torch.distributions.Categorical(probs=p).entropy())
    torch.testing.assert_close(found.loss, torch.nn.functional.cross_entropy(logits[:-1], came, reduction="none"))
    assert found.rank.tolist() == [int((row > row[token]).sum()) for row, token in zip(logits, came, strict=False)]


@pytest.mark.parametrize("place", [0, 63, 64, 3199, 3200, 3206])
def test_a_likely_token_is_found_at_the_ends_of_blocks_and_behind_the_last(place):
    logits = torch.zeros(1, 50 * BLOCK + 7)
    logits[0, place] = 9
    found = predictions(logits, torch.tensor([place]))
    assert (found.top[0, 0], found.rank[0]) == (place, 0)
    torch.testing.assert_close(found.loss, -found.top_probabilities[:, 0].log())
