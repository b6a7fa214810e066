"""Tokens to look at: colors where a text is cut, a table of ids, a comparison of tokenizers."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from groundup.config.printable import printable
from groundup.tokenizer.base import Tokenizer

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

SHOWN_TOKENS = 200
"""Tokens that `show` lists one by one."""
STYLES = ("black on bright_cyan", "black on bright_yellow", "black on bright_green", "black on bright_magenta")


def rendered(text: str, tokenizers: Mapping[str, Tokenizer], console: "Console") -> str:
    """Where tokenizers cut a text, and how many tokens each needs; one alone also lists its ids.

    Args:
        text: What is cut.
        tokenizers: By what each is called.
        console: Whose width and colors count; nothing is printed.
    """
    from rich.table import Table

    blocks: list[RenderableType] = []
    rows = []
    for name, tokenizer in tokenizers.items():
        ids = tokenizer.encode(text)
        tokens = [tokenizer.decode_bytes([i]) for i in ids]
        if len(tokenizers) > 1:
            blocks.append(f"\n{printable(name)}")
        blocks.append(_colored(tokens, colors=console.color_system is not None))
        if len(tokenizers) == 1:
            blocks += ["", *_listed(ids, tokens)]
        rows.append((name, tokenizer, len(ids)))
    blocks += ["", _compared(rows, len(text.encode()))]
    with console.capture() as output:
        for block in blocks:
            # Rich swallows spaces where it breaks lines; a terminal breaks them as well.
            console.print(block, soft_wrap=not isinstance(block, Table))
    return output.get()


def _visible(token: bytes) -> str:
    """A token to look at: what is no whole character or cannot be seen is written as an escape."""
    text = token.decode(errors="backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _colored(tokens: Sequence[bytes], *, colors: bool) -> "Text":
    """The text in tokens of alternating colors; without colors, bars stand between them."""
    from rich.text import Text

    text = Text()
    for i, token in enumerate(tokens):
        if not colors and i > 0:
            text.append("|")
        text.append(_visible(token), style=STYLES[i % len(STYLES)] if colors else "")
        text.append("\n" * token.count(b"\n"))
    return text


def _listed(ids: Sequence[int], tokens: Sequence[bytes]) -> Iterator["RenderableType"]:
    """A row for each token."""
    from rich.text import Text

    table = _table("id", "bytes")
    table.add_column("token", justify="left", overflow="fold")
    for i, token in zip(ids[:SHOWN_TOKENS], tokens, strict=False):
        table.add_row(str(i), str(len(token)), Text(repr(_visible(token)).replace("\\\\", "\\")))
    yield table
    if len(ids) > SHOWN_TOKENS:
        yield f"and {len(ids) - SHOWN_TOKENS:,} more"


def _compared(rows: Sequence[tuple[str, Tokenizer, int]], n_bytes: int) -> "Table":
    """A row for each tokenizer."""
    from rich.text import Text

    table = _table("ids", "tokens", "bytes per token", first="tokenizer")
    for name, tokenizer, n_tokens in rows:
        ratio = f"{n_bytes / n_tokens:.2f}" if n_tokens else "-"
        table.add_row(Text(printable(name)), f"{tokenizer.vocab_size:,}", f"{n_tokens:,}", ratio)
    return table


def _table(*numbers: str, first: str | None = None) -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    if first is not None:
        table.add_column(first, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right")
    return table
