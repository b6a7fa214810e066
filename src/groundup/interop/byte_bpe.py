"""Byte-level BPE as GPT-2 published it: tokens written in letters that stand for bytes, and the list of merges."""

from dataclasses import dataclass
from itertools import pairwise

from groundup.config.errors import UserError
from groundup.tokenizer.base import END_OF_TEXT, Tokenizer
from groundup.tokenizer.bpe import GPT2_PATTERN, ByteBPE
from groundup.tokenizer.gpt2 import GPT2Tokenizer
from groundup.tokenizer.gpt2_vocab import BYTE_ORDER

_N_PRINTABLE = sum(chr(byte).isprintable() and byte != 0x20 for byte in range(256))
LETTERS = {byte: chr(byte if i < _N_PRINTABLE else 0x100 + i - _N_PRINTABLE) for i, byte in enumerate(BYTE_ORDER)}
"""GPT-2's letter for each byte: itself where it prints, else the next letter from U+0100 on."""


def spelled(token: bytes) -> str:
    """A token in GPT-2's letters."""
    return "".join(LETTERS[byte] for byte in token)


@dataclass(frozen=True, slots=True)
class Published:
    """A byte-level BPE as others store it."""

    vocab: dict[str, int]
    """Ids of the tokens, spelled; without the special ones."""
    merges: list[tuple[str, str]]
    """Pairs of tokens, spelled, in the order they were learned."""
    specials: dict[str, int]
    """Ids of the special tokens, in plain text."""
    pattern: str
    """Regular expression of a word."""


def published(tokenizer: Tokenizer) -> Published:
    """The published form of a byte-level BPE of ours.

    Raises:
        UserError: It is none, or two of its ids stand for the same bytes, which this form cannot say.
    """
    if isinstance(tokenizer, ByteBPE):
        first = tokenizer.vocab_size - len(tokenizer.specials)
        specials = {token: first + i for i, token in enumerate(tokenizer.specials)}
        pattern = tokenizer.pattern
    elif isinstance(tokenizer, GPT2Tokenizer):
        specials, pattern = {END_OF_TEXT: tokenizer.eot_id}, GPT2_PATTERN
    else:
        raise UserError(f"a tokenizer of kind {tokenizer.to_dict()['kind']} has no published form")
    ids = [i for i in range(tokenizer.vocab_size) if i not in specials.values()]
    tokens = [tokenizer.decode_bytes([i]) for i in ids]
    vocab = {spelled(token): i for i, token in zip(ids, tokens, strict=True)}
    if len(vocab) < len(tokens):
        raise UserError("two ids of the tokenizer stand for the same bytes; other programs know a token by its bytes")
    if isinstance(tokenizer, ByteBPE):
        merges = [(spelled(tokens[a]), spelled(tokens[b])) for a, b in tokenizer.merges]
    else:
        merges = [(spelled(a), spelled(b)) for a, b in merges_of(tokens)]
    return Published(vocab, merges, specials, pattern)


def from_published(found: Published) -> ByteBPE | None:
    """The inverse of `published`: a byte-level BPE of ours with exactly these ids; None where ours cannot have them.

    Raises:
        UserError: The merges or the pattern are damaged.
    """
    ids = {spelled(bytes([byte])): byte for byte in range(256)}
    merges = []
    for i, (a, b) in enumerate(found.merges):
        if a not in ids or b not in ids:
            return None
        merges.append((ids[a], ids[b]))
        ids[a + b] = 256 + i
    specials = sorted(found.specials, key=found.specials.__getitem__)
    in_order = [found.specials[token] for token in specials] == [len(ids) + i for i in range(len(specials))]
    if ids != found.vocab or not in_order:
        return None
    return ByteBPE(merges, specials=specials, pattern=found.pattern)


def merges_of(tokens: list[bytes]) -> list[tuple[bytes, bytes]]:
    """The two parts each token of more than one byte was merged from, where ids count the merges in their order.

    They are what is left when the merges before it have been applied to its bytes (Sennrich et al. 2016).
    """
    rank = {token: i for i, token in enumerate(tokens)}
    return [_parts(token, rank) for token in tokens if len(token) > 1]


def _parts(token: bytes, rank: dict[bytes, int]) -> tuple[bytes, bytes]:
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        pairs = [rank.get(a + b, len(rank)) for a, b in pairwise(parts)]
        at = min(range(len(pairs)), key=pairs.__getitem__)
        if pairs[at] >= rank[token]:
            raise ValueError(f"{token!r} cannot be made of tokens with smaller ids")
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts[0], parts[1]
