"""What is typed for characters that a shell or a line makes hard to type."""

from groundup.config.errors import UsageError
from groundup.config.printable import typed


def unescape(text: str) -> str:
    r"""Turn \n, \t and \\ into what they stand for.

    Raises:
        UsageError: The text is not valid UTF-8.
    """
    text = typed(text)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"the text must be valid UTF-8, got {text!r}") from None
    return "\\".join(part.replace("\\n", "\n").replace("\\t", "\t") for part in text.split("\\\\"))
