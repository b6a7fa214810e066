import pytest
import torch

from groundup.config.model import GPTConfig
from groundup.inspection.detectors import head_scores, labels, stripe_scores
from groundup.inspection.neighbors import neighbors
from groundup.model.gpt import GPT


def looking_at(target, T):
    """Weights of one head that looks at target(i), where that is a position not after i, else at itself."""
    weights = torch.zeros(1, 1, T, T)
    for i in range(T):
        weights[0, 0, i, target(i) if 0 <= target(i) <= i else i] = 1
    return weights


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        ("previous", lambda i: i - 1),
        ("first", lambda i: 0),
        ("duplicate", lambda i: i - 5),
        ("induction", lambda i: i - 4),
    ],
)
def test_each_kind_scores_one_on_its_own_stripe_alone(kind, target):
    scores = stripe_scores(looking_at(target, 10), period=5)
    assert scores[kind].item() == pytest.approx(1)
    assert all(score.item() < 0.5 for other, score in scores.items() if other != kind)
    assert labels(scores) == [[kind]]


def test_a_uniform_head_has_no_name():
    T = 20
    uniform = torch.ones(1, 1, T, T).tril()
    assert labels(stripe_scores(uniform / uniform.sum(-1, keepdim=True), period=10)) == [[None]]


@torch.no_grad()
def looks_back():
    """A model whose one head looks at the token before.

    Positions are one-hot; the query of position i is the key of position i - 1.
    """
    T = 16
    model = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=T, block_size=T, vocab_size=27)).double()
    for parameter in model.parameters():
        parameter.zero_()
    model.h[0].ln_1.weight.fill_(1)
    model.ln_f.weight.fill_(1)
    model.wpe.weight.copy_(torch.eye(T) * 10)
    model.h[0].attn.c_attn.weight[:T] = torch.eye(T).roll(-1, 0) * 10  # q(i) = e(i - 1)
    model.h[0].attn.c_attn.weight[T : 2 * T] = torch.eye(T) * 10  # k(j) = e(j)
    return model


def test_a_head_built_by_hand_to_look_back_one_token_is_found():
    scores = head_scores(looks_back())
    assert scores["previous"].item() > 0.99
    assert labels(scores) == [["previous"]]


@torch.no_grad()
def test_neighbors_are_nearest_by_angle():
    model = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=2, block_size=4, vocab_size=5))
    angles = torch.tensor([0.0, 0.1, 3.0, -0.3, 1.5])
    lengths = torch.tensor([1.0, 5.0, 1.0, 0.1, 1.0])
    model.wte.weight.copy_(lengths[:, None] * torch.stack((angles.cos(), angles.sin()), 1))
    ids, cosines = neighbors(model, 0, k=3)
    assert ids.tolist() == [1, 3, 4]
    torch.testing.assert_close(cosines, angles[[1, 3, 4]].cos())
    assert len(neighbors(model, 0, k=100)[0]) == 4
