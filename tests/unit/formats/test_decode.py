import gzip
import os
import quopri
import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.cli.main import main
from groundup.config.data import DataConfig
from groundup.config.errors import UserError
from groundup.formats.decode import decode_text, read_text, text_chunks
from groundup.prepare.corpus import open_corpus
from groundup.tokenizer.base import END_OF_TEXT

TEXT = "".join(f"line {i}\n" for i in range(100))


def splits(path, tmp_path, **options):
    dataset = open_corpus(DataConfig(source="text", path=path, cache_dir=tmp_path / "cache", **options))
    tokenizer = dataset.tokenizer()
    return [tokenizer.decode(dataset.split(name).read_all().tolist()) for name in ("train", "val")]


@settings(max_examples=25, deadline=None)
@given(st.text(st.characters(exclude_characters="\0\r\ufeff", codec="utf-8"), min_size=2), st.floats(0.01, 0.99))
def test_nothing_is_lost_and_both_sides_have_text(tmp_path_factory, text, val_fraction):
    folder = tmp_path_factory.mktemp("text")
    (folder / "a.txt").write_bytes(text.encode())
    train, val = splits(folder / "a.txt", folder, val_fraction=val_fraction)
    assert train + val == text
    assert train
    assert val


@pytest.mark.parametrize(
    ("text", "val"),
    [
        (TEXT, "".join(f"line {i}\n" for i in range(90, 100))),
        ("x" * 100, "x" * 10),
        ("x" * 99 + "\n", "x" * 9 + "\n"),
        ("word " * 1800 + "\nend", "word " * 179 + "\nend"),
        ("one line. " * 800 + "\n\n" + "y" * 950 + "\n" + "z" * 10, "y" * 950 + "\n" + "z" * 10),
    ],
    ids=["lines", "one line", "one line ended", "a long line, then a short one", "a paragraph near"],
)
def test_one_text_is_cut_near_the_share(tmp_path, text, val):
    (tmp_path / "a.txt").write_text(text)
    got = splits(tmp_path / "a.txt", tmp_path)
    assert got[0] + got[1] == text
    assert 0.05 * len(text) <= len(got[1]) <= 0.15 * len(text)
    assert got[1] == val


def test_many_documents_are_held_out_whole(tmp_path):
    (tmp_path / "in").mkdir()
    letters = [f"Dear {k},\n{'word ' * (k % 7 + 3)}\nYours, {k}" for k in range(60)]
    for k, letter in enumerate(letters):
        (tmp_path / "in" / f"{k:03}.txt").write_text(letter)
    train, val = (text.split(END_OF_TEXT) for text in splits(tmp_path / "in", tmp_path))
    assert train.pop() == val.pop() == ""
    assert sorted(train + val) == sorted(letters)
    assert 0.05 < len("".join(val)) / len("".join(letters)) < 0.2


def test_a_few_files_are_cut_in_the_largest_without_an_end_in_its_middle(tmp_path):
    (tmp_path / "in").mkdir()
    for name, size in (("a", 100), ("b", 120)):
        (tmp_path / "in" / f"{name}.txt").write_text(f"{name}\n" * size)
    train, val = splits(tmp_path / "in", tmp_path)
    assert train == "a\n" * 100 + END_OF_TEXT + "b\n" * 98
    assert val == "b\n" * 22 + END_OF_TEXT


def test_what_is_hidden_is_never_read(tmp_path):
    (tmp_path / "in" / ".git").mkdir(parents=True)
    (tmp_path / "in" / "a.txt").write_text(TEXT)
    for name in (".git/x.md", ".hidden.txt"):
        (tmp_path / "in" / name).write_text("SECRET")
    assert "".join(splits(tmp_path / "in", tmp_path)) == TEXT


def test_a_separator_makes_documents_and_its_spelling_is_told(tmp_path):
    stories = [f"Story {k} of {'many ' * (k % 5)}words." for k in range(50)]
    (tmp_path / "a.txt").write_text("\n<|endoftext|>\n".join(stories) + "\n<|endoftext|>\n")
    train, val = (text.split(END_OF_TEXT)[:-1] for text in splits(tmp_path / "a.txt", tmp_path, separator=END_OF_TEXT))
    assert sorted(train + val) == sorted(stories)
    said = []
    open_corpus(DataConfig(source="text", path=tmp_path / "a.txt", cache_dir=tmp_path / "cache"), say=said.append)
    assert any("<|endoftext|> stands in the text 50 times and is read as plain characters" in line for line in said)
    (tmp_path / "b.txt").write_text("\n".join(stories))
    train, val = (text.split(END_OF_TEXT)[:-1] for text in splits(tmp_path / "b.txt", tmp_path, separator="\\n"))
    assert sorted(train + val) == sorted(stories)


def test_a_small_split_is_told(tmp_path):
    (tmp_path / "a.txt").write_text(TEXT)
    said = []
    config = DataConfig(source="text", path=tmp_path / "a.txt", cache_dir=tmp_path / "cache")
    open_corpus(config, say=said.append, block_size=64)
    assert any("the validation split has 80 tokens, less than 4 blocks of 64" in line for line in said)


def test_line_ends_and_marks_are_made_equal():
    data = b"\xef\xbb\xbfone\r\ntwo\rthree\n"
    assert decode_text(data, "a.txt") == "one\ntwo\nthree\n"
    for size in range(1, len(data)):
        chunks = [data[at : at + size] for at in range(0, len(data), size)]
        assert "".join(text_chunks(chunks, "a.txt")) == "one\ntwo\nthree\n"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be", "cp1252"])
def test_the_encoding_is_named_and_the_advice_works(tmp_path, encoding):
    text = "He said \u201cno\u201d \u2013 it\u2019s caf\u00e9.\n" * 20
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode(encoding))
    with pytest.raises(UserError, match="convert it first: iconv ") as caught:
        decode_text(path.read_bytes(), str(path))
    command = str(caught.value).partition("convert it first: ")[2].removesuffix(" > NEW")
    converted = subprocess.run(shlex.split(command), capture_output=True, check=True).stdout
    assert decode_text(converted, "NEW") == text


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("ISO-2022-JP", "彼は「いいえ」と言った。\n"),
        ("ISO-2022-JP-2", "彼は café と言った。\n"),
        ("ISO-2022-JP-3", "ｱｲｳ 彼は言った。\n"),
        ("ISO-2022-KR", "그는 아니라고 말했다.\n"),
        ("ISO-2022-CN", "他说不。\n"),
        ("UTF-7", "Größe + Übermut; naïve cafés, sagte er.\n"),
        ("UTF-7", "彼は「いいえ」と言った。\n"),
        ("UTF-7", "Привет, мир!\n"),
        ("HZ", "他说不。\n"),
        ("quoted-printable", "Le café était fermé = closed.\n"),
    ],
)
def test_encodings_of_ascii_bytes_are_named_and_the_advice_works(tmp_path, encoding, text):
    def encoded(text):
        if encoding == "HZ":
            return text.encode("hz")
        if encoding == "quoted-printable":
            return quopri.encodestring(text.encode())
        to = ["iconv", "-f", "UTF-8", "-t", encoding]
        return subprocess.run(to, input=text.encode(), capture_output=True, check=True).stdout

    data = encoded("x 1\n" + text * 20)  # iconv's UTF-7 has no =
    assert data.isascii()
    (path := tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(UserError, match=rf"is {encoding}; convert it first: ") as caught:
        decode_text(data, str(path))
    assert converted(caught.value) == "x 1\n" + text * 20
    for size in (40, 41, 1000) if encoding.startswith("ISO") else (200, 201, 1000):
        with pytest.raises(UserError, match=r"is (ISO-2022-|UTF-7|HZ|quoted).*; convert it first"):
            list(text_chunks([data[at : at + size] for at in range(0, len(data), size)], "a.txt"))
    (path := tmp_path / "a.jsonl").write_bytes(encoded(f'{{"text": "{text[:-1]}"}}\n' * 20))
    with pytest.raises(UserError, match=r"is (ISO-2022-|UTF-7|HZ|quoted).*; convert it first"):
        splits(path, tmp_path)


def converted(error):
    """What comes of following an error's advice."""
    command = str(error).partition("convert it first: ")[2].removesuffix(" > NEW")
    return decode_text(subprocess.run(command, shell=True, capture_output=True, check=True).stdout, "NEW")


@pytest.mark.parametrize("direct", [True, False])
def test_utf_7_in_sound_json_is_named(tmp_path, direct):
    """Python's UTF-7 leaves quotes and braces as they are, so that each line is JSON."""
    lines = "".join(f'{{"text": "{k}: Größe"}}\n' for k in range(20)).encode("utf-7")
    path = tmp_path / ("a.jsonl" if direct else "a.jsonl.gz")
    path.write_bytes(lines if direct else gzip.compress(lines))
    with pytest.raises(UserError, match=r"is UTF-7; convert it first"):
        splits(path, tmp_path)


OLD = [
    (
        "cp1252 mac-roman",
        "Le café était fermé, et l\u2019hôtel où nous étions allés n\u2019avait plus de chambre. Ça va.",
    ),
    ("cp1252 mac-roman cp437", "Die Größe der Straße überraschte mich; schöne Häuser und fünf Bäume. Übermut tut gut."),
    ("cp1252 mac-roman cp437", "El niño comió una manzana mañana por la mañana. ¿Qué pasó? Ningún señor está aquí."),
    ("cp1250 iso8859-2", "Zażółć gęślą jaźń. Pchnąć w tę łódź jeża lub ośm skrzyń fig."),
    ("cp1250 iso8859-2", "Příliš žluťoučký kůň úpěl ďábelské ódy. Dívka četla knížku."),
    ("cp1254", "Çocuk güneşli günde bahçeye gitti, şimdi öğretmen ağaçta oturuyor."),
    ("cp1251 koi8-r cp866 iso8859-5", "Книга лежит на столе, собака спит на ковре. Девочка читала."),
    ("cp1253 iso8859-7", "το βιβλίο είναι στο τραπέζι και σκύλος κοιμάται στο χαλί."),
    ("euc_kr", "책은 책상 위에 있고 개는 양탄자 위에서 잔다. 소녀는 읽고 있었다."),
    ("gb2312", "书在桌子上。狗在地毯上睡觉。她正在看书的时候、父亲回家了。"),
    ("big5", "書在桌子上。狗在地毯上睡覺。她正在看書的時候、父親回家了。"),
    ("shift_jis euc_jp", "本は机の上にあります。犬は絨毯の上で眠っています。"),
]


@pytest.mark.parametrize(("encoding", "text"), [(each, text) for names, text in OLD for each in names.split()])
def test_older_encodings_are_shown_and_the_advice_works(tmp_path, encoding, text):
    lines = text + "\n"
    (path := tmp_path / "a b.txt").write_bytes(lines.encode(encoding))
    with pytest.raises(UserError, match=r"is not UTF-8 \(byte [0-9]+ is 0x..\); as \S+ it reads '") as caught:
        decode_text(path.read_bytes(), str(path))
    assert converted(caught.value) == lines
    assert str(caught.value).partition("it reads '")[2].partition("'")[0] in lines


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("text", ["Книга лежит на столе.\n", "书在桌子上 狗在睡觉\n", "hi there\n"])
def test_wide_encodings_without_a_mark(tmp_path, text, encoding):
    (path := tmp_path / "a.txt").write_bytes((text * 5).encode(encoding))
    with pytest.raises(UserError, match=r"is UTF-(16|32)[LB]E; convert it first") as caught:
        decode_text(path.read_bytes(), str(path))
    assert converted(caught.value) == text * 5


@pytest.mark.parametrize(
    "text",
    [
        "\x1b[31mred\x1b[0m\x1b(B\n",
        "é \x1b$B$3 é\n",
        "cost: \x1b$5\n",
        "a+b-c +AOk-\n",
        "C++ +bag +49 x+y+z +big +dog\n",
        "a=80, b=90, c=99, d=AB\n",
        "Fig.~{\\bf 3} and~{\\it so}~\\ref{a}\n",
    ],
)
def test_other_escapes_are_text(text):
    assert decode_text(text.encode(), "a.txt") == "".join(text_chunks([text.encode()], "a.txt")) == text


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "a.txt is empty"),
        (b"abc\0def", "a.txt is not text: byte 3 is zero"),
        (b"abc\0def" * 5000, "a.txt is not text: byte 3 is zero"),
        (b"one\ntwo\0" * 5000, "a.txt is not text: byte 7 is zero"),
        ("text".encode("utf-16"), "a.txt is UTF-16; convert it first: iconv -f UTF-16 -t UTF-8"),
        (b"PK\x03\x04\x00\x00", "a.txt is a zip archive"),
        (b"\x1f\x8b\x08\x00", "a.txt is compressed by gzip, not text: name it with .gz at the end"),
        (b"%PDF-1.4\n\xe2\xe3\xcf", "a.txt is a PDF, not text"),
        ("größe ".encode() * 20 + b"\xff", "a.txt is UTF-8 with 1 damaged places"),
        (
            b"caf\xe9 au lait",
            "a.txt is not UTF-8 (byte 3 is 0xe9); as Windows-1252 it reads 'café au lait', and where that is wrong,"
            " another encoding belongs behind -f; convert it first: iconv -f WINDOWS-1252 -t UTF-8",
        ),
        (
            b"cut \xe6\xbc",
            "a.txt is UTF-8 with 1 damaged places, the first at byte 4 is 0xe6; leave them out: iconv",
        ),
        (bytes(range(0x80, 0x100)), "which its bytes do not tell: iconv -f ENCODING"),
        (b"\xed\xa0\x80 surrogate", "a.txt is not UTF-8"),
        (b"x", "too few to be split into training and validation"),
    ],
)
def test_what_is_no_text_is_told_in_one_line(tmp_path, capsys, monkeypatch, data, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_bytes(data)
    status = main(["train", "shakespeare", "--data.source=text", "--data.path=a.txt", "--max-steps=1"])
    error = capsys.readouterr().err
    assert status == 1
    assert message in error
    assert error.count("\n") == 1


def test_too_short_for_one_block(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("short\ntext\n")
    words = ["--data.source=text", "--data.path=a.txt", "--max-steps=1", "--model.block-size=16"]
    assert main(["train", "shakespeare", *words, "--tokens-per-step=256", "--runtime.compile=off"]) == 1
    error = capsys.readouterr().err
    assert "the training split has 10 tokens, too few for one block of 16" in error
    assert error.count("\n") == 1


def test_open_corpus_prepares_once_and_again_when_the_text_changes(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(TEXT)
    config = DataConfig(source="text", path=path, cache_dir=tmp_path / "cache")
    first = open_corpus(config)
    assert open_corpus(config).dir == first.dir
    assert first.split("train").n_tokens + first.split("val").n_tokens == len(TEXT)
    path.write_text(TEXT + "more\n")
    second = open_corpus(config)
    assert second.dir != first.dir
    assert second.index.fingerprint != first.index.fingerprint
    assert len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.fault(
    "B6",
    "a device without end stands where prompts are read",
    "one line that names the limit; no more than that is read",
)
def test_a_device_without_end_is_no_text(monkeypatch):
    monkeypatch.setenv("GROUNDUP_MAX_TEXT_BYTES", "1000000")
    with pytest.raises(UserError, match=r"/dev/zero takes more than 1,000,000 bytes.* GROUNDUP_MAX_TEXT_BYTES"):
        read_text(Path("/dev/zero"))


def test_a_pipe_is_a_text_as_shells_make_them_of_a_command():
    ours, theirs = os.pipe()
    os.write(theirs, "é\r\n".encode())
    os.close(theirs)
    assert read_text(Path(f"/dev/fd/{ours}")) == "é\n"
    os.close(ours)
