import json

import pytest

from groundup.config.errors import UserError
from groundup.evaluation.examples import kind_of, read_choices, read_completions

GOOD = {"ctx": "ab", "endings": ["c", "d"], "label": 0}


def write(tmp_path, *lines):
    path = tmp_path / "set.jsonl"
    path.write_bytes(
        b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)
    )
    return path


def test_a_number_is_a_label_however_it_is_written(tmp_path, letters):
    path = write(tmp_path, *({"ctx": "ab", "endings": ["c", "d"], "label": label} for label in (1, "1", 1.0, " 1 ")))
    assert [example.label for example in read_choices(path, letters)] == [1, 1, 1, 1]


def test_choices_are_a_context_and_endings_after_a_space(choices, letters):
    examples = read_choices(choices, letters)
    assert [example.label for example in examples] == [0, 1, 2, 0, 1]
    assert [len(example.question.continuations) for example in examples] == [4, 3, 3, 2, 2]
    question = examples[1].question
    assert letters.decode(question.context) == "rain is falling, so she"
    assert [letters.decode(c) for c in question.continuations] == [
        " buys a boat",
        " opens her umbrella",
        " waters the roof",
    ]
    assert read_choices(choices, letters, limit=2) == examples[:2]


def test_endings_are_encoded_apart_from_the_context(tmp_path, gpt2):
    path = write(
        tmp_path, {"ctx": "A man sits on a roof. he", "endings": ["starts pulling up roofing.", "x"], "label": 0}
    )
    question = read_choices(path, gpt2)[0].question
    assert question.context == gpt2.encode("A man sits on a roof. he")
    assert question.continuations[0] == gpt2.encode(" starts pulling up roofing.")


def test_completions_are_all_but_the_last_word(completions, letters):
    examples = read_completions(completions, letters)
    pairs = [(letters.decode(e.question.context), letters.decode(e.question.continuations[0])) for e in examples]
    assert pairs[0] == ("she put the kettle on and made a pot of", " tea")
    assert len(read_completions(completions, letters, limit=1)) == 1


def test_an_empty_context_starts_a_document(tmp_path, letters, gpt2):
    path = write(tmp_path, {**GOOD, "ctx": ""})
    assert read_choices(path, gpt2)[0].question.context == [50256]
    with pytest.raises(UserError, match="line 1: the context is empty, and this tokenizer has no separator"):
        read_choices(path, letters)


def test_empty_lines_and_a_byte_order_mark_do_no_harm(tmp_path, letters):
    path = write(tmp_path, b"\xef\xbb\xbf" + json.dumps(GOOD).encode(), b"", b"  \r", GOOD)
    assert len(read_choices(path, letters)) == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"ctx": "a", ', "it is not JSON (Expecting property name enclosed in double quotes, character 13)"),
        (b"\xff\xfe", "it is not UTF-8"),
        (b"[1]", "it is not a JSON object"),
        (b"[" * 100_000, "it is not JSON ("),
        ({**GOOD, "ctx": None}, '"ctx" must be a string, got null'),
        ({"endings": ["a", "b"], "label": 0}, '"ctx" must be a string, got null'),
        ({**GOOD, "endings": ["a"]}, '"endings" must be a list of at least two strings'),
        ({**GOOD, "endings": "ab"}, '"endings" must be a list of at least two strings'),
        ({**GOOD, "endings": ["a", ""]}, "ending 1 must be a string of at least one character"),
        ({**GOOD, "endings": [3, "a"]}, "ending 0 must be a string of at least one character"),
        ({**GOOD, "label": 2}, '"label" must be from 0 to 1, got 2'),
        ({**GOOD, "label": -1}, '"label" must be from 0 to 1, got -1'),
        ({**GOOD, "label": "2"}, '"label" must be from 0 to 1, got 2'),
        ({**GOOD, "label": 0.5}, '"label" must be from 0 to 1, got 0.5'),
        ({**GOOD, "label": 2.0}, '"label" must be from 0 to 1, got 2'),
        ({**GOOD, "label": True}, '"label" must be from 0 to 1, got true'),
        ({"ctx": "a", "endings": ["a", "b"]}, '"label" must be from 0 to 1, got null'),
    ],
)
def test_a_bad_line_is_left_out_and_named(tmp_path, letters, line, message):
    said = []
    good = read_choices(write(tmp_path, GOOD, GOOD), letters)
    path = write(tmp_path, GOOD, b"", line, GOOD)
    assert read_choices(path, letters, say=said.append) == good
    (told,) = said
    assert told.startswith(f"left out 1 of 3 lines of {path}, which is no example: line 3: {message}")
    assert "\n" not in told
    with pytest.raises(UserError) as caught:
        read_choices(write(tmp_path, b"", line), letters)
    assert str(caught.value).startswith(f"{path}, line 2: {message}")
    assert "\n" not in str(caught.value)


def test_many_bad_lines_are_counted_and_some_named(tmp_path, letters):
    said = []
    bad = [b"{", b"[1]", {"text": "a b"}, b"\xff", b"{"]
    path = write(tmp_path, *bad[:2], GOOD, *bad[2:], {**GOOD, "ctx": "A"})
    assert len(read_choices(path, letters, say=said.append)) == 1
    first, second = said
    assert first.startswith(f"left out 5 of 7 lines of {path}, which are no examples: line 1: it is not JSON (")
    assert first.endswith('; line 2: it is not a JSON object; line 4: "ctx" must be a string, got null; and 2 more')
    assert second.startswith(f"left out 1 of 2 examples of {path}, which have characters")
    with pytest.raises(UserError) as caught:
        read_choices(write(tmp_path, *bad), letters)
    assert str(caught.value).startswith(f"{path}, line 1: it is not JSON (")
    assert str(caught.value).endswith("; nor is any of the 4 lines after it an example")


def test_examples_in_other_characters_are_left_out_and_told(tmp_path, letters):
    said = []
    path = write(tmp_path, {**GOOD, "ctx": "A"}, GOOD, {**GOOD, "endings": ["7", "b"]}, GOOD, {**GOOD, "ctx": "A7"})
    assert read_choices(path, letters, say=said.append) == read_choices(write(tmp_path, GOOD, GOOD), letters)
    known = "have characters that the tokenizer does not know: "
    assert said.pop() == f"left out 3 of 5 examples of {path}, which {known}'A', '7'"
    path = write(tmp_path, {"text": "a word"}, {"text": "a Word"})
    assert len(read_completions(path, letters, say=said.append)) == 1
    assert said == [f"left out 1 of 2 examples of {path}, which {known}'W'"]
    with pytest.raises(UserError) as caught:
        read_choices(write(tmp_path, {**GOOD, "ctx": "A"}), letters)
    assert str(caught.value) == f"nothing is left of {path}: all its examples {known}'A'"


def test_where_nothing_is_left_lines_at_fault_are_told_beside_other_characters(tmp_path, letters):
    left = "nothing is left of {}: all its examples have characters that the tokenizer does not know: 'A'; "
    for bad, told in (
        ([b"[1]"], "1 other line is no example: line 2: it is not a JSON object"),
        (
            [b"[1]", b"\xff", {**GOOD, "ctx": 1}, b"[1]", b"[1]"],
            "5 other lines are no examples: line 2: it is not a JSON object; line 3: it is not UTF-8;"
            ' line 4: "ctx" must be a string, got 1; and 2 more',
        ),
    ):
        path = write(tmp_path, {**GOOD, "ctx": "A"}, *bad)
        with pytest.raises(UserError) as caught:
            read_choices(path, letters)
        assert str(caught.value) == left.format(path) + told


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"text": 3}, '"text" must be a string, got 3'),
        ({"text": "word"}, '"text" must end in a space and a word'),
        ({"text": "a word "}, '"text" must end in a space and a word'),
        ({"words": "a b"}, '"text" must be a string, got null'),
    ],
)
def test_a_bad_completion_is_left_out_and_named(tmp_path, letters, line, message):
    said = []
    path = write(tmp_path, {"text": "a b"}, line)
    assert len(read_completions(path, letters, say=said.append)) == 1
    assert said == [f"left out 1 of 2 lines of {path}, which is no example: line 2: {message}"]


def test_the_first_line_that_says_it_tells_the_kind(tmp_path, choices, completions):
    assert (kind_of(choices), kind_of(completions)) == ("choice", "completion")
    assert kind_of(write(tmp_path, b"{", {"question": "?"}, {"text": "a b"}, GOOD)) == "completion"
    with pytest.raises(UserError, match=r'line 1: it has neither "endings" \(multiple choice\) nor "text"'):
        kind_of(write(tmp_path, {"question": "?"}))


def test_a_file_without_examples(tmp_path, letters):
    path = write(tmp_path, b"", b"")
    for read in (kind_of, lambda p: read_choices(p, letters), lambda p: read_completions(p, letters)):
        with pytest.raises(UserError, match="holds no examples"):
            read(path)
        with pytest.raises(UserError, match=r"cannot read .*gone: No such file"):
            read(tmp_path / "gone")
