"""Our tokenizers as the files of a Hugging Face folder; `read_tokenizer.py` is the way back.

The JSON is that of the `tokenizers` library; it is written out here, so that an export needs no package.
"""

from collections.abc import Sequence
from typing import Any

from groundup.config.io import dump_json
from groundup.tokenizer.added import ALWAYS, LSTRIP, NORMALIZED, RSTRIP, SINGLE_WORD
from groundup.tokenizer.base import END_OF_TEXT, Tokenizer
from groundup.tokenizer.bpe import GPT2_PATTERN
from groundup.tokenizer.char import CharTokenizer
from groundup.tokenizer.oniguruma import to_oniguruma
from groundup.tokenizer.probe import check_tokenizers
from groundup.tokenizer.published import BytePairs, published


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
        whole = dump_json(_char_json(tokenizer))
        check_tokenizers(tokenizer, whole, sure=True)
        return {"tokenizer.json": whole, "tokenizer_config.json": dump_json(settings)}
    bpe = published(tokenizer)
    files = {"tokenizer.json": dump_json(_bpe_json(bpe))}
    check_tokenizers(tokenizer, files["tokenizer.json"], sure=bpe.pattern == GPT2_PATTERN)
    settings |= _roles(bpe)
    if bpe.pattern == GPT2_PATTERN and settings.keys() >= set(_OF_GPT2):  # its class sets all of them
        settings |= {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": False}
        files["vocab.json"] = dump_json(bpe.vocab | bpe.specials)
        files["merges.txt"] = "\n".join(["#version: 0.2", *[" ".join(pair) for pair in bpe.merges], ""])
    else:
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    return {**files, "tokenizer_config.json": dump_json(settings)}


def _roles(bpe: BytePairs) -> dict[str, Any]:
    """What special tokens are for, as it was imported; else the end of a document for all that GPT-2 has."""
    if bpe.settings or bpe.end is None:
        return dict(bpe.settings)
    return dict.fromkeys(_OF_GPT2, bpe.end)


_OF_GPT2 = ("bos_token", "eos_token", "unk_token")


def _char_json(tokenizer: CharTokenizer) -> dict[str, Any]:
    """Every character is a word of its own; one outside of the alphabet is an error.

    The end of a document, where the tokenizer has one, is a special token that no character of a text can be.
    """
    end = {END_OF_TEXT: tokenizer.eot_id} if tokenizer.eot_id is not None else {}
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {
        **_EMPTY,
        "added_tokens": [{"id": i, "content": token, **plain, "special": True} for token, i in end.items()],
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": r"[\s\S]"}, "behavior": "Isolated", "invert": False},
        "decoder": {"type": "Fuse"},
        "model": {
            "type": "WordLevel",
            "vocab": {symbol: i for i, symbol in enumerate(tokenizer.symbols)} | end,
            # No symbol has five characters: what is unknown has no id, and is reported.
            "unk_token": "<unk>",
        },
    }


def _bpe_json(bpe: BytePairs) -> dict[str, Any]:
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    pre_tokenizer: dict[str, Any] = byte_level
    if bpe.pattern != GPT2_PATTERN:
        split = {
            "type": "Split",
            "pattern": {"Regex": to_oniguruma(bpe.pattern)},
            "behavior": "Isolated",
            "invert": False,
        }
        pre_tokenizer = {"type": "Sequence", "pretokenizers": [split, {**byte_level, "use_regex": False}]}
    return {
        **_EMPTY,
        "added_tokens": [_added(token, i, bpe.matching.get(token, ())) for token, i in bpe.added.items()],
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


def _added(token: str, i: int, flags: Sequence[str]) -> dict[str, Any]:
    how = {flag: flag in flags for flag in (SINGLE_WORD, LSTRIP, RSTRIP, NORMALIZED)}
    return {"id": i, "content": token, **how, "special": ALWAYS not in flags}


_EMPTY: dict[str, Any] = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [],
    "normalizer": None,
    "post_processor": None,
}
