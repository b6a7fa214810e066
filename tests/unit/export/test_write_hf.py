"""Folders for transformers: equal logits, equal ids."""

import hashlib
import json

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from folders_of_models import expected, saved
from groundup.checkpoint.model_folder import load_model
from groundup.config.errors import UserError
from groundup.config.model import ModernConfig
from groundup.export.export_model import export_model
from groundup.interop.import_model import import_model
from groundup.tokenizer.base import END_OF_TEXT
from groundup.tokenizer.bpe import ByteBPE
from groundup.tokenizer.bpe_train import train_bpe
from groundup.tokenizer.gpt2_vocab import SHA256, VOCAB_BPE
from groundup.tokenizer.published import published

CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
    r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)
TEXTS = [
    "hello world", "  two  spaces\n\n\tand tabs \n", "don't we'll I'D", "naïve café 東京 🇪🇺", "1234 x=1;", " ", "",
    "aaaa bbbb abab", "x" * 300,
]  # fmt: skip


@pytest.mark.parametrize("bias", [True, False])
def test_transformers_opens_the_folder(tmp_path, make_model, letters, shape, bias):
    transformers = pytest.importorskip("transformers")
    folder = saved(tmp_path, make_model(**shape, bias=bias), letters)
    export_model(folder, tmp_path / "out", "hf")
    theirs, loading = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert isinstance(theirs, transformers.GPT2LMHeadModel)
    assert not any(loading.values())
    idx = torch.randint(27, (2, 32))
    with torch.no_grad():
        logits = theirs(idx).logits
    assert logits.std() > 0.1
    torch.testing.assert_close(logits, expected(folder, idx), atol=1e-5, rtol=1e-5)


def test_out_and_in_again_is_bitwise(tmp_path, make_model, letters):
    folder = saved(tmp_path, make_model(), letters, {"step": 7})
    export_model(folder, tmp_path / "out", "hf")
    import_model(str(tmp_path / "out"), tmp_path / "again")
    before, after = load_model(folder), load_model(tmp_path / "again")
    assert after.config == before.config
    assert after.tokenizer.fingerprint == before.tokenizer.fingerprint
    for name, p in before.model.state_dict().items():
        assert torch.equal(after.model.state_dict()[name], p)


def test_a_model_with_keys_for_every_head_is_a_gpt2(tmp_path, make_model, letters):
    folder = saved(tmp_path, make_model(**ModernConfig.AS_GPT2 | {"n_head": 4, "n_kv_head": 4}), letters)
    export_model(folder, tmp_path / "out", "hf")
    import_model(str(tmp_path / "out"), tmp_path / "again")
    idx = torch.randint(27, (2, 32))
    assert torch.equal(expected(tmp_path / "again", idx), expected(folder, idx))


@pytest.mark.fault("A6", "a bit of an exported model.safetensors flips", "the import is refused, and the file is named")
def test_exported_weights_that_changed_are_not_imported(tmp_path, make_model, letters):
    export_model(saved(tmp_path, make_model(), letters), out := tmp_path / "out", "hf")
    data = bytearray((out / "model.safetensors").read_bytes())
    data[-5] ^= 1
    (out / "model.safetensors").write_bytes(data)
    with pytest.raises(UserError, match=r"model\.safetensors is damaged, or was changed: .* remove .*manifest\.json"):
        import_model(str(out), tmp_path / "again")
    (out / "manifest.json").unlink()  # as the message says
    import_model(str(out), tmp_path / "again")


def test_half_precision_stays(tmp_path, make_model, letters):
    transformers = pytest.importorskip("transformers")
    folder = saved(tmp_path, make_model().to(torch.bfloat16), letters)
    export_model(folder, tmp_path / "out", "hf")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert theirs.dtype == torch.bfloat16


def test_characters_have_the_same_ids_in_transformers(folder, tmp_path, letters):
    transformers = pytest.importorskip("transformers")
    export_model(folder, tmp_path / "out", "hf")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    for text in ("a bé\n\n  c\n", "\n", " ", letters.decode(range(27))):
        assert theirs(text).input_ids == letters.encode(text)
        assert theirs.decode(theirs(text).input_ids) == text
    assert len(theirs) == 27
    with pytest.raises(Exception, match="WordLevel error"):
        theirs("Z")


def test_gpt2s_files_are_openais(hf_gpt2):
    files, _ = hf_gpt2
    assert hashlib.sha256(files["merges.txt"].encode()).hexdigest() == SHA256[VOCAB_BPE]
    assert len(json.loads(files["vocab.json"])) == 50257


@pytest.mark.parametrize("text", TEXTS)
def test_gpt2_has_the_same_ids_in_transformers(hf_gpt2, gpt2, text):
    _, theirs = hf_gpt2
    assert theirs(text).input_ids == gpt2.encode(text)
    assert theirs.decode(gpt2.encode(text), clean_up_tokenization_spaces=False) == text


@settings(deadline=None, max_examples=60)
@given(text=st.text(st.characters(max_codepoint=0x2FFF, exclude_categories=["Cs", "Cn"])))
def test_gpt2_has_the_same_ids_for_any_text(hf_gpt2, gpt2, text):
    assume(END_OF_TEXT not in text)  # hypothesis draws strings of our sources, too
    assert hf_gpt2[1](text).input_ids == gpt2.encode(text)


def test_gpt2s_end_of_text(hf_gpt2, gpt2):
    theirs = hf_gpt2[1]
    assert (theirs.eos_token_id, theirs.bos_token_id) == (50256, 50256)
    text = f"a{END_OF_TEXT} b"
    assert theirs(text).input_ids == [64, 50256, 275] == gpt2.encode(text, allow_special=True)
    assert gpt2.encode(text) == [64, 27, 91, 437, 1659, 5239, 91, 29, 275]  # our default reads it as text


@pytest.mark.parametrize("pattern", [None, r"\d|[a-z]+| ?[^\sa-z\d]+|\s"])
def test_a_tokenizer_of_our_own_in_transformers(tmp_path, make_model, pattern):
    transformers = pytest.importorskip("transformers")
    options = {} if pattern is None else {"pattern": pattern}
    # l+l, h+e, o+space, he+ll, a+a, aa+aa
    tokenizer = ByteBPE([(108, 108), (104, 101), (111, 32), (257, 256), (97, 97), (260, 260)], **options)
    folder = saved(tmp_path, make_model(vocab_size=tokenizer.vocab_size), tokenizer)
    export_model(folder, tmp_path / "out", "hf")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    for text in TEXTS:
        assert theirs(text).input_ids == tokenizer.encode(text)
        assert theirs.decode(tokenizer.encode(text), clean_up_tokenization_spaces=False) == text
    assert theirs.eos_token_id == tokenizer.eot_id


def test_two_ids_for_the_same_bytes_are_refused():
    with pytest.raises(UserError, match="two ids of the tokenizer stand for the same bytes"):
        published(ByteBPE([(97, 98), (98, 99), (256, 99), (97, 257)]))


@pytest.mark.parametrize("kind", ["hf", "onnx", "gguf", "ct2"])
def test_a_special_token_that_merges_spell_as_well_is_refused(tmp_path, make_model, kind):
    pytest.importorskip({"ct2": "ctranslate2", "hf": "torch"}.get(kind, kind))
    tokenizer = train_bpe(["END\nthat is the END\nof END\n" * 50], 290, specials=["<|endoftext|>", "END"])
    assert tokenizer.encode("END") != tokenizer.encode("END", allow_special=True)
    assert len(tokenizer.encode("END")) == 1
    folder = saved(tmp_path, make_model(vocab_size=tokenizer.vocab_size), tokenizer)
    with pytest.raises(UserError, match="the special token 'END' is spelled as a token of the vocabulary"):
        export_model(folder, tmp_path / "out", kind)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "pattern",
    [CL100K, r"\p{N}{1,3}+|[a-z]{2}+|[^a-z\p{N}]+|[a-z]", "[[:alpha:]]{1,4}+|[^[:alpha:]]+", "[^]a]{1,3}+|[]a]+"],
)
def test_possessive_counts_keep_their_ids_in_transformers(tmp_path, make_model, pattern):
    transformers = pytest.importorskip("transformers")
    tokenizer = train_bpe(["1234 12345 in 1999, 2000 and 20000 " * 50], 300, pattern=pattern)
    folder = saved(tmp_path, make_model(vocab_size=tokenizer.vocab_size), tokenizer)
    export_model(folder, tmp_path / "out", "hf")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    for text in [*TEXTS, "12345678", "20002000", "in 1999 abcde"]:
        assert theirs(text).input_ids == tokenizer.encode(text)
    import_model(str(tmp_path / "out"), tmp_path / "again")
    assert load_model(tmp_path / "again").tokenizer.encode("12345678") == tokenizer.encode("12345678")


def test_a_pattern_that_transformers_reads_otherwise_is_refused(tmp_path, make_model):
    pytest.importorskip("tokenizers")
    tokenizer = ByteBPE([(48, 50)], pattern=r"(?:\p{N}\p{N}){1,2}+|.|\n")  # 02, within a word of four digits
    folder = saved(tmp_path, make_model(vocab_size=tokenizer.vocab_size), tokenizer)
    with pytest.raises(UserError, match="transformers would give other ids than this tokenizer"):
        export_model(folder, tmp_path / "out", "hf")
    with pytest.raises(UserError, match=r"llama.cpp cuts words by patterns of its own"):
        export_model(folder, tmp_path / "out", "gguf")
    assert not (tmp_path / "out").exists()
