import hashlib
import math

import pytest
import torch
import torch.nn.functional as F

from groundup.config.errors import UserError
from groundup.config.model import BigramConfig
from groundup.distributed.ranks import World
from groundup.evaluation import benchmarks
from groundup.evaluation.benchmarks import (
    PUBLISHED,
    BenchmarkFile,
    ChoiceResult,
    CompletionResult,
    find_published,
    measure_choices,
    measure_completions,
)
from groundup.evaluation.examples import ChoiceExample, read_choices, read_completions
from groundup.evaluation.scoring import Question
from groundup.files import download
from groundup.model.bigram import Bigram
from groundup.records.results import is_diverged


def bigram(rows):
    """A model that knows what probably follows what: {before: {after: probability}}; the rest is shared equally."""
    model = Bigram(BigramConfig(vocab_size=8))
    with torch.no_grad():
        for before, known in rows.items():
            rest = (1 - sum(known.values())) / (8 - len(known))
            model.table.weight[before] = torch.tensor([known.get(after, rest) for after in range(8)]).log()
    return model


@torch.no_grad()
def losses_as_in_the_lecture(model, question):
    """build-nanogpt's numbers: one example, its choices as padded rows, cross-entropies masked to the endings."""
    rows = [[*question.context, *ending] for ending in question.continuations]
    tokens = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    mask = torch.zeros_like(tokens)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = torch.tensor(row)
        mask[i, len(question.context) : len(row)] = 1
    logits = model(tokens)[:, :-1]
    losses = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), tokens[:, 1:].reshape(-1), reduction="none")
    losses = losses.view(len(rows), -1) * mask[:, 1:]
    return losses.sum(1), losses.sum(1) / mask[:, 1:].sum(1)


def test_accuracies_are_those_of_the_lecture(make_model, choices, letters):
    examples = read_choices(choices, letters) * 2
    right = right_norm = 0
    model = make_model().eval()
    for example in examples:
        total, mean = losses_as_in_the_lecture(model, example.question)
        right += int(total.argmin()) == example.label
        right_norm += int(mean.argmin()) == example.label
    assert measure_choices(model, examples) == ChoiceResult(10, right, right_norm)


def test_sum_and_mean_can_disagree():
    """Two tokens of 1/2 each are less likely than one of 0.4, but likelier by token."""
    model = bigram({0: {1: 0.5, 3: 0.4}, 1: {2: 0.5}})
    examples = [ChoiceExample(Question([0], [[1, 2], [3]]), 0)]
    result = measure_choices(model, examples)
    assert (result.acc, result.acc_norm) == (0.0, 1.0)
    assert result.as_json() == {"acc": 0.0, "acc_norm": 1.0, "examples": 1}


def test_of_equally_likely_endings_the_first_counts():
    model = bigram({})
    examples = [ChoiceExample(Question([0], [[1], [2]]), label) for label in (0, 1, 0, 0)]
    assert measure_choices(model, examples) == ChoiceResult(4, 3, 3)


@pytest.mark.parametrize("label", [0, 1])
def test_a_model_that_gives_no_numbers_has_no_accuracy(label):
    model, other = bigram({}), ChoiceExample(Question([3], [[1], [2]]), 0)
    with torch.no_grad():
        model.table.weight[0] = math.nan
    result = measure_choices(model, [other, ChoiceExample(Question([0], [[1], [2]]), label), other])
    assert is_diverged(result.as_json())
    assert math.isnan(result.acc)
    assert math.isnan(result.acc_norm)
    assert is_diverged(measure_completions(model, [ChoiceExample(Question([0], [[1]]), 0)]).as_json())
    assert measure_choices(model, [other]).acc == 1.0


def test_an_ending_that_is_impossible_is_the_least_likely_one():
    model = bigram({0: {1: 0.0, 2: 0.5}})
    assert measure_choices(model, [ChoiceExample(Question([0], [[1], [2]]), 1)]) == ChoiceResult(1, 1, 1)


def test_ranks_share_the_examples_and_have_one_result(make_model, choices, letters, monkeypatch):
    examples, model = read_choices(choices, letters), make_model()
    parts = []
    monkeypatch.setattr(World, "sum", lambda self, tensor: parts.append(tensor.clone()) or tensor)
    for rank in range(3):
        measure_choices(model, examples, world=World(rank=rank, size=3))
    whole = measure_choices(model, examples)
    assert sum(parts[:3]).tolist() == [whole.right, whole.right_norm]


def test_more_ranks_than_examples(make_model, choices, letters, monkeypatch):
    monkeypatch.setattr(World, "sum", lambda self, tensor: tensor)
    examples = read_choices(choices, letters)
    assert measure_choices(make_model(), examples, world=World(rank=7, size=9)) == ChoiceResult(5, 0, 0)


def test_last_words_by_hand():
    """After 0 comes 1 with 0.6; after 1 comes 2 with 0.1, less than the others."""
    model = bigram({0: {1: 0.6}, 1: {2: 0.1}})
    examples = [ChoiceExample(Question([5, 0], [[1]]), 0), ChoiceExample(Question([0], [[1, 2]]), 0)]
    result = measure_completions(model, examples)
    assert (result.n, result.right) == (2, 1)
    assert result.perplexity == pytest.approx((0.6 * 0.06) ** -0.5, rel=1e-5)
    assert result.as_json() == {"acc": 0.5, "perplexity": result.perplexity, "examples": 2}


def test_a_word_is_foreseen_only_as_a_whole(completions, letters, make_model):
    examples = read_completions(completions, letters)
    result = measure_completions(make_model(), examples)
    assert result.n == 3
    assert math.isfinite(result.perplexity)
    assert math.isfinite(CompletionResult(1, 0, 1e6).perplexity)


def test_the_published_files_are_pinned():
    for published in PUBLISHED.values():
        assert published.url.startswith("https://")
        assert published.url.endswith(published.file)
        assert len(bytes.fromhex(published.sha256)) == 32


def test_a_published_file_is_fetched_once_and_checked(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "WAIT", 0.0)
    data = b'{"text": "a b"}\n'
    (tmp_path / "served").write_bytes(data)
    known = BenchmarkFile("x.jsonl", (tmp_path / "served").as_uri(), len(data), hashlib.sha256(data).hexdigest())
    monkeypatch.setitem(benchmarks.PUBLISHED, "x", known)
    path = find_published("x", tmp_path / "data")
    assert path.read_bytes() == data
    (tmp_path / "served").unlink()
    assert find_published("x", tmp_path / "data") == path
    path.write_bytes(b"mine\n")
    with pytest.raises(UserError, match=r"x\.jsonl is not the published file of x: .* score it under its own name"):
        find_published("x", tmp_path / "data")
    path.unlink()
    with pytest.raises(UserError, match=r"cannot download file:.*offline, give a local copy with --data DIR$"):
        find_published("x", tmp_path / "data")
