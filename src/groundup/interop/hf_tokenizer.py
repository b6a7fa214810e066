"""Our tokenizers as the files of a Hugging Face folder, and back.

The JSON is that of the `tokenizers` library; it is written out here, so that an export needs no package.
"""

from pathlib import Path
from typing import Any

from groundup.config.errors import UserError
from groundup.config.io import dump_json, load_json
from groundup.interop.byte_bpe import BytePairs, published
from groundup.tokenizer.base import END_OF_TEXT, Tokenizer
from groundup.tokenizer.bpe import GPT2_PATTERN
from groundup.tokenizer.char import CharTokenizer


def tokenizer_files(tokenizer: Tokenizer, context: int) -> dict[str, str]:
    """The files from which transformers' AutoTokenizer makes the same ids, by name.

    There is one difference, which is theirs: in text, `<|endoftext|>` becomes the token between documents.

    Args:
        tokenizer: Characters or byte-level BPE.
        context: The most tokens the model takes.

    Raises:
        UserError: There is no such form of the tokenizer.
    """
    settings: dict[str, Any] = {"model_max_length": context, "clean_up_tokenization_spaces": False}
    if isinstance(tokenizer, CharTokenizer):
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
        return {"tokenizer.json": dump_json(_char_json(tokenizer)), "tokenizer_config.json": dump_json(settings)}
    bpe = published(tokenizer)
    files = {"tokenizer.json": dump_json(_bpe_json(bpe))}
    if END_OF_TEXT in bpe.specials:
        settings |= dict.fromkeys(("bos_token", "eos_token", "unk_token"), END_OF_TEXT)
    if bpe.pattern == GPT2_PATTERN and END_OF_TEXT in bpe.specials:
        settings |= {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": False}
        files["vocab.json"] = dump_json(bpe.vocab | bpe.specials)
        files["merges.txt"] = "\n".join(["#version: 0.2", *[" ".join(pair) for pair in bpe.merges], ""])
    else:
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    return {**files, "tokenizer_config.json": dump_json(settings)}


def _char_json(tokenizer: CharTokenizer) -> dict[str, Any]:
    """Every character is a word of its own; one outside of the alphabet is an error."""
    return {
        **_EMPTY,
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": r"[\s\S]"}, "behavior": "Isolated", "invert": False},
        "decoder": {"type": "Fuse"},
        "model": {
            "type": "WordLevel",
            "vocab": {symbol: i for i, symbol in enumerate(tokenizer.symbols)},
            # No symbol has five characters: what is unknown has no id, and is reported.
            "unk_token": "<unk>",
        },
    }


def _bpe_json(bpe: BytePairs) -> dict[str, Any]:
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    pre_tokenizer: dict[str, Any] = byte_level
    if bpe.pattern != GPT2_PATTERN:
        split = {"type": "Split", "pattern": {"Regex": bpe.pattern}, "behavior": "Isolated", "invert": False}
        pre_tokenizer = {"type": "Sequence", "pretokenizers": [split, {**byte_level, "use_regex": False}]}
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {
        **_EMPTY,
        "added_tokens": [{"id": i, "content": token, **plain, "special": True} for token, i in bpe.specials.items()],
        "pre_tokenizer": pre_tokenizer,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "vocab": bpe.vocab | bpe.specials,
            "merges": [list(pair) for pair in bpe.merges],
        },
    }


_EMPTY: dict[str, Any] = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [],
    "normalizer": None,
    "post_processor": None,
}


def read_vocab(folder: Path) -> tuple[str, dict[str, int]] | None:
    """The kind of tokenizer ("BPE", "WordLevel", ...) and the vocabulary of a Hugging Face folder; None without one.

    Raises:
        UserError: The files are not a tokenizer's.
    """
    whole, vocab = folder / "tokenizer.json", folder / "vocab.json"
    if whole.is_file():
        values = load_json(whole)
        model = values.get("model") if isinstance(values, dict) else None
        kind, words = (model.get("type", "BPE"), model.get("vocab")) if isinstance(model, dict) else (None, None)
        path = whole
    elif vocab.is_file():
        kind, words, path = "BPE", load_json(vocab), vocab
    else:
        return None
    if not isinstance(words, dict) or not all(type(i) is int for i in words.values()):
        raise UserError(f"{path} has no vocabulary that groundup can read; name a tokenizer with --tokenizer")
    return str(kind), words


def read_byte_bpe(path: Path) -> BytePairs | None:
    """What a tokenizer.json of byte-level BPE decides, whoever wrote it; None where something else decides, too.

    Raises:
        UserError: The file cannot be read.
    """
    match load_json(path):
        case {
            "normalizer": None,
            "added_tokens": list(added),
            "pre_tokenizer": dict(words),
            "model": {"type": "BPE", "vocab": dict(vocab), "merges": list(merges)},
        } if pattern := _pattern(words):
            try:
                specials = {str(token["content"]): int(token["id"]) for token in added}
                pairs = [(a, b) for a, b in (m.split(" ") if isinstance(m, str) else m for m in merges)]
            except (TypeError, KeyError, ValueError):
                return None
            plain = {token: i for token, i in vocab.items() if token not in specials}
            return BytePairs(plain, pairs, specials, pattern)
    return None


def _pattern(words: dict[str, Any]) -> str | None:
    """The regular expression of a word in a byte-level tokenizer.json."""
    match words:
        case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}:
            return GPT2_PATTERN
        case {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": str(pattern)}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
            ],
        }:
            return pattern
    return None


def char_tokenizer(words: dict[str, int]) -> CharTokenizer | None:
    """The alphabet of a vocabulary of single characters with the ids 0, 1, 2 and so on; None for any other."""
    symbols = sorted(words, key=words.__getitem__)
    if any(len(s) != 1 for s in symbols) or [words[s] for s in symbols] != list(range(len(symbols))):
        return None
    return CharTokenizer(symbols)
