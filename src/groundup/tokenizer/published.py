"""Byte-level BPE as GPT-2 published it: tokens written in letters that stand for bytes, and the list of merges."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from groundup.config.errors import UserError
from groundup.tokenizer.added import ALWAYS
from groundup.tokenizer.base import END_OF_TEXT, Tokenizer
from groundup.tokenizer.bpe import GPT2_PATTERN, ByteBPE, token_bytes
from groundup.tokenizer.gpt2 import GPT2Tokenizer
from groundup.tokenizer.gpt2_vocab import LETTERS


def spelled(token: bytes) -> str:
    """A token in GPT-2's letters."""
    return "".join(LETTERS[byte] for byte in token)


@dataclass(frozen=True, slots=True)
class BytePairs:
    """A byte-level BPE as others store it."""

    vocab: dict[str, int]
    """Ids of the tokens, spelled; of ours without the special ones, of theirs perhaps with them."""
    merges: list[tuple[str, str]]
    """Pairs of tokens, spelled, in the order they were learned."""
    specials: dict[str, int]
    """Ids of the special tokens, in plain text."""
    pattern: str
    """Regular expression of a word."""
    end: str | None = END_OF_TEXT
    """The special token between documents, if there is one."""
    matching: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """How added tokens are found in text (`added.FLAGS`), where that is not as special ones are."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The roles of special tokens, and what else a tokenizer_config.json keeps beside the ids."""

    @property
    def added(self) -> dict[str, int]:
        """Ids of the special tokens, and of those that are found in text before words are merged."""
        others = {token: self.vocab[spelled(token.encode())] for token in self.matching if token not in self.specials}
        return self.specials | others


def published(tokenizer: Tokenizer) -> BytePairs:
    """The published form of a byte-level BPE of ours.

    Raises:
        UserError: It is none, or two of its ids are spelled alike, which this form cannot say.
    """
    if isinstance(tokenizer, ByteBPE):
        tokens, pairs = token_bytes(tokenizer.merges), tokenizer.merges
        numbers = tokenizer.ids or range(tokenizer.vocab_size)
        specials, pattern, end = tokenizer.special_ids, tokenizer.pattern, tokenizer.end
        merges, matching = [(spelled(tokens[a]), spelled(tokens[b])) for a, b in pairs], tokenizer.matching
    elif isinstance(tokenizer, GPT2Tokenizer):
        numbers = range(tokenizer.eot_id)
        tokens = [tokenizer.decode_bytes([i]) for i in numbers]
        specials, pattern, end = {END_OF_TEXT: tokenizer.eot_id}, GPT2_PATTERN, END_OF_TEXT
        merges, matching = [(spelled(a), spelled(b)) for a, b in tokenizer.merges], {}
    else:
        raise UserError(f"a tokenizer of kind {tokenizer.to_dict()['kind']} has no published form")
    vocab: dict[str, int] = {}
    for token, i in zip(map(spelled, tokens), numbers, strict=False):  # the special ones come after
        if i >= 0 and vocab.setdefault(token, i) != i:
            raise UserError(
                "two ids of the tokenizer stand for the same bytes; other programs know a token by its bytes"
            )
    if twice := [token for token, i in specials.items() if vocab.get(token, i) != i]:
        raise UserError(
            f"the special token {twice[0]!r} is spelled as a token of the vocabulary, and other programs know a token"
            " by its spelling; a special token that is in no text has an id of its own"
        )
    known = end if end in specials else None
    return BytePairs(vocab, merges, specials, pattern, known, matching, tokenizer.settings)


def from_published(found: BytePairs) -> ByteBPE:
    """The inverse of `published`: a byte-level BPE of ours with exactly these ids, in whatever order they are.

    Raises:
        UserError: Merges, ids or pattern do not fit together.
    """
    numbers = {spelled(bytes([byte])): byte for byte in range(256)}
    ids = [found.vocab.get(letter, -1) for letter in numbers]
    merges = []
    for i, (a, b) in enumerate(found.merges):
        if a not in numbers or b not in numbers or a + b not in found.vocab:
            raise UserError(f"its merge {i}, {a!r} with {b!r}, joins or makes a token that it does not have")
        merges.append((numbers[a], numbers[b]))
        numbers.setdefault(a + b, 256 + i)
        ids.append(found.vocab[a + b])
    # A token whose id text can become is no special one, even where it is used as one: `!` to pad, for example. It is
    # found in every text, before words are merged.
    specials = {
        token: i
        for token, i in found.specials.items()
        if spelled(token.encode()) not in numbers or found.vocab.get(spelled(token.encode())) != i
    }
    made = {token: (ALWAYS,) for token in found.specials if token not in specials}
    matching = {token: tuple(dict.fromkeys((*made.get(token, ()), *flags))) for token, flags in found.matching.items()}
    if unmade := [token for token in found.vocab if token not in numbers and token not in specials]:
        raise UserError(f"no merge makes its token {unmade[0]!r}, and it is not a special one")
    return ByteBPE(
        merges,
        specials=list(specials),
        pattern=found.pattern,
        ids=[*ids, *specials.values()],
        end=found.end or END_OF_TEXT,
        matching={**made, **matching},
        settings=found.settings,
    )
