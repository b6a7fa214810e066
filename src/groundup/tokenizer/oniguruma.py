r"""Patterns of words in the dialect of Oniguruma, the engine of `tokenizers`, and in that of the `regex` package.

One difference stands in patterns that are published: Oniguruma reads `x{1,3}+` as `(x{1,3})+`, `regex` as a possessive
count. All others (`\w`, `\h`, `^`), and that one behind a group, as `(?:xy){1,3}+`, are left to
`probe.check_tokenizers`, which compares ids and finds them.
"""

import regex


def to_oniguruma(pattern: str) -> str:
    """A pattern of `regex` for Oniguruma."""
    return _COUNTED.sub(lambda found: f"(?>{found[1]}{found[2]})" if found[2] else found[0], pattern)


def from_oniguruma(pattern: str) -> str:
    """A pattern of Oniguruma for `regex`."""
    return _COUNTED.sub(lambda found: f"(?:{found[1]}{found[2]})+" if found[2] else found[0], pattern)


_COUNTED = regex.compile(
    r"(\\[pP]\{[^}]*\}|\\.|\[\^?\]?(?:\\.|\[:\^?\w+:\]|[^\]\\])*\]|[^\\\[()|])(?:(\{[0-9]*,?[0-9]*\})\+)?"
)
"""One thing that is repeated (a class may begin with `]`, and hold `[:alpha:]`), and a plus after its count."""
