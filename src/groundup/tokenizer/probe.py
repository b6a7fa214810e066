"""A text by which exports and imports are checked: the other program must give it the ids that ours gives it."""

import importlib.util
from collections.abc import Sequence
from itertools import accumulate

from groundup.config.errors import UserError, first_line
from groundup.tokenizer.added import ALWAYS
from groundup.tokenizer.base import Tokenizer
from groundup.tokenizer.bpe import ByteBPE, compile_words, split_words
from groundup.tokenizer.char import CharTokenizer

TEXT = (
    "The quick brown fox's 'LL don't we'll I'd  2 spaces\n\n\n\ttabs\r\n trailing   \u00a0\u3000x in 1999, 20002000 "
    "1234½²٣ naïve e\u0301 ß ﬁ 東京の天気 서울 مرحبا नमस्ते שלום ไทย 👩‍👩‍👧 🇪🇺 \u200b\u2028\x85 {}()[];:=>!! "
    "aaaaaaaaaaaaaaaa =========== x's X'S _a1b2 \ufeff  \n# face12 m² x½y a‿b\n#\u200da straße "
    "\u0130i WORD]] \ufb06 9\n"
)
"""A little of everything that patterns treat in their own way."""


def probe(tokenizer: Tokenizer) -> str:
    """A text the tokenizer can express: of characters all of them, twice, in both directions; of bytes those it has.

    Added tokens that every text may hold stand in it, too.
    """
    if isinstance(tokenizer, CharTokenizer):
        return "".join(tokenizer.symbols + tokenizer.symbols[::-1])
    words = [token for token, flags in getattr(tokenizer, "matching", {}).items() if ALWAYS in flags]
    has = [i >= 0 for i in (getattr(tokenizer, "ids", None) or range(256))[:256]]

    def known(text: str) -> str:
        return "".join(letter for letter in text if all(has[byte] for byte in letter.encode()))

    return known(TEXT) + "".join(word.join(map(known, ("", " x", "", "  ", "\n"))) for word in words)


def check_same(tokenizer: Tokenizer, ids: Sequence[int], program: str, *, special: bool = False) -> None:
    """Compare the ids that another program gives to the probe.

    Args:
        tokenizer: Ours.
        ids: Theirs.
        program: What gives them.
        special: It finds special tokens in every text, and one may be a part of an added word.

    Raises:
        UserError: They differ; the message shows where.
    """
    text = probe(tokenizer)
    if special and isinstance(tokenizer, ByteBPE):
        ours = tokenizer.encode(text, allow_special=True)
    else:
        ours = tokenizer.encode(text)
    if list(ids) == ours:
        return
    at = next((i for i, (a, b) in enumerate(zip(ours, ids, strict=False)) if a != b), min(len(ours), len(ids)))
    raise UserError(
        f"{program} would give other ids than this tokenizer: after {tokenizer.decode(ours[:at])[-20:]!r} they differ"
    )


def check_tokenizers(tokenizer: Tokenizer, json: str, *, sure: bool) -> None:
    """Compare with the library that transformers uses, for a tokenizer.json.

    Args:
        tokenizer: Ours.
        json: The text of the file.
        sure: Its form is known to give the same ids, so that it may be written or read where the library is not
            installed.

    Raises:
        UserError: The words or the ids differ, or nothing could compare them.
    """
    if importlib.util.find_spec("tokenizers") is None:
        if sure:
            return
        raise UserError("to check that this tokenizer keeps its ids needs a package: pip install 'groundup[export]'")
    from tokenizers import Tokenizer as Theirs

    # Words as well: merges may join nothing where the probe is cut otherwise, and something in another text.
    pattern = tokenizer.pattern if isinstance(tokenizer, ByteBPE) else None
    ours = [] if pattern is None else [*accumulate(map(len, split_words(TEXT, compile_words(pattern))))]
    try:
        theirs = Theirs.from_str(json)
        theirs.no_truncation()
        theirs.no_padding()
        ids = theirs.encode(probe(tokenizer), add_special_tokens=False).ids
        ends = [] if pattern is None else [end for _, (_, end) in theirs.pre_tokenizer.pre_tokenize_str(TEXT)]
    except Exception as error:  # the library has one class for all its errors
        raise UserError(f"transformers cannot take this tokenizer: {first_line(error)}") from error
    if odd := set(ours) ^ set(ends):
        raise UserError(
            "transformers would give other ids than this tokenizer: only one of the two ends a word after"
            f" {TEXT[: min(odd)][-20:]!r}"
        )
    check_same(tokenizer, ids, "transformers", special=True)
