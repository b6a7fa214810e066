"""How much of a file from outside is taken before it is refused: small files must not take all memory or time.

Each limit is far above what honest files hold. For a larger one that you trust, raise the limit by an
environment variable, whose name stands in the message.
"""

import os
from dataclasses import dataclass

from groundup.config.errors import UsageError, UserError


@dataclass(frozen=True, slots=True)
class Limit:
    """A number that no input may pass."""

    variable: str
    """The environment variable that raises it."""
    default: int
    unit: str

    @property
    def value(self) -> int:
        """The limit as it is now.

        Raises:
            UsageError: The variable does not hold a whole number above 0.
        """
        text = os.environ.get(self.variable, str(self.default))
        if not (text.isascii() and text.isdigit() and len(text) < 19 and int(text)):
            raise UsageError(f"{self.variable} must be a whole number above 0, got {text!r}")
        return int(text)

    def check(self, amount: float, what: str) -> None:
        """Refuse what passes the limit.

        Args:
            amount: How much it is.
            what: The sentence's beginning: "line 3 of a.jsonl".

        Raises:
            UserError: It is more.
        """
        if amount > self.value:
            raise self.passed(what)

    def passed(self, what: str) -> UserError:
        """The error for what has passed the limit, where it is not known by how much."""
        return UserError(
            f"{what} takes more than {self.value:,} {self.unit}; where you trust it, set {self.variable} higher"
        )


JSON_BYTES = Limit("GROUNDUP_MAX_JSON_BYTES", 64 * 2**20, "bytes")
"""A JSON file that is read at once: configs, manifests, tokenizers, indexes."""
TEXT_BYTES = Limit("GROUNDUP_MAX_TEXT_BYTES", 2**30, "bytes")
"""A file of text, of lines or of an alphabet that is read at once: prompts, the record of a run."""
LINE_BYTES = Limit("GROUNDUP_MAX_LINE_BYTES", 32 * 2**20, "bytes")
"""A line of a file of records, an item of a JSON array, a line or field of a table; unpacked."""
APART_BYTES = Limit("GROUNDUP_MAX_APART_BYTES", 4 * 2**30, "bytes of memory")
"""What a process may take that reads a parquet file."""
TOKEN_BYTES = Limit("GROUNDUP_MAX_TOKEN_BYTES", 64 * 2**10, "bytes")
"""A token of a vocabulary."""
VOCABULARY_BYTES = Limit("GROUNDUP_MAX_VOCABULARY_BYTES", 64 * 2**20, "bytes")
"""All tokens of a vocabulary together."""
PATTERN_SECONDS = Limit("GROUNDUP_MAX_PATTERN_SECONDS", 60, "seconds")
"""The pattern of a tokenizer at work on one text."""
