"""Whole texts, page by page: the perplexity per word that papers print for WikiText (Merity et al. 2016).

WikiText was cut into words before it was published: " @-@ " stands for a hyphen within a word, commas stand alone.
GPT-2 never saw such text, so its paper undoes this first ("invertible de-tokenizers", section 3.1) and then divides by
the number of words of the text as it was published. Rules, windows and counts here are those of lm-evaluation-harness's
task `wikitext`, whose figure for GPT-2 124M, 37.37, stands beside the paper's 37.50.
"""

import math
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.config.errors import UserError
from groundup.evaluation.loss import perplexity
from groundup.evaluation.scoring import Question, log_likelihoods
from groundup.generation.text import prompt_ids
from groundup.model.types import LanguageModel
from groundup.tokenizer.base import Tokenizer

MEMBER = "wikitext-2-raw/wiki.test.raw"
"""The test split in the published archive. WikiText-103 has the same one."""

_RULES: list[tuple[str | re.Pattern[str], str]] = [
    ("s '", "s'"),
    *((f" @{mark}@ ", mark) for mark in "-,."),
    *((f" {mark} ", f"{mark} ") for mark in ":;.!?,"),
    *((re.compile(rf"\{a}\s*([^\{z}]*?)\s*\{z}"), rf"{a}\1{z}") for a, z in ("()", "[]", "{}")),
    *((re.compile(rf"{mark}\s*([^{mark}]*?)\s*{mark}"), rf"{mark}\1{mark}") for mark in ('"', "'")),
    ("= = = =", "===="),
    ("= = =", "==="),
    ("= =", "=="),
    (" ° ", "°"),
    (" \n", "\n"),
    ("\n ", "\n"),
    (" N ", " 1 "),
    (" 's", "'s"),
]
"""What is undone, in this order: strings as they are, patterns where a pair has something between."""


@dataclass(frozen=True, slots=True)
class Page:
    """An article as it was published, cut into words."""

    raw: str

    @property
    def text(self) -> str:
        """As people write it."""
        text = self.raw
        for found, replacement in _RULES:
            text = text.replace(found, replacement) if isinstance(found, str) else found.sub(replacement, text)
        return text

    @property
    def n_words(self) -> int:
        """Words as published; the harness counts the empty ones at both ends, too."""
        return len(re.split(r"\s+", self.raw))

    @property
    def n_bytes(self) -> int:
        """UTF-8 bytes as published."""
        return len(self.raw.encode())


def read_pages(path: Path, *, limit: int = 0) -> list[Page]:
    """The articles of WikiText's test split: a line " = Title = " begins one.

    Args:
        path: The published archive.
        limit: The most pages; 0 reads all.

    Raises:
        UserError: It is no such archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            lines = archive.read(MEMBER).decode().split("\n")
    except (OSError, KeyError, UnicodeDecodeError, zipfile.BadZipFile) as error:
        raise UserError(f"cannot read {MEMBER} in {path}: {error}") from error
    pages: list[list[str]] = [[]]
    for line in lines:
        title = line.strip()
        if title.startswith("= ") and title.endswith(" =") and not title.startswith("= ="):  # that is a section
            pages.append([])
        pages[-1].append(line)
    found = [Page("\n".join(page)) for page in pages]
    return [page for page in found if page.raw.strip()][: limit or None]


def rolling(ids: Sequence[int], first: int, block_size: int) -> Iterator[Question]:
    """Score each token once, in windows without overlap; its context is the window so far.

    Only the last window reaches back into the one before it, since it would be short otherwise.

    Args:
        ids: The text.
        first: The token before the first one.
        block_size: The model's context.
    """
    tokens = [first, *ids]
    for start in range(0, len(ids), block_size):
        stop = min(start + block_size, len(ids))
        yield Question(tokens[max(0, stop - block_size) : start + 1], [tokens[start + 1 : stop + 1]])


@dataclass(frozen=True, slots=True)
class PagesResult:
    """How well whole texts were predicted."""

    n_pages: int
    n_tokens: int
    n_words: int
    n_bytes: int
    nats: float
    """Sum over all tokens of -ln p."""

    def as_json(self) -> dict[str, Any]:
        """Values for eval.json."""
        return {
            "word_perplexity": perplexity(self.nats / self.n_words),
            "bits_per_byte": self.nats / math.log(2) / self.n_bytes,
            "tokens": self.n_tokens,
            "pages": self.n_pages,
        }


def measure_pages(
    model: LanguageModel,
    tokenizer: Tokenizer,
    pages: Sequence[Page],
    *,
    batch_tokens: int = 0,
    progress: Callable[[float], None] = lambda _: None,
) -> PagesResult:
    """Predict pages, each on its own.

    Args:
        model: Any.
        tokenizer: Its tokenizer.
        pages: At least one.
        batch_tokens: As for `log_likelihoods`.
        progress: As for `log_likelihoods`.

    Raises:
        UserError: The tokenizer cannot express a page.
    """
    first = prompt_ids(tokenizer, "")[0]
    block_size = model.config.block_size
    questions = [q for page in pages for q in rolling(tokenizer.encode(page.text), first, block_size)]
    scores = [s for (s,) in log_likelihoods(model, questions, batch_tokens=batch_tokens, progress=progress)]
    return PagesResult(
        n_pages=len(pages),
        n_tokens=sum(s.n_tokens for s in scores),
        n_words=sum(page.n_words for page in pages),
        n_bytes=sum(page.n_bytes for page in pages),
        nats=-math.fsum(s.logprob for s in scores),
    )
