"""groundup generate --explain: each drawn token with what the model thought of it, and what it thought of others."""

import math
from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.text import Text

from groundup.config.printable import printable
from groundup.generation.text import TextDelta
from groundup.tokenizer.base import Tokenizer

N_TOP = 5
"""Candidates that are shown."""
LIKELY, UNLIKELY = 0.5, 0.05
"""Tokens with a probability from LIKELY on are green, below UNLIKELY red, yellow between."""


def explain(pieces: Iterable[TextDelta], tokenizer: Tokenizer, console: Console) -> Iterator[TextDelta]:
    """Print a line per token, and pass the pieces on."""
    console.print(Text(f"{'probability':>11}  {'entropy':>9}  {'token':<14}  likeliest", style="bold"), soft_wrap=True)
    for piece in pieces:
        score, token = piece.event.score, piece.event.token
        if score is not None and token is not None:
            p = math.exp(score.logprob)
            style = "green" if p >= LIKELY else "red" if p < UNLIKELY else "yellow"
            line = Text(f"{p:>11.1%}  {score.entropy / math.log(2):>4.1f} bits  ")
            line.append(f"{_name(tokenizer, token):<14}", style=style)
            others = (f"{_name(tokenizer, other)} {math.exp(value):.0%}" for other, value in score.top)
            line.append("  " + "  ".join(others), style="dim")
            console.print(line, soft_wrap=True)
        yield piece


def _name(tokenizer: Tokenizer, token: int) -> str:
    if token == tokenizer.eot_id:
        return "(end)"
    return printable(repr(tokenizer.decode_bytes([token]).decode(errors="replace")))
