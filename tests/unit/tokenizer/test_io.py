import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.tokenizer.conftest import TEXTS

from groundup.config.errors import UserError
from groundup.tokenizer.bpe import ByteBPE
from groundup.tokenizer.bpe_train import train_bpe
from groundup.tokenizer.char import CharTokenizer
from groundup.tokenizer.gpt2 import load_gpt2
from groundup.tokenizer.io import KINDS, load_tokenizer, resolve_tokenizer, tokenizer_json

CHAR = CharTokenizer(sorted(set("".join(TEXTS.values()))))
BPE = train_bpe(
    TEXTS.values(), 500, specials=["<|a b|>", "<|endoftext|>", "\n\u2028\x85"], pattern=r"  \p{L}+ |\s+|(?i:x)y "
)


@pytest.fixture(params=["char", "bpe", "gpt2"])
def tokenizer(request):
    if request.param == "gpt2":
        request.getfixturevalue("gpt2_folder")
        return load_gpt2()
    return {"char": CHAR, "bpe": BPE}[request.param]


def test_a_saved_tokenizer_comes_back_whole(tokenizer, tmp_path):
    (tmp_path / "tokenizer.json").write_text(tokenizer_json(tokenizer), "utf-8")
    for path in (tmp_path / "tokenizer.json", tmp_path):
        again = load_tokenizer(path)
        assert type(again) is type(tokenizer)
        assert again.fingerprint == tokenizer.fingerprint
        assert (again.vocab_size, again.eot_id) == (tokenizer.vocab_size, tokenizer.eot_id)
        for text in TEXTS.values():
            ids = tokenizer.encode(text)
            assert again.encode(text) == ids
            assert again.decode(ids) == text
            assert again.decode_bytes(ids) == text.encode()


def test_the_file_of_gpt2_is_small(gpt2_folder):
    assert len(tokenizer_json(load_gpt2())) < 300


def test_every_kind_is_tested(tokenizer):
    assert tokenizer.to_dict()["kind"] in KINDS
    assert set(KINDS) == {"char", "bpe", "gpt2"}


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=5)
    | st.sampled_from(["97 98", "256 1", "1 2 3", "(", "a"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)


@given(
    kind=st.sampled_from(["char", "bpe", "gpt2"]) | values,
    fields=st.fixed_dictionaries(
        {}, optional=dict.fromkeys(("symbols", "pattern", "specials", "merges", "sha256", "version"), values)
    ),
)
def test_no_file_ends_in_a_traceback(kind, fields, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "odd.json"
    path.write_text(json.dumps({"format": "groundup-tokenizer", "version": 1, "kind": kind, **fields}))
    with contextlib.suppress(UserError):
        load_tokenizer(path)


@pytest.mark.parametrize(
    ("contents", "complaint"),
    [
        ("", "not valid JSON"),
        ("[]", "not a groundup tokenizer"),
        ('{"format": "groundup-tokenizer", "version": 2, "kind": "char"}', "format version 2"),
        ('{"format": "groundup-tokenizer", "version": 1, "kind": "spm"}', "unknown kind of tokenizer 'spm'"),
        ('{"format": "groundup-tokenizer", "version": 1, "kind": "char"}', "list of symbols"),
        ('{"format": "groundup-tokenizer", "version": 1, "kind": "char", "symbols": ["\\ud800"]}', "surrogate"),
        ('{"format": "groundup-tokenizer", "version": 1, "kind": "bpe"}', "needs a pattern"),
        ('{"format": "groundup-tokenizer", "version": 1, "kind": "bpe", "pattern": "a"}', "list of merges"),
    ],
)
def test_a_bad_file_is_named(contents, complaint, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(contents)
    with pytest.raises(UserError, match=complaint) as caught:
        load_tokenizer(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_are_resolved(gpt2_folder, tmp_path):
    (tmp_path / "tokenizer.json").write_text(tokenizer_json(BPE), "utf-8")
    assert resolve_tokenizer("gpt2").vocab_size == 50257
    assert resolve_tokenizer(str(gpt2_folder)).vocab_size == 50257
    assert isinstance(resolve_tokenizer(str(tmp_path)), ByteBPE)
    assert isinstance(resolve_tokenizer(str(tmp_path / "tokenizer.json")), ByteBPE)
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "model" / "tokenizer.json").write_text(tokenizer_json(CHAR), "utf-8")
    assert isinstance(resolve_tokenizer(str(tmp_path / "run")), CharTokenizer)
    with pytest.raises(UserError, match="no tokenizer 'gtp2': give gpt2, or the path"):
        resolve_tokenizer("gtp2")
    with pytest.raises(UserError, match="cannot read"):
        resolve_tokenizer(str(tmp_path.parent))
