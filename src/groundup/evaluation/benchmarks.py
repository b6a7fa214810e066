"""Benchmarks: from scores to the numbers that papers print."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from groundup.config.errors import UserError
from groundup.distributed.ranks import World
from groundup.evaluation.examples import ChoiceExample, CompletionExample
from groundup.evaluation.loss import perplexity
from groundup.evaluation.scoring import log_likelihoods
from groundup.files.download import download
from groundup.files.manifest import sha256_file
from groundup.model.types import LanguageModel


@dataclass(frozen=True, slots=True)
class BenchmarkFile:
    """A file of a benchmark, as its authors serve it."""

    file: str
    url: str
    size: int
    sha256: str


PUBLISHED = {
    "hellaswag": BenchmarkFile(
        file="hellaswag_val.jsonl",
        url="https://raw.githubusercontent.com/rowanz/hellaswag/master/data/hellaswag_val.jsonl",
        size=12_246_618,
        sha256="0aa3b88843990f3f10a97b9575c94d7b71fb2205240ba04ae4884d9e9c992588",
    ),
    "lambada": BenchmarkFile(
        file="lambada_test.jsonl",
        url="https://openaipublic.blob.core.windows.net/gpt-2/data/lambada_test.jsonl",
        size=1_819_752,
        sha256="4aa8d02cd17c719165fc8a7887fddd641f43fcafa4b1c806ca8abc31fabdb226",
    ),
    "wikitext": BenchmarkFile(
        file="wikitext-2-raw-v1.zip",
        url="https://huggingface.co/datasets/ggml-org/ci/resolve/927b3642933080f1b0e811e2f916e14c292992f9/wikitext-2-raw-v1.zip",
        size=4_721_645,
        sha256="ef7edb566e3e2b2d31b29c1fdb0c89a4cc683597484c3dc2517919c615435a11",
    ),
}
"""HellaSwag's validation set (Zellers et al. 2019; 10,042 examples), LAMBADA (Paperno et al. 2016; 5,153) as OpenAI
prepared it for GPT-2, and WikiText-2 (Merity et al. 2016) in the archive of its authors, whose own server is gone."""


def find_published(name: str, folder: Path, *, instead: str = "--data DIR") -> Path:
    """The file of a benchmark in a folder, downloaded if it is not there.

    Args:
        name: A key of PUBLISHED.
        folder: Where it lies, or is kept.
        instead: The flag that takes a local copy, for the message.

    Raises:
        UserError: It cannot be had, or the file of that name is another one.
    """
    known = PUBLISHED[name]
    path = folder / known.file
    if path.is_file() and sha256_file(path) != known.sha256:
        raise UserError(
            f"{path} is not the published file of {name}: its SHA-256 is not {known.sha256[:12]}...; remove it, or"
            " score it under its own name: --tasks FILE"
        )
    return download(known.url, path, size=known.size, sha256=known.sha256, instead=instead)


@dataclass(frozen=True, slots=True)
class ChoiceResult:
    """How often the right ending was the likeliest; NaN where a model gave an ending no number."""

    n: int
    right: float
    """By the sum of log-probabilities."""
    right_norm: float
    """By their mean."""

    @property
    def acc(self) -> float:
        """Share of examples whose right ending has the largest sum of log-probabilities."""
        return self.right / self.n

    @property
    def acc_norm(self) -> float:
        """Share of examples whose right ending has the largest mean log-probability per token.

        This is build-nanogpt's rule (GPT-2 124M: 0.2955). lm-evaluation-harness divides the sum by the number of
        characters of the ending instead, which does not depend on the tokenizer; its figures for the same model are a
        little higher (0.31), also because it cleans the texts of WikiHow's marks first.
        """
        return self.right_norm / self.n

    def as_json(self) -> dict[str, Any]:
        """Values for eval.json."""
        return {"acc": self.acc, "acc_norm": self.acc_norm, "examples": self.n}


def measure_choices(
    model: LanguageModel,
    examples: Sequence[ChoiceExample],
    *,
    batch_tokens: int = 0,
    world: World | None = None,
    progress: Callable[[float], None] = lambda _: None,
) -> ChoiceResult:
    """Answer multiple-choice questions by likelihood. Of equally likely endings, the first counts.

    Args:
        model: Any.
        examples: The questions.
        batch_tokens: As for `log_likelihoods`.
        world: The ranks that share the work, each with the same model; all get the result of the whole.
        progress: As for `log_likelihoods`.
    """
    world = world or World()
    mine = examples[world.rank :: world.size]
    answers = log_likelihoods(model, [e.question for e in mine], batch_tokens=batch_tokens, progress=progress)
    right = right_norm = 0.0
    for example, scores in zip(mine, answers, strict=True):
        places = range(len(scores))
        right += max(places, key=lambda k: scores[k].logprob) == example.label
        right_norm += max(places, key=lambda k: scores[k].mean) == example.label
        if any(math.isnan(score.logprob) for score in scores):  # of those the first would be the likeliest
            right = right_norm = math.nan
    return ChoiceResult(len(examples), *world.sum(torch.tensor([right, right_norm], dtype=torch.float64)).tolist())


@dataclass(frozen=True, slots=True)
class CompletionResult:
    """How well last words were predicted."""

    n: int
    right: int
    nats: float
    """Sum over all examples of -ln p(last word)."""

    @property
    def acc(self) -> float:
        """Share of examples in which every token of the last word was the most likely one."""
        return self.right / self.n

    @property
    def perplexity(self) -> float:
        """Exp of the mean of -ln p(last word): per word, whatever the number of its tokens."""
        return perplexity(self.nats / self.n)

    def as_json(self) -> dict[str, Any]:
        """Values for eval.json."""
        return {"acc": self.acc, "perplexity": self.perplexity, "examples": self.n}


def measure_completions(
    model: LanguageModel,
    examples: Sequence[CompletionExample],
    *,
    batch_tokens: int = 0,
    progress: Callable[[float], None] = lambda _: None,
) -> CompletionResult:
    """Predict last words: greedily, and by likelihood. Arguments are `measure_choices`'s."""
    questions = [example.question for example in examples]
    scores = [s for (s,) in log_likelihoods(model, questions, batch_tokens=batch_tokens, progress=progress)]
    return CompletionResult(len(scores), sum(s.greedy for s in scores), -math.fsum(s.logprob for s in scores))
