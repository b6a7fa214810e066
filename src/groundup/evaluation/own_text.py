"""Perplexity of any text, with a sliding window: what a model makes of a person's own files."""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from groundup.config.errors import UsageError, UserError
from groundup.corpora.source import Source, read_all
from groundup.evaluation.loss import LossResult
from groundup.evaluation.scoring import Question, log_likelihoods
from groundup.generation.text import prompt_ids
from groundup.model.types import LanguageModel
from groundup.tokenizer.base import Tokenizer
from groundup.tokenizer.char import only_known, what_is_left_out


@dataclass(frozen=True, slots=True)
class TextResult:
    """How well texts were predicted, token by token."""

    n_documents: int
    n_tokens: int
    n_bytes: int
    """UTF-8 bytes of the texts."""
    nats: float
    """Sum over all tokens of -ln p."""
    stride: int
    left_out: int
    """Characters that the alphabet of the model lacks."""

    def as_json(self) -> dict[str, Any]:
        """Values for eval.json; perplexity is per token."""
        result = LossResult(self.nats, self.n_tokens, self.n_bytes).as_json()
        result |= {"documents": self.n_documents, "stride": self.stride}
        return result | ({"left_out": self.left_out} if self.left_out else {})


def sliding(tokens: Sequence[int], window: int, stride: int) -> Iterator[Question]:
    """Every token but the first, once: windows begin `stride` apart, and each counts what the one before did not reach.

    These are the windows of the perplexity page in the documentation of transformers.

    Args:
        tokens: The text, with what it is predicted after in front.
        window: Tokens in a window, predicted ones included.
        stride: Tokens from one window to the next, less than `window`.
    """
    reached = 1
    for begin in range(0, len(tokens), stride):
        end = min(begin + window, len(tokens))
        if end > reached:
            yield Question(list(tokens[begin:reached]), [list(tokens[reached:end])])
        reached = end
        if end == len(tokens):
            return


def usual_stride(block_size: int) -> int:
    """Half the context, by which texts are measured unless another stride is asked for."""
    return _window(block_size) // 2


def _window(block_size: int) -> int:
    return max(2, block_size)  # a token that is seen, and one that is predicted


def measure_text(
    model: LanguageModel,
    tokenizer: Tokenizer,
    source: Source,
    *,
    stride: int = 0,
    limit: int = 0,
    batch_tokens: int = 0,
    progress: Callable[[float], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> TextResult:
    """Predict texts, each from the start of a document on.

    Args:
        model: Any.
        tokenizer: The model's.
        source: The texts.
        stride: See `sliding`; 0 is half the context. A smaller one gives each token more context, and takes longer.
        limit: The most documents; 0 reads all.
        batch_tokens: As for `log_likelihoods`.
        progress: As for `log_likelihoods`.
        say: Called with a line on what is left out because the alphabet of the model lacks it.

    Raises:
        UserError: There is no text, it cannot be read, or too much of it would be left out.
        UsageError: The stride leaves no context.
    """
    window = _window(model.config.block_size)
    stride = stride or usual_stride(model.config.block_size)
    if not 0 < stride < window:
        raise UsageError(f"stride must be from 1 to {window - 1}, the model's context less one, got {stride}")
    first = prompt_ids(tokenizer, "")[0]
    left_out: Counter[str] = Counter()
    documents = itertools.islice(read_all(source, source.parts(), {}), limit or None)
    texts = [only_known(tokenizer, document.text, left_out) for _, document in documents]
    if left_out:
        say(what_is_left_out(left_out, sum(map(len, texts))))
    questions = [q for text in texts for q in sliding([first, *tokenizer.encode(text)], window, stride)]
    if not questions:
        raise UserError(f"there is no text to measure in {source.name}")
    scores = [s for (s,) in log_likelihoods(model, questions, batch_tokens=batch_tokens, progress=progress)]
    return TextResult(
        n_documents=len(texts),
        n_tokens=sum(s.n_tokens for s in scores),
        n_bytes=sum(len(text.encode()) for text in texts),
        nats=-math.fsum(s.logprob for s in scores),
        stride=stride,
        left_out=left_out.total(),
    )
