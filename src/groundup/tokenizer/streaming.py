"""Text from bytes that arrive in pieces."""

import codecs


class Utf8Stream:
    """Decode UTF-8 piece by piece; the bytes of an unfinished character wait for the rest of it.

    All pieces together give what decoding the whole at once gives: invalid bytes become U+FFFD.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, data: bytes) -> str:
        """The characters that `data` completes."""
        return self._decoder.decode(data)

    def finish(self) -> str:
        """What is left: U+FFFD for a character that never ended, or nothing."""
        return self._decoder.decode(b"", final=True)
