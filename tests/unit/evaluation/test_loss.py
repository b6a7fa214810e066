import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from groundup.config.model import GPTConfig
from groundup.data.dataset import Split
from groundup.data.index import ShardInfo
from groundup.data.loader import eval_batches
from groundup.data.shards import write_shard
from groundup.evaluation.loss import LossResult, evaluate_loss
from groundup.model.gpt import GPT
from groundup.model.init import init_weights
from groundup.model.loss import LossModule
from groundup.model.types import evaluating

CPU = torch.device("cpu")
LENGTHS = (50, 17, 1, 100)
"""Tokens per shard: ends in the middle of a block, at one, and a shard with nothing to predict."""


class Given(nn.Module):
    """A model whose logits are a function of the ids."""

    head_weight = None

    def __init__(self, function):
        super().__init__()
        self.hidden = function

    def logits(self, hidden):
        return hidden

    def forward(self, idx):
        return self.logits(self.hidden(idx))


@pytest.fixture
def split(tmp_path):
    generator = np.random.default_rng(0)
    infos = []
    for i, length in enumerate(LENGTHS):
        ids = generator.integers(27, size=length)
        header = write_shard(tmp_path / f"{i}.bin", ids, vocab_size=27, fingerprint="00" * 32)
        infos.append(
            ShardInfo(file=f"{i}.bin", split="val", n_tokens=length, n_bytes=2 * length, n_documents=1,
                      max_id=header.max_id, sha256="00" * 32)
        )  # fmt: skip
    return Split(tmp_path, tuple(infos), "00" * 32)


def evaluate(model, split, *, bytes_per_token=2.0, max_tokens=0, batch_size=3, **options):
    batches = eval_batches(split, block_size=16, batch_size=batch_size, max_tokens=max_tokens)
    return evaluate_loss(LossModule(model), batches, device=CPU, bytes_per_token=bytes_per_token, **options)


@torch.no_grad()
def direct(model, split, block_size=16):
    """The same number token by token: blocks of each shard in order, -ln p of every token after a shard's first."""
    nats = []
    for shard, length in enumerate(LENGTHS):
        ids = torch.from_numpy(split.read(shard, 0, length).astype(np.int64))
        for start in range(0, length - 1, block_size):
            block = ids[start : start + block_size + 1]
            p = model(block[None, :-1])[0].double().softmax(-1)
            nats += [-math.log(p[t, block[t + 1]]) for t in range(len(block) - 1)]
    return nats


def test_equals_a_direct_computation_over_the_whole_split(tiny_model, split):
    nats = direct(tiny_model.eval(), split)
    assert len(nats) == sum(length - 1 for length in LENGTHS)
    for batch_size in (1, 3, 100):
        result = evaluate(tiny_model, split, batch_size=batch_size)
        assert result.n_tokens == len(nats)
        assert result.nats == pytest.approx(sum(nats), rel=1e-6)
        assert result.loss == pytest.approx(sum(nats) / len(nats), rel=1e-6)


def test_a_uniform_model_has_the_entropy_of_its_vocabulary(split):
    def zeros(idx):
        return torch.zeros(*idx.shape, 27)

    result = evaluate(Given(zeros), split, bytes_per_token=1.5)
    assert result.loss == pytest.approx(math.log(27), rel=1e-6)
    assert result.perplexity == pytest.approx(27, rel=1e-5)
    assert result.bits_per_byte == pytest.approx(math.log2(27) / 1.5, rel=1e-6)


def test_a_budget_stops_early_and_counts_its_bytes_in_proportion(tiny_model, split):
    result = evaluate(tiny_model, split, max_tokens=20)
    assert result.n_tokens == 32
    assert result.n_bytes == 64
    assert result.nats == pytest.approx(sum(direct(tiny_model.eval(), split)[:32]), rel=1e-6)


def test_dropout_is_off_and_the_model_is_left_as_it_was(split):
    config = GPTConfig(n_layer=1, n_head=2, n_embd=32, block_size=16, vocab_size=27, dropout=0.5)
    model = init_weights(GPT(config), seed=0)
    for training in (True, False):
        model.train(training)
        state = torch.get_rng_state()
        module = LossModule(model)
        module.train(training)
        results = [
            evaluate_loss(module, eval_batches(split, block_size=16, batch_size=4), device=CPU, bytes_per_token=1)
            for _ in range(2)
        ]
        assert results[0] == results[1]
        assert module.training is model.training is training
        assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in model.parameters())


def test_evaluating_puts_a_model_back_after_an_error(tiny_model):
    tiny_model.train()
    seen = []

    def fail():
        seen.append(tiny_model.training)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), evaluating(tiny_model):
        fail()
    assert seen == [False]
    assert tiny_model.training


def test_sums_many_small_losses_without_losing_them():
    """In float32 a sum of a hundred million nats no longer sees a loss of two."""

    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.values = iter([1e8] + [2.0] * 1000)

        def forward(self, idx, targets):
            return torch.tensor(next(self.values))

    block = torch.zeros(1, 1, dtype=torch.long)
    result = evaluate_loss(Constant(), [(block, block)] * 1001, device=CPU, bytes_per_token=1)
    assert result.nats == 1e8 + 2000


def test_padding_does_not_count():
    targets = torch.tensor([[1, -100, 2], [-100, -100, -100]])
    idx = torch.zeros(2, 3, dtype=torch.long)
    logits = torch.randn(2, 3, 5)
    result = evaluate_loss(LossModule(Given(lambda idx: logits)), [(idx, targets)], device=CPU, bytes_per_token=1)
    assert result.n_tokens == 2
    expected = F.cross_entropy(logits[0, [0, 2]], torch.tensor([1, 2]), reduction="sum")
    assert result.nats == pytest.approx(float(expected), rel=1e-6)


def test_computes_in_the_precision_it_is_told(tiny_model, split):
    plain = evaluate(tiny_model, split)
    narrow = evaluate(tiny_model, split, autocast=torch.autocast("cpu", dtype=torch.bfloat16))
    assert narrow.nats != plain.nats
    assert narrow.loss == pytest.approx(plain.loss, rel=0.02)


def test_units_by_hand():
    result = LossResult(nats=8 * math.log(2), n_tokens=4, n_bytes=16)
    assert result.loss == pytest.approx(2 * math.log(2))
    assert result.perplexity == pytest.approx(4)
    assert result.bits_per_byte == pytest.approx(0.5)
    assert math.isfinite(LossResult(nats=1e6, n_tokens=1, n_bytes=1).perplexity)


class OnApple(torch.Tensor):
    """Ids that are on an Apple GPU wherever they are sent."""

    def to(self, device):
        return self.as_subclass(torch.Tensor)


def test_a_sum_has_no_float64_where_the_device_has_none(monkeypatch):
    zeros = torch.zeros

    def made(*shape, dtype, device):
        assert (device.type, dtype) != ("mps", torch.float64)
        return zeros(*shape, dtype=dtype)

    ids = torch.tensor([[1, 2, 3]])
    batches = [(ids.as_subclass(OnApple), ids.as_subclass(OnApple))]
    model = Given(lambda idx: F.one_hot(idx, 27).float())
    monkeypatch.setattr(torch, "zeros", made)
    result = evaluate_loss(LossModule(model), batches, device=torch.device("mps"), bytes_per_token=1.0)
    assert result.loss == pytest.approx(math.log(math.e + 26) - 1)
