"""Which text validation losses were measured on: those of different texts say nothing of each other.

A run may go on with other data, or measure more or less of the split. Then its losses begin anew. After some of its
first steps it looks at a part of the split (`loop.callbacks`).
"""

from typing import Any

TEXT = "val/text"
"""In a line of metrics: how often the text had changed before. Lines of the first text have none."""
PART = "val/tokens"
"""In a line of metrics: how many tokens of the split were looked at, where that is not all that a run measures."""


def val_text(fingerprint: str, n_tokens: int, most: int) -> str:
    """The text that a loss over a validation split is measured on; equal texts have losses that can be compared.

    Args:
        fingerprint: Of the data.
        n_tokens: Tokens of the split.
        most: How many of them are measured; 0 is all.
    """
    return f"{min(most or n_tokens, n_tokens)} tokens of {fingerprint}"


def known_text(facts: dict[str, Any], n_tokens: int) -> str:
    """The text that the numbers in a run.json are of; empty where it does not say.

    Args:
        facts: run.json. That of an older groundup says it by its data and its config.
        n_tokens: Tokens of the split, if the data is the same.
    """
    if isinstance(text := facts.get("val_text"), str):
        return text
    try:
        return val_text(facts["data_fingerprint"], n_tokens, int(facts["config"]["eval"]["max_tokens"]))
    except (KeyError, TypeError, ValueError):
        return ""


def of_last_text(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines of metrics without the validation losses of other texts than the last one."""
    last = next((_number(row) for row in reversed(rows) if "val/loss" in row), 0)
    return [row if _number(row) == last else _without_validation(row) for row in rows]


def of_whole_split(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same without the losses of a part of the split, which may be easier or harder than the whole.

    Before the first step a part counts: random weights know no part better than another.
    """
    return [_without_validation(row) if row.get(PART) and row.get("step") else row for row in of_last_text(rows)]


def _number(row: dict[str, Any]) -> int:
    return row.get(TEXT) or 0


def _without_validation(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if not key.startswith("val/")}
