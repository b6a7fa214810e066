"""Byte-level tokenizers that other programs made: the same ids for the same text, or a reason."""

import functools
import json
import re
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.checkpoint.model_folder import load_model, save_model
from groundup.config.errors import UserError
from groundup.export.export_model import export_model
from groundup.export.hf_tokenizer import tokenizer_files
from groundup.interop.import_model import import_model
from groundup.interop.read_tokenizer import framing, read_tokenizer
from groundup.tokenizer.bpe import ByteBPE
from groundup.tokenizer.char import CharTokenizer
from groundup.tokenizer.gpt2 import load_gpt2
from groundup.tokenizer.io import load_tokenizer, resolve_tokenizer, tokenizer_json

tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")

CORPUS = ["In the beginning was the word, and the word was with the machine: 1999, 2000 and 20000 words.\n" * 20]
TEXTS = ["In the end 12345678  words\n\n", "naïve café 東京 🇪🇺", "don't we'll I'D", "\x00\x7f\u200b ", " ", "the" * 500]
ENDS = {"first": ["<s>", "<pad>", "</s>"], "none": [], "one": ["<|endoftext|>"]}


def trained(specials, size=330, *, prefix=False, alphabet=True):
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    made.decoder = tokenizers.decoders.ByteLevel()
    letters = tokenizers.pre_tokenizers.ByteLevel.alphabet() if alphabet else []
    options = {"vocab_size": size, "special_tokens": specials, "initial_alphabet": letters, "show_progress": False}
    made.train_from_iterator(CORPUS, tokenizers.trainers.BpeTrainer(**options))
    return made


def cut_by(pattern, texts=CORPUS):
    """A tokenizer that cuts words by a pattern, as `tokenizers` reads it."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
    byte_level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([split, byte_level])
    options = {"initial_alphabet": tokenizers.pre_tokenizers.ByteLevel.alphabet(), "show_progress": False}
    made.train_from_iterator(texts, tokenizers.trainers.BpeTrainer(vocab_size=330, special_tokens=[], **options))
    return made


def folder_of(made, folder, **settings):
    transformers.PreTrainedTokenizerFast(tokenizer_object=made, **settings).save_pretrained(folder)
    return folder


def assert_same_ids(ours, theirs, texts=TEXTS):
    for text in texts:
        ids = theirs.encode(text, add_special_tokens=False)
        assert ours.encode(text) == getattr(ids, "ids", ids)
        assert ours.decode(ours.encode(text)) == text


@pytest.mark.parametrize("specials", ENDS)
def test_a_tokenizer_that_was_trained_elsewhere(tmp_path, specials):
    made = trained(ENDS[specials])
    ours = read_tokenizer(folder_of(made, tmp_path))
    assert_same_ids(ours, made)
    assert ours.vocab_size == made.get_vocab_size()
    assert ours.decode([made.token_to_id("Ġthe")]) == " the"
    for token in ENDS[specials]:
        assert ours.encode(f"a{token}b", allow_special=True) == made.encode(f"a{token}b").ids
    assert ours.eot_id == (0 if specials == "one" else None)


def test_the_end_of_a_document_is_what_its_settings_say(tmp_path):
    ours = read_tokenizer(folder_of(trained(ENDS["first"]), tmp_path, eos_token="</s>"))
    assert ours.eot_id == 2
    (tmp_path / "ours.json").write_text(tokenizer_json(ours), "utf-8")
    again = load_tokenizer(tmp_path / "ours.json")
    assert (again.eot_id, again.fingerprint) == (2, ours.fingerprint)
    assert_same_ids(again, trained(ENDS["first"]))


def test_vocab_and_merges_alone(tmp_path):
    made = trained(["<|endoftext|>"])
    made.model.save(str(tmp_path))
    (tmp_path / "added_tokens.json").write_text(json.dumps({"[PAD]": made.get_vocab_size()}))
    ours = read_tokenizer(tmp_path)
    assert_same_ids(ours, made)
    assert (ours.eot_id, ours.vocab_size) == (0, made.get_vocab_size() + 1)
    assert ours.encode("[PAD]", allow_special=True) == [made.get_vocab_size()]


def test_bytes_that_the_vocabulary_lacks_are_an_error_not_a_gap(tmp_path):
    made = trained([], alphabet=False)
    ours = read_tokenizer(folder_of(made, tmp_path))
    assert_same_ids(ours, made, ["In the machine"])
    assert made.encode("Z").ids == []
    with pytest.raises(UserError, match="the vocabulary lacks a byte of 'Z'"):
        ours.encode("Z")


def test_merges_that_make_the_same_token(tmp_path):
    """abc is a+bc and ab+c; a long word takes the same way."""
    made = trained([])
    values = json.loads(made.to_str())
    byte = {token: i for token, i in values["model"]["vocab"].items() if len(token) == 1}
    vocab = {**byte, "bc": 256, "abc": 257, "ab": 258, "abcd": 259}
    merges = [["b", "c"], ["a", "bc"], ["a", "b"], ["abc", "d"], ["ab", "c"]]
    values["model"] |= {"vocab": vocab, "merges": merges}
    (tmp_path / "tokenizer.json").write_text(json.dumps(values))
    theirs = tokenizers.Tokenizer.from_str(json.dumps(values))
    ours = read_tokenizer(tmp_path)
    assert_same_ids(ours, theirs, ["abcd", "abc ab bcd", "abab", "abcdab" * 400])


def test_import_use_and_export_of_a_model_with_its_own_tokenizer(tmp_path, make_hf, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = trained(ENDS["first"])
    folder_of(made, "theirs", eos_token="</s>")
    theirs = make_hf(vocab_size=made.get_vocab_size(), eos_token_id=2)
    theirs.save_pretrained("theirs")
    import_model("theirs", Path("ours"))
    loaded = load_model(Path("ours"))
    idx = torch.tensor([loaded.tokenizer.encode("In the beginning")])
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(idx), theirs(idx).logits, atol=1e-5, rtol=1e-4)
    export_model(Path("ours"), Path("again"), "hf")
    again = transformers.AutoTokenizer.from_pretrained("again")
    assert_same_ids(loaded.tokenizer, again)
    assert (again.eos_token_id, len(again)) == (2, made.get_vocab_size())
    assert again("<s>a</s>").input_ids == made.encode("<s>a</s>").ids


@pytest.mark.parametrize("pad", [None, 8, 64])
def test_tokens_that_a_fine_tune_added(tmp_path, make_hf, monkeypatch, pad):
    """[PAD] and the words of a chat, with and without rows that pad the embedding."""
    monkeypatch.chdir(tmp_path)
    made = trained(["<|endoftext|>"])
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|endoftext|>")
    model = make_hf(vocab_size=len(theirs))
    theirs.add_special_tokens({"pad_token": "[PAD]", "additional_special_tokens": ["<|user|>", "<|bot|>"]})
    model.resize_token_embeddings(len(theirs), pad_to_multiple_of=pad, mean_resizing=False)
    model.save_pretrained("theirs")
    theirs.save_pretrained("theirs")
    foreign = import_model("theirs", Path("ours"))
    loaded = load_model(Path("ours"))
    assert loaded.config.vocab_size == len(theirs) == made.get_vocab_size() + 3
    text = "<|user|>the word<|bot|>[PAD]"
    ids = theirs(text).input_ids
    assert loaded.tokenizer.encode(text, allow_special=True) == ids
    with torch.no_grad():
        wanted = model(torch.tensor([ids])).logits[..., : len(theirs)]
        torch.testing.assert_close(loaded.model(torch.tensor([ids])), wanted, atol=1e-5, rtol=1e-4)
    assert ("rows that pad" in foreign.note) == (pad is not None)


@pytest.mark.parametrize("digits", [r"\p{N}{1,3}+", r"[0-9]{2}+", "[[:alpha:]0-9]{1,3}+", "[]0-9]{1,3}+"])
def test_a_count_with_a_plus_is_read_as_tokenizers_reads_it(tmp_path, digits):
    """(x{1,3})+, as of the pattern that OpenAI's tiktoken has now; where it is possessive, long numbers are cut."""
    text = "In 19991999 it was 1234567"
    made = cut_by(rf"[^\r\n\p{{L}}\p{{N}}]?+\p{{L}}++|{digits}|\s++$|\s", [text] * 50)
    (tmp_path / "tokenizer.json").write_text(made.to_str())
    ours = read_tokenizer(tmp_path)
    assert len(made.encode("19991999").ids) == 1
    assert_same_ids(ours, made, [text, "123 1234 12345678 1999199", *TEXTS])
    again = tokenizers.Tokenizer.from_str(tokenizer_files(ours, 32)["tokenizer.json"])
    assert_same_ids(ours, again, [text, *TEXTS])


@pytest.mark.parametrize(
    "pattern",
    [
        r"\w+|[^\w\s]+|\s+",
        r"\w+?\b|\W",
        r"^#.*|\p{L}+|\s+|.",
        r"\p{L}+$|.|\n",
        r"\h+|.|\n",
        r"[\p{L}&&[^a-z]]+|.|\n",
        r"(?i)[a-z]+|.|\n",
        r"(?:\p{N}\p{N}){1,2}+|.|\n",
    ],
)
@pytest.mark.parametrize("merges", [True, False])
def test_a_pattern_that_tokenizers_reads_otherwise_is_refused(tmp_path, pattern, merges):
    """Also where no merge of this vocabulary shows it in the text that is compared."""
    made = cut_by(pattern) if merges else cut_by(pattern, [])
    (tmp_path / "tokenizer.json").write_text(made.to_str())
    with pytest.raises(UserError, match=r"cannot be: transformers would give other ids .* ends a word after"):
        read_tokenizer(tmp_path)


def test_another_pattern_than_gpt2s_needs_what_compares_it(tmp_path, monkeypatch):
    made = cut_by(r"\s+|\S+")
    made.enable_truncation(4)
    made.enable_padding(length=512)
    (tmp_path / "tokenizer.json").write_text(made.to_str())
    assert_same_ids(read_tokenizer(tmp_path), cut_by(r"\s+|\S+"))
    (tmp_path / "gpt2s").mkdir()
    folder_of(trained([]), tmp_path / "gpt2s")
    monkeypatch.setattr("groundup.tokenizer.probe.importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"keeps its ids needs a package: pip install 'groundup\[export\]'"):
        read_tokenizer(tmp_path)
    assert_same_ids(read_tokenizer(tmp_path / "gpt2s"), trained([]))


REFUSED = {
    "add_prefix_space": ({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True}}, "it has add_prefix_space"),
    "a normalizer": ({"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}]}}, r"Sequence \(NFC\)"),
    "another cut": ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits"}]}}, r"\(Digits\)"),
    "another model": ({"model": {"type": "Unigram"}}, "its model is Unigram"),
    "whole words first": ({"ignore_merges": True}, "its model has ignore_merges True"),
    "dropout": ({"dropout": 0.1}, "its model has dropout 0.1"),
    "ids as text": ({"vocab": {"a": "0"}}, "must be whole numbers by text"),
    "a list as an id": ({"added_tokens": [{"content": "a", "id": []}]}, "must be whole numbers by text"),
    "merges of three": ({"merges": [["a", "b", "c"]]}, "its merges must be pairs"),
    "merges of lists": ({"merges": [[["a"], ["b"]]]}, "its merges must be pairs"),
    "a hole": ({"vocab": {"a": 0, "b": 2}, "merges": []}, "no token has id 1"),
    "two of one id": ({"vocab": {"a": 0, "b": 0}, "merges": []}, "id 0 stands for"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_ours_cannot_be_is_refused_by_name(tmp_path, case):
    change, fault = REFUSED[case]
    values = json.loads(trained([]).to_str())
    (values if change.keys() <= values.keys() else values["model"]).update(change)
    (tmp_path / "tokenizer.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match=f"has a tokenizer that groundup cannot be: .*{fault}") as error:
        read_tokenizer(tmp_path)
    assert "\n" not in str(error.value)


def of_letters(letters="ACGTN ", **change):
    """A tokenizer.json of characters, as an export of ours writes it, but for some parts."""
    values = json.loads(tokenizer_files(CharTokenizer(list(letters)), 32)["tokenizer.json"])
    unknown = change.pop("unk_token", "<unk>")
    return values | {"model": {**values["model"], "unk_token": unknown}} | change


NOT_LETTERS = {
    "words": ({"pre_tokenizer": {"type": "WhitespaceSplit"}}, "its pre_tokenizer WhitespaceSplit cuts a text"),
    "the whole text": ({"pre_tokenizer": None}, "its pre_tokenizer None cuts a text"),
    "what is taken away": (
        {"pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "Removed", "invert": False}},
        "its pre_tokenizer Split cuts a text",
    ),
    "an added token": (
        {"added_tokens": [{"id": 4, "content": "N", "lstrip": True, "special": True}]},
        "it has other added_tokens than a plain end",
    ),
    "a template": ({"post_processor": {"type": "TemplateProcessing"}}, "its post_processor TemplateProcessing is not"),
}


@pytest.mark.parametrize("case", NOT_LETTERS)
def test_single_characters_that_are_not_found_one_by_one_are_refused(tmp_path, case):
    change, fault = NOT_LETTERS[case]
    (tmp_path / "tokenizer.json").write_text(json.dumps(of_letters(**change)))
    with pytest.raises(UserError, match=f"its vocabulary is of single characters, and {fault}"):
        read_tokenizer(tmp_path)


@pytest.mark.parametrize("unknown", ["N", "<unk>"])
@pytest.mark.parametrize("cut", [{"Regex": r"[\s\S]"}, {"String": ""}])
def test_single_characters_that_are(tmp_path, make_hf, monkeypatch, unknown, cut):
    monkeypatch.chdir(tmp_path)
    values = of_letters(unk_token=unknown)
    values["pre_tokenizer"]["pattern"] = cut
    make_hf(vocab_size=6).save_pretrained("theirs")
    Path("theirs/tokenizer.json").write_text(json.dumps(values))
    note = import_model("theirs", Path("ours")).note
    assert ("not in its vocabulary is an error here, and not 'N' as in transformers" in note) == (unknown == "N")
    assert_same_ids(read_tokenizer(Path("theirs")), tokenizers.Tokenizer.from_str(json.dumps(values)), ["A C GT", "  "])


def test_a_prefix_space_of_the_settings(tmp_path):
    folder_of(trained([]), tmp_path)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "add_prefix_space": True}))
    with pytest.raises(UserError, match="it has add_prefix_space"):
        read_tokenizer(tmp_path)


def test_a_token_that_pads_and_is_a_word_too(tmp_path):
    made = trained([])
    made.add_special_tokens(["!", "th"])
    (tmp_path / "tokenizer.json").write_text(made.to_str())
    ours = read_tokenizer(tmp_path)
    for text in ("the word!", "the!! in the beginning", " the"):
        assert ours.encode(text) == made.encode(text).ids
    assert ours.vocab_size == made.get_vocab_size()


@pytest.mark.parametrize("named", ["theirs", "theirs/tokenizer.json"])
def test_a_folder_of_transformers_names_the_tokenizer_of_a_bare_file(tmp_path, make_model, monkeypatch, named):
    monkeypatch.chdir(tmp_path)
    made = trained(ENDS["first"])
    made.post_processor = AROUND["before"](tokenizers.processors)
    folder_of(made, "theirs", eos_token="</s>")
    torch.save(make_model(vocab_size=made.get_vocab_size()).state_dict(), "state.pt")
    note = import_model("state.pt", Path("ours"), tokenizer=named, n_head=2).note
    ours = load_model(Path("ours")).tokenizer
    assert_same_ids(ours, made)
    assert ours.eot_id == 2  # what other files of the folder say counts as well
    assert "its tokenizer puts <s> before each text" in note
    with pytest.raises(UserError, match="it is one of transformers, which comes with its model: groundup import"):
        resolve_tokenizer(named)


@pytest.mark.parametrize("values", [7, [1], "model"])
@pytest.mark.parametrize("named", ["theirs", "theirs/tokenizer.json"])
def test_a_tokenizer_that_is_no_object_is_refused(tmp_path, make_model, monkeypatch, values, named):
    monkeypatch.chdir(tmp_path)
    Path("theirs").mkdir()
    Path("theirs/tokenizer.json").write_text(json.dumps(values))
    torch.save(make_model().state_dict(), "state.pt")
    with pytest.raises(UserError, match=r"^theirs/tokenizer\.json is not a groundup tokenizer$"):
        import_model("state.pt", Path("ours"), tokenizer=named, n_head=2)


def test_ids_in_any_order_survive_a_model_folder(tmp_path, make_model):
    ours = ByteBPE([(108, 108), (104, 101)], ids=[*range(3, 259), 0, 2, 1])
    save_model(tmp_path / "m", make_model(vocab_size=259), ours, {})
    again = load_model(tmp_path / "m").tokenizer
    assert again.encode("hell") == ours.encode("hell") == [2, 0]
    assert again.eot_id == 1
    shutil.rmtree(tmp_path / "m")


_CLS, _SEP = ("<s>", 0), ("</s>", 2)
AROUND = {
    "template": lambda p: p.TemplateProcessing(single="<s> $A </s>", special_tokens=[_CLS, _SEP]),
    "before": lambda p: p.TemplateProcessing(single="<s> $A", special_tokens=[_CLS]),
    "twice": lambda p: p.TemplateProcessing(single="<s> <pad> $A", special_tokens=[_CLS, ("<pad>", 1)]),
    "bert": lambda p: p.BertProcessing(_SEP, _CLS),
    "roberta": lambda p: p.RobertaProcessing(_SEP, _CLS),
    "sequence": lambda p: p.Sequence([p.ByteLevel(), AROUND["template"](p)]),
    "offsets": lambda p: p.ByteLevel(trim_offsets=True),
}


@pytest.mark.parametrize("case", AROUND)
def test_what_is_put_around_a_text_is_said(tmp_path, make_hf, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    made = trained(ENDS["first"])
    made.post_processor = AROUND[case](tokenizers.processors)
    make_hf(vocab_size=made.get_vocab_size()).save_pretrained("theirs")
    folder_of(made, "theirs", eos_token="</s>")
    note = import_model("theirs", Path("ours")).note
    ours = load_model(Path("ours")).tokenizer
    assert_same_ids(ours, made)
    said = next((line for line in note.splitlines() if "puts" in line), "")
    assert bool(said) == (case != "offsets")
    if said:
        advice = re.search(r"encode\('(.*)TEXT(.*)', allow", said)
        for text in TEXTS:
            assert ours.encode(text.join(advice.groups()), allow_special=True) == made.encode(text).ids


def test_a_post_processor_that_nobody_knows_is_named(tmp_path):
    bert = {"type": "BertProcessing", "sep": ["b", 1], "cls": ["a", 0]}
    for steps, name in (([{"type": "Novel"}], "Novel"), ([bert, bert], "Sequence (BertProcessing, BertProcessing)")):
        values = {"post_processor": {"type": "Sequence", "processors": steps}}
        (tmp_path / "tokenizer.json").write_text(json.dumps(values))
        assert framing(tmp_path) == f"its post_processor {name} is not applied: ids are those of the text alone"


def test_a_beginning_that_the_settings_ask_for(tmp_path):
    trained(ENDS["first"]).model.save(str(tmp_path))
    said = {
        "tokenizer_class": "GPT2Tokenizer",
        "bos_token": "<s>",
        "unk_token": "</s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(said | {"add_bos_token": True}))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert "puts <s> before each text" in framing(tmp_path)
    assert read_tokenizer(tmp_path).encode("<s>the word", allow_special=True) == theirs("the word").input_ids


def in_parts(folder):
    """The older form of a folder: vocab.json and merges.txt, and the added tokens among the settings."""
    made = json.loads((folder / "tokenizer.json").read_text())
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in made["model"]["merges"]]
    (folder / "vocab.json").write_text(json.dumps(made["model"]["vocab"]))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
    config = folder / "tokenizer_config.json"
    listed = {token["id"]: token for token in made["added_tokens"]}
    config.write_text(json.dumps(json.loads(config.read_text()) | {"added_tokens_decoder": listed}))
    (folder / "tokenizer.json").unlink()


ADDED = [
    "bear",
    "bears",
    "the",
    tokenizers.AddedToken("<left>", lstrip=True),
    tokenizers.AddedToken("<right>", rstrip=True),
    tokenizers.AddedToken("<both>", lstrip=True, rstrip=True),
    tokenizers.AddedToken("word", single_word=True),
    tokenizers.AddedToken(" beginning"),
]
BESIDE = [
    "the bear and the bears, unbearable",
    "a  <left>  b<left>",
    "a \n<right> \t\u3000b <right><left> ",
    "  <both>  <both><both> x",
    "word words a word_ word,word Wordword word\u0301",
    "In the beginning was the  beginningbear",
    "the" * 9,
]


@pytest.mark.parametrize("whole", [True, False])
def test_added_tokens_are_found_as_transformers_finds_them(tmp_path, make_hf, monkeypatch, whole):
    monkeypatch.chdir(tmp_path)
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=trained([]), eos_token="</s>")
    theirs.add_tokens(ADDED)
    make_hf(vocab_size=len(theirs)).save_pretrained("theirs")
    theirs.save_pretrained("theirs")
    if not whole:
        in_parts(Path("theirs"))
    note = import_model("theirs", Path("ours")).note
    assert "added tokens are found in every text, as in transformers: bear, bears, the" in note.replace("  ", " ")
    assert "special tokens are kept: </s>" in note
    ours = load_model(Path("ours")).tokenizer
    for text in BESIDE:
        assert ours.encode(text) == ours.encode_array(text).tolist() == theirs.encode(text)
        assert ours.encode(f"{text}</s>", allow_special=True) == theirs.encode(f"{text}</s>")
    assert_same_ids(ours, theirs)
    export_model(Path("ours"), Path("again"), "hf")
    again = transformers.AutoTokenizer.from_pretrained("again")
    for text in BESIDE:
        assert again.encode(f"{text}</s>") == theirs.encode(f"{text}</s>")


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([*map(str, ADDED), " ", "\n", "s", "é", "_", "</s>", "In"]), max_size=12).map("".join))
def test_added_tokens_side_by_side(text):
    theirs, ours = _both()
    ids = theirs.encode(text, add_special_tokens=False)
    assert ours.encode(text, allow_special=True) == ids


@functools.cache
def _both():
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=trained([]), eos_token="</s>")
    theirs.add_tokens(ADDED)
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        return theirs, read_tokenizer(Path(folder))


def test_added_tokens_of_the_older_list_are_special_where_they_have_a_role(tmp_path):
    made = trained(["<|endoftext|>"])
    made.model.save(str(tmp_path))
    n = made.get_vocab_size()
    (tmp_path / "added_tokens.json").write_text(json.dumps({"[PAD]": n, "bear": n + 1}))
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"pad_token": {"content": "[PAD]"}}))
    ours = read_tokenizer(tmp_path)
    assert n + 1 in ours.encode("a bear[PAD]")
    assert n not in ours.encode("a bear[PAD]")
    assert ours.settings == {"pad_token": "[PAD]"}


CHAT = "{% for m in messages %}<|user|>{{ m.content }}{% endfor %}"
ROLES = {
    "pad": {"pad_token": "[PAD]"},
    "pad is the end": {"pad_token": "<|endoftext|>"},
    "many": {"bos_token": "<s>", "pad_token": "[PAD]", "mask_token": "<mask>", "sep_token": "<sep>"},
    "chat": {"pad_token": "[PAD]", "additional_special_tokens": ["<|user|>", "<|bot|>"]},
}


@pytest.mark.parametrize(("case", "published"), [*((case, False) for case in ROLES), ("pad is the end", True)])
def test_the_roles_of_special_tokens_go_there_and_back(tmp_path, make_hf, monkeypatch, gpt2, case, published):
    monkeypatch.chdir(tmp_path)
    if published:
        Path("gpt2").mkdir()
        for name, text in tokenizer_files(gpt2, 1024).items():
            Path("gpt2", name).write_text(text, "utf-8")
        theirs = transformers.AutoTokenizer.from_pretrained("gpt2")
    else:
        made = trained(["<|endoftext|>"])
        theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|endoftext|>")
    theirs.add_special_tokens(ROLES[case])
    theirs.chat_template, theirs.padding_side = CHAT, "left"
    model = make_hf(vocab_size=len(theirs), pad_token_id=theirs.pad_token_id, eos_token_id=theirs.eos_token_id)
    model.save_pretrained("theirs")
    theirs.save_pretrained("theirs")
    theirs = transformers.AutoTokenizer.from_pretrained("theirs")
    import_model("theirs", Path("ours"))
    ours = load_model(Path("ours")).tokenizer
    save_model(Path("trained"), load_model(Path("ours")).model, ours, {})  # as a run does that begins with it
    export_model(Path("trained"), Path("again"), "hf")
    again = transformers.AutoTokenizer.from_pretrained("again")
    assert again.special_tokens_map == theirs.special_tokens_map
    assert (again.chat_template, again.padding_side) == (CHAT, theirs.padding_side)
    for role in ("bos", "eos", "pad"):
        name = f"{role}_token_id"
        assert getattr(again, name) == getattr(theirs, name)
    config = transformers.AutoConfig.from_pretrained("again")
    assert (config.pad_token_id, config.eos_token_id) == (theirs.pad_token_id, theirs.eos_token_id)
    assert again("<|user|>hi[PAD]").input_ids == theirs("<|user|>hi[PAD]").input_ids


def test_roles_do_not_make_another_tokenizer(gpt2):
    """They decide no id: data that was prepared goes on with it."""
    padded = load_gpt2(settings={"pad_token": "<|endoftext|>"})
    assert padded.fingerprint == gpt2.fingerprint
    assert padded.to_dict() != gpt2.to_dict()
    with pytest.raises(UserError, match="settings of GPT-2's tokenizer must be an object"):
        type(gpt2).from_dict({**gpt2.to_dict(), "settings": []})


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"matching": {"zebra": ["always"]}}, "'zebra' is to be found in text, and is not among the tokens"),
        (
            {"matching": {"he": ["sometimes"]}},
            "found by always, single_word, lstrip, rstrip, normalized, not by sometimes",
        ),
        ({"matching": ["he"]}, "matching of a byte pair encoding must be lists of flags by token"),
        ({"settings": "none"}, "settings of a byte pair encoding must be an object"),
    ],
)
def test_ways_to_find_tokens_that_there_are_not(change, fault):
    values = ByteBPE([(104, 101)]).to_dict()
    with pytest.raises(UserError, match=fault):
        ByteBPE.from_dict(values | change)
