"""Multiple-choice scoring, against a scorer that takes one example at a time and computes everything about it."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from groundup.bench.options import EvalOptions as Options
from groundup.config.errors import UserError
from groundup.contestants.contest import Factory, median_ratio, race
from groundup.evaluation.examples import read_choices
from groundup.evaluation.scoring import BATCH_TOKENS, Question, log_likelihoods
from groundup.model.build import Transformer, build_model
from groundup.model.init import init_weights
from groundup.model.swap import use_matmul
from groundup.runtime.allocator import keep_freed_memory
from groundup.runtime.device import device_name, pick_device
from groundup.runtime.matmul import pick_matmul
from groundup.runtime.measure import peak_memory
from groundup.runtime.timing import synchronize
from groundup.tokenizer.gpt2 import load_gpt2

TOLERANCE = 1e-5
"""Most by which the scores, mean log-probabilities of endings, may differ in float32."""
Scorer = Callable[[Transformer, Sequence[Question]], list[list[float]]]


def bench(options: Options, say: Callable[[str], None]) -> dict[str, Any]:
    """Compare the scores of both scorers, then their speed in turns.

    Args:
        options: What to measure.
        say: Told a line per contestant.

    Returns:
        Examples per second, their ratio, the largest difference of a score, and what it was measured on.

    Raises:
        UserError: The examples cannot be read, or the scores differ.
    """
    device = pick_device(options.device)
    scorers: dict[str, Scorer] = {"groundup": _ours, "one at a time": _one_at_a_time}
    model, questions = _prepare(options)
    ours, theirs = (scorer(model, questions) for scorer in scorers.values())
    difference = max(abs(a - b) for x, y in zip(ours, theirs, strict=True) for a, b in zip(x, y, strict=True))
    if difference > TOLERANCE:
        raise UserError(f"the scores differ by {difference:.1e}, more than {TOLERANCE:.0e}: this is no fair comparison")
    contestants: dict[str, Factory] = {name: partial(_contestant, scorer) for name, scorer in scorers.items()}
    timings = race(contestants, options, rounds=options.rounds, runs=1, warmup=1)
    result: dict[str, Any] = {
        "bench": "eval",
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "examples": len(questions),
        "context_tokens": round(_mean(len(q.context) for q in questions), 1),
        "ending_tokens": round(_mean(len(c) for q in questions for c in q.continuations), 1),
        "largest_difference": difference,
        "contestants": {},
    }
    for name, timing in timings.items():
        row = {
            "examples_per_sec": round(len(questions) / timing.median, 3),
            "times_our_time": round(median_ratio(timings["groundup"], timing), 3),
            "peak_memory_mb": round(timing.peak_memory / 1e6),
        }
        result["contestants"][name] = row
        say(
            f"{name:<16}{row['examples_per_sec']:>10.2f} examples/s{row['peak_memory_mb']:>8,} MB"
            f"  {row['times_our_time']:.2f} times our time"
        )
    result["ratio"] = result["contestants"]["one at a time"]["times_our_time"]
    return result


def _contestant(scorer: Scorer, options: Options) -> tuple[Callable[[], None], Callable[[], int]]:
    model, questions = _prepare(options)
    device = pick_device(options.device)
    if scorer is _ours:
        rows, width = BATCH_TOKENS[device.type], options.model.n_embd
        use_matmul(model, pick_matmul(device, rows=rows, n_embd=width, training=False))

    def work() -> None:
        scorer(model, questions)
        synchronize(device)

    return work, lambda: peak_memory(device)


def _prepare(options: Options) -> tuple[Transformer, list[Question]]:
    if options.threads:
        torch.set_num_threads(options.threads)
    device = pick_device(options.device)
    if device.type == "cpu":
        keep_freed_memory()
    model = init_weights(build_model(options.model), seed=0).to(device).eval()
    if options.path is None:
        return model, _made_up(options.examples, options.model.vocab_size)
    tokenizer = load_gpt2()
    if options.model.vocab_size != tokenizer.vocab_size:
        raise UserError(f"--path needs a model of {tokenizer.vocab_size} ids, got {options.model.vocab_size}")
    return model, [example.question for example in read_choices(options.path, tokenizer, limit=options.examples)]


def _made_up(count: int, vocab_size: int) -> list[Question]:
    """Random tokens: a third are as short as captions of films, two thirds as long as steps of instructions."""
    rng = np.random.default_rng(0)

    def ids(length: float) -> list[int]:
        return rng.integers(vocab_size, size=max(3, round(length))).tolist()

    questions = []
    for number in range(count):
        context, ending, spread = (rng.uniform(10, 40), 14, 4) if number % 3 == 0 else (rng.uniform(45, 90), 38, 8)
        questions.append(Question(ids(context), [ids(rng.normal(ending, spread)) for _ in range(4)]))
    return questions


def _ours(model: Transformer, questions: Sequence[Question]) -> list[list[float]]:
    return [[s.mean for s in scores] for scores in log_likelihoods(model, questions)]


@torch.no_grad()
def _one_at_a_time(model: Transformer, questions: Sequence[Question]) -> list[list[float]]:
    """As build-nanogpt scores: the choices of an example are the rows of a batch, each with the context before it.

    Logits and losses are computed for all tokens; a mask leaves those of the endings.
    """
    device = model.wte.weight.device
    results = []
    for question in questions:
        rows = [[*question.context, *ending] for ending in question.continuations]
        width = max(map(len, rows))
        idx = torch.zeros(len(rows), width, dtype=torch.long)
        mask = torch.zeros(len(rows), width)
        for number, row in enumerate(rows):
            idx[number, : len(row)] = torch.tensor(row)
            mask[number, len(question.context) : len(row)] = 1
        idx, mask = idx.to(device), mask.to(device)
        logits = model(idx)
        before = logits[:, :-1].contiguous()
        losses = F.cross_entropy(before.flatten(0, 1), idx[:, 1:].flatten(), reduction="none").view(len(rows), -1)
        of_endings = mask[:, 1:]
        results.append((-(losses * of_endings).sum(1) / of_endings.sum(1)).tolist())
    return results


def _mean(values: Any) -> float:
    return float(np.mean(list(values)))
