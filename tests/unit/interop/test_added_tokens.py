"""Tokens that were added to a vocabulary, marked in every way: the same ids as in transformers, there and back."""

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.export.hf_tokenizer import tokenizer_files
from groundup.interop.read_tokenizer import read_tokenizer
from groundup.tokenizer.bpe import ByteBPE
from groundup.tokenizer.gpt2 import GPT2Tokenizer
from groundup.tokenizer.io import load_tokenizer, tokenizer_json

tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")

Added = tokenizers.AddedToken
BYTES = {letter: i for i, letter in enumerate(sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()))}


def with_tokens(added):
    """Bytes without merges, and added tokens."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=BYTES, merges=[]))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    made.add_tokens(added)
    return made


def ours_of(theirs):
    """Imported, saved and loaded."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "tokenizer.json").write_text(theirs.to_str(), "utf-8")
        Path(folder, "tokenizer.json").write_text(tokenizer_json(read_tokenizer(Path(folder))), "utf-8")
        return load_tokenizer(Path(folder))


CASES = {
    "a special one in a word": (
        [Added("<tool>", special=True, normalized=False), Added("<tool>s")],
        {"<tool>s": ["<tool>", "s"], "<tool> s<tool>": ["<tool>", " ", "s", "<tool>"]},
    ),
    "a word in a longer one": (
        [Added("user", normalized=False), Added("user name")],
        {"a user name": ["a", " ", "user", " ", "n", "a", "m", "e"]},
    ),
    "a word beside another": (
        [Added("user", normalized=False), Added("name", single_word=True)],
        {"username": ["user", "name"], "user_name": ["user", "_", "n", "a", "m", "e"]},
    ),
    "both of one kind": ([Added("user"), Added("user name")], {"a user name": ["a", " ", "user name"]}),
    "space that another took": (
        [Added("\n\n", lstrip=True, rstrip=True)],
        {"\n\n\n\n": ["\n\n"], "a\n\n \n\nb": ["a", "\n\n", "b"]},
    ),
    "space that is a token, too": ([Added("a", rstrip=True), Added(" ")], {"a b": ["a", " ", "b"]}),
}


@pytest.mark.parametrize("case", CASES)
def test_tokens_are_found_in_the_order_of_transformers(tmp_path, case):
    added, texts = CASES[case]
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=with_tokens([]))
    theirs.add_tokens(added)
    theirs.save_pretrained(tmp_path / "theirs")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "theirs")
    ours = read_tokenizer(tmp_path / "theirs")
    (tmp_path / "ours.json").write_text(tokenizer_json(ours), "utf-8")
    (tmp_path / "again").mkdir()
    for name, text in tokenizer_files(load_tokenizer(tmp_path / "ours.json"), 64).items():
        (tmp_path / "again" / name).write_text(text, "utf-8")
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "again")
    for text, tokens in texts.items():
        wanted = theirs.encode(text)
        assert [theirs.decode([i]) for i in wanted] == tokens
        assert ours.encode(text, allow_special=True) == again.encode(text) == wanted
    marks = {i: (token.content, token.normalized) for i, token in theirs.added_tokens_decoder.items()}
    assert {i: (token.content, token.normalized) for i, token in again.added_tokens_decoder.items()} == marks


@st.composite
def added_tokens(draw):
    flag, added = st.booleans(), []
    for name in draw(st.sets(st.text("ab \n", min_size=1, max_size=3), min_size=1, max_size=5)):
        flags = {key: draw(flag) for key in ("special", "normalized", "single_word", "lstrip", "rstrip")}
        # The library panics at a token of white space that takes more of it before and none after, if all of it was
        # taken before.
        flags["rstrip"] |= flags["lstrip"] and name.isspace()
        added.append(Added(name, **flags))
    # Text can become the id of a letter, so its token is no special one here.
    words = [token for token in added if not token.special or token.content in BYTES]
    piece = st.sampled_from([*(token.content for token in added), *"ab \n_é\u0301\u3000"])
    return words, [token for token in added if token not in words], draw(st.lists(st.lists(piece, max_size=8)))


@settings(max_examples=200, deadline=None)
@given(added_tokens())
def test_tokens_with_any_flags(drawn):
    words, specials, texts = drawn
    theirs, plain = with_tokens([*words, *specials]), with_tokens(words)
    ours = ours_of(theirs)
    again = tokenizers.Tokenizer.from_str(tokenizer_files(ours, 64)["tokenizer.json"])
    for text in map("".join, texts):
        ids = theirs.encode(text, add_special_tokens=False).ids
        assert ours.encode(text, allow_special=True) == again.encode(text, add_special_tokens=False).ids == ids
        # Where special tokens are not allowed, it is as if there were none.
        assert ours.encode(text) == plain.encode(text, add_special_tokens=False).ids


def test_a_file_from_before_the_flag_means_what_it_meant():
    """All tokens are found at once."""
    values = {"kind": "bpe", "pattern": r"\S+", "merges": [], "specials": ["<tool>", "<tool>s", "user", "user name"]}
    ours = ByteBPE.from_dict(values | {"matching": {"<tool>s": ["always"], "user name": ["always", "lstrip"]}})
    assert ours.encode("<tool>s", allow_special=True) == [257]
    assert ours.encode("a user name<tool>sx") == [97, 259, 257, 120]


@pytest.mark.parametrize("file", ["special_tokens_map.json", "tokenizer_config.json"])
@pytest.mark.parametrize("name", ["text|>s", "<mask>"])
def test_roles_of_the_older_form_say_how_their_tokens_are_found(tmp_path, file, name):
    """A token with a role has flags there, unless it stands among the added ones, too."""
    n, end = len(BYTES), "<|endoftext|>"
    (tmp_path / "vocab.json").write_text(json.dumps(BYTES | {end: n, "<mask>": n + 1}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    (tmp_path / "added_tokens.json").write_text(json.dumps({"text|>s": n + 2, "bear": n + 3, "[PAD]": n + 4}))
    marked = {"__type": "AddedToken"} if file == "tokenizer_config.json" else {}
    marked |= {"single_word": False, "lstrip": True, "rstrip": False, "normalized": True, "special": True}
    roles = {key: {"content": end, **marked} for key in ("bos_token", "eos_token", "unk_token")}
    roles |= {"pad_token": name, "mask_token": {"content": "<mask>", **marked}}
    (tmp_path / file).write_text(json.dumps(roles))
    theirs, ours = transformers.AutoTokenizer.from_pretrained(tmp_path), read_tokenizer(tmp_path)
    for text in ("<|endoftext|>s", "a  <|endoftext|>b", "a <mask> b", "a bear[PAD] <mask>s text|>s"):
        assert ours.encode(text, allow_special=True) == theirs.encode(text)


def test_gpt2s_own_end_is_found_alone_whatever_its_mark(tmp_path, gpt2):
    for name, text in tokenizer_files(gpt2, 1024).items():
        (tmp_path / name).write_text(text, "utf-8")
    values = json.loads((tmp_path / "tokenizer.json").read_text())
    values["added_tokens"][0]["normalized"] = True
    (tmp_path / "tokenizer.json").write_text(json.dumps(values))
    ours = read_tokenizer(tmp_path)
    assert isinstance(ours, GPT2Tokenizer)
    assert ours.fingerprint == gpt2.fingerprint
