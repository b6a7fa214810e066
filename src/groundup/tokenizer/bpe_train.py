"""Learning a byte pair encoding: which pairs of tokens to merge, in which order.

    count how often each pair of neighbors occurs in the corpus;
    merge the most frequent one into a new token; repeat.

**The tie rule**: of pairs that are equally frequent, the one with the smaller left id is merged first, then the one
with the smaller right id. Overlapping pairs all count (`aaaa` holds three of `aa`); merging goes from left to right.
Training ends early when no pairs are left. Merges are the same on every machine and with either trainer.

Counting anew for every merge (`reference.py`) takes the time of corpus times vocabulary. `learn_merges` looks at each
distinct word once, and then only at the places that a merge changes. `learn_merges_with_library` leaves that to the
`tokenizers` package: the same result, on every core, but it must be given each word as often as the word occurs.
"""

import heapq
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Literal

from groundup.config.errors import UsageError, UserError
from groundup.tokenizer.base import END_OF_TEXT, utf8
from groundup.tokenizer.bpe import GPT2_PATTERN, ByteBPE, Pair, compile_words, split_words
from groundup.tokenizer.published import published

Method = Literal["own", "library"]
"""Our implementation, or the one of the `tokenizers` package."""


def train_bpe(
    texts: Iterable[str],
    vocab_size: int,
    *,
    specials: Sequence[str] = (END_OF_TEXT,),
    pattern: str = GPT2_PATTERN,
    trainer: Method = "own",
) -> ByteBPE:
    """Learn a tokenizer from texts. A vocabulary comes out smaller where the texts hold too few pairs.

    Args:
        texts: The corpus; a word never reaches from one text into the next.
        vocab_size: Ids wanted: 256 bytes, the special tokens, and the rest merges.
        specials: Special tokens.
        pattern: Regular expression of a word, see `ByteBPE`.
        trainer: own, or library for the `tokenizers` package; the result is the same.

    Raises:
        UsageError: The vocabulary has no room for bytes and special tokens.
        UserError: A text holds a lone surrogate, or the library is not installed.
    """
    n_merges = vocab_size - 256 - len(specials)
    if n_merges < 0:
        raise UsageError(
            f"vocab_size must be at least {256 + len(specials)}, for bytes and special tokens; got {vocab_size}"
        )
    words = count_words(texts, pattern)
    learn = learn_merges if trainer == "own" else learn_merges_with_library
    return ByteBPE(learn(words, n_merges), specials=specials, pattern=pattern)


def doubts(tokenizer: ByteBPE) -> list[str]:
    """What to know of a tokenizer before a model learns with it, in lines."""
    lines = []
    if tokenizer.eot_id is None:
        lines.append(
            f"it has no {END_OF_TEXT}, so the documents of a text will run together; --special '{END_OF_TEXT}' adds it"
        )
    try:
        published(tokenizer)
    except UserError as error:
        lines.append(f"models with it cannot be exported for hf, gguf, onnx or ct2: {error}")
    return lines


def count_words(texts: Iterable[str], pattern: str = GPT2_PATTERN) -> dict[bytes, int]:
    """How often each word occurs, as UTF-8.

    Raises:
        UserError: A text holds a lone surrogate.
    """
    splitter = compile_words(pattern)
    counts: Counter[str] = Counter()
    for text in texts:
        utf8(text)
        counts.update(split_words(text, splitter))
    return {word.encode(): count for word, count in counts.items()}


def learn_merges(words: Mapping[bytes, int], n_merges: int) -> list[Pair]:
    """Choose merges, updating counts only where a merge changes something.

    Args:
        words: Distinct words and how often each occurs.
        n_merges: The most merges to choose.
    """
    corpus = _Corpus(words)
    # The heap's order is the tie rule. Its counts may be out of date, but only too high: they are checked on leaving.
    heap = [(-count, pair) for pair, count in corpus.counts.items()]
    heapq.heapify(heap)
    merges: list[Pair] = []
    while heap and len(merges) < n_merges:
        promised, pair = heapq.heappop(heap)
        count = corpus.counts[pair]
        if count == -promised:
            merges.append(pair)
            for new_pair in corpus.merge(pair, 255 + len(merges)):
                heapq.heappush(heap, (-corpus.counts[new_pair], new_pair))
        elif count > 0:
            heapq.heappush(heap, (-count, pair))
    return merges


class _Corpus:
    """Distinct words in one row of tokens, each linked to its neighbors, with the count and the places of every pair.

    Args:
        words: Distinct words and how often each occurs.
    """

    NONE = -1
    """Stands after every word, and where a merge has swallowed a token."""

    def __init__(self, words: Mapping[bytes, int]) -> None:
        self.ids: list[int] = []
        self.weight: list[int] = []  # how often the word at this place occurs
        for word, count in words.items():
            self.ids += [*word, self.NONE]
            self.weight += [count] * (len(word) + 1)
        self.left = list(range(-1, len(self.ids) - 1))
        self.right = list(range(1, len(self.ids) + 1))
        self.counts: defaultdict[Pair, int] = defaultdict(int)
        self.places: defaultdict[Pair, list[int]] = defaultdict(list)  # where a pair was last seen, ascending
        for i, pair in enumerate(pairwise(self.ids)):
            if self.NONE not in pair:
                self.counts[pair] += self.weight[i]
                self.places[pair].append(i)

    def merge(self, pair: Pair, new: int) -> list[Pair]:
        """Make one token of every occurrence of a pair, from left to right.

        Returns:
            The pairs that the new token is part of.
        """
        ids, left, right, counts, places = self.ids, self.left, self.right, self.counts, self.places
        a, b = pair
        made: set[Pair] = set()
        for i in places.pop(pair):
            j = right[i]
            if ids[i] != a or ids[j] != b:
                continue  # a merge took one of the two since
            before, after, times = ids[left[i]], ids[right[j]], self.weight[i]
            if before != self.NONE:
                counts[before, a] -= times
                counts[before, new] += times
                places[before, new].append(left[i])
                made.add((before, new))
            if after != self.NONE:
                counts[b, after] -= times
                counts[new, after] += times
                places[new, after].append(i)
                made.add((new, after))
            ids[i], ids[j] = new, self.NONE
            right[i] = right[j]
            left[right[i]] = i
        del counts[pair]
        return [pair for pair in made if counts[pair] > 0]


FIRST = 0x100
"""Byte b is shown to the library as the character FIRST + b: a letter, not white space, and in the order of bytes."""
WORDS_AT_ONCE = 10_000


def learn_merges_with_library(words: Mapping[bytes, int], n_merges: int) -> list[Pair]:
    """Choose merges with the `tokenizers` package: the same as `learn_merges`.

    The library breaks ties by its own ids, which follow the code points of an alphabet; given bytes as characters in
    the order of bytes, its rule is ours.

    Raises:
        UserError: The package is not installed.
    """
    try:
        from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    except ImportError:
        raise UserError(
            "training with the library needs the package tokenizers: pip install 'groundup[train-bpe]',"
            " or choose the trainer own"
        ) from None
    alphabet = [chr(FIRST + byte) for byte in range(256)]
    library = Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.CharDelimiterSplit("\n")
    trainer = trainers.BpeTrainer(vocab_size=256 + n_merges, initial_alphabet=alphabet, show_progress=False)
    library.train_from_iterator(_repeated(words), trainer)
    model = json.loads(library.to_str())["model"]
    return [(model["vocab"][a], model["vocab"][b]) for a, b in model["merges"]]


def _repeated(words: Mapping[bytes, int]) -> Iterator[str]:
    """Each word as often as it occurs: the library takes text, not counts."""
    for word, count in words.items():
        line = "".join(chr(FIRST + byte) for byte in word) + "\n"
        for start in range(0, count, WORDS_AT_ONCE):
            yield line * min(WORDS_AT_ONCE, count - start)
