"""Byte-level BPE as GPT-2 published it: tokens written in letters that stand for bytes, and the list of merges."""

from dataclasses import dataclass

from groundup.config.errors import UserError
from groundup.tokenizer.base import END_OF_TEXT, Tokenizer
from groundup.tokenizer.bpe import GPT2_PATTERN, ByteBPE
from groundup.tokenizer.gpt2 import GPT2Tokenizer
from groundup.tokenizer.gpt2_vocab import LETTERS


def spelled(token: bytes) -> str:
    """A token in GPT-2's letters."""
    return "".join(LETTERS[byte] for byte in token)


@dataclass(frozen=True, slots=True)
class BytePairs:
    """A byte-level BPE as others store it."""

    vocab: dict[str, int]
    """Ids of the tokens, spelled; without the special ones."""
    merges: list[tuple[str, str]]
    """Pairs of tokens, spelled, in the order they were learned."""
    specials: dict[str, int]
    """Ids of the special tokens, in plain text."""
    pattern: str
    """Regular expression of a word."""


def published(tokenizer: Tokenizer) -> BytePairs:
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
        merges = [(spelled(a), spelled(b)) for a, b in tokenizer.merges]
    return BytePairs(vocab, merges, specials, pattern)


def from_published(found: BytePairs) -> ByteBPE | None:
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
