import json
import re
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import pytest

from groundup.config.errors import UserError
from groundup.config.io import dump_json, to_dict
from groundup.config.presets import RECIPES
from groundup.records.report import _time, time_line, write_report

RUN = {
    "groundup": "0.1.0 (abc)",
    "started": "2026-01-01T00:00:00+00:00",
    "command": "groundup train shakespeare --data.path 'a <b>.txt'",
    "machine": {"device": "Xeon <Gold>", "cpu cores": 2},
    "resolved": {"precision": "fp32", "compile": "off"},
    "data_fingerprint": "00",
    "parameters": 801_664,
    "bigram_loss": 2.4567,
    "config": to_dict(RECIPES["shakespeare"]),
}
ROWS = [
    {"step": 0, "tokens": 0, "seconds": 0.0, "val/loss": 4.2, "val/bpb": 6.0},
    {"step": 10, "tokens": 1000, "seconds": 1.0, "train/loss": 3.0, "perf/tokens_per_sec": 1000.0},
    {"step": 10, "sample": "first <script>alert(1)</script>"},
    {"step": 20, "tokens": 2000, "seconds": 2.0, "train/loss": 2.0, "perf/tokens_per_sec": 1000.0},
    {"step": 20, "tokens": 2000, "seconds": 2.0, "val/loss": 1.2345, "val/bpb": 1.8},
    {"step": 20, "sample": "ROMEO:\nlast & best é"},
]


def folder(tmp_path, *, name="my run", run=RUN, rows=ROWS):
    path = tmp_path / name
    path.mkdir()
    (path / "run.json").write_text(dump_json(run))
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


class Page(HTMLParser):
    """Every tag with its attributes, and all text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.data = [], "", ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self.tags.append((f"/{tag}", {}))

    def handle_data(self, data):
        tag, attributes = self.tags[-1] if self.tags else ("", {})
        if attributes.get("id") == "data":
            self.data = data
        elif tag not in ("script", "style") or not data.strip():
            self.text += data


def report(path):
    write_report(path)
    return Page((path / "report.html").read_text(encoding="utf-8"))


def test_one_file_that_loads_nothing(tmp_path):
    path = folder(tmp_path)
    for tag, attributes in report(path).tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "img")
        assert {"src", "href", "srcset", "poster", "action"}.isdisjoint(attributes), tag
    source = (path / "report.html").read_text()
    for word in ("http:", "https:", "url(", "@import", "fetch(", "import("):
        assert word not in source


@pytest.mark.parametrize("sheet", ["records/page/report.css", "serving/page/style.css"])
def test_letters_are_as_large_as_the_reader_wants_them(sheet):
    """A size in pixels takes no notice of the one that is set in the browser."""
    css = (resources.files("groundup") / sheet).read_text(encoding="utf-8")
    assert not re.findall(r"font(?:-size)?:[^;}]*\dpx", css)


def test_curves_begin_after_the_first_step(tmp_path):
    """A straight line from the loss of random weights to the first validation would be no measurement."""
    path = folder(tmp_path)
    data = json.loads(report(path).data)
    assert [line["name"] for line in data["lines"]] == ["training, smoothed", "validation"]
    training, validation = ([point[2:] for point in line["points"]] for line in data["lines"])
    keys = re.findall(r"<span class='key (\w+)'>([^<]+)", (path / "report.html").read_text(encoding="utf-8"))
    assert keys[:2] == [("training", "training, smoothed"), ("validation", "validation")]
    assert training == [[1000, 3.0], [2000, 2.0]]
    assert validation == [[2000, 1.2345]]


PART = {"step": 10, "tokens": 1000, "seconds": 1.0, "val/loss": 0.9967, "val/bpb": 1.4, "val/tokens": 65536}


def test_a_loss_of_a_part_of_the_split_is_drawn_only_before_the_whole(tmp_path):
    page = report(folder(tmp_path, rows=[*ROWS[:3], PART, *ROWS[3:]]))  # of which the first is of the whole
    validation = json.loads(page.data)["lines"][1]["points"]
    assert [point[2:] for point in validation] == [[2000, 1.2345]]
    assert "after step 10, training loss 3.000" in page.text
    page = report(folder(tmp_path, name="early", rows=[*ROWS[:3], PART]))
    assert [point[2:] for point in json.loads(page.data)["lines"][1]["points"]] == [[1000, 0.9967]]
    assert "about 1.00nats of loss on text that it has never seen, measured on 65,536 tokens of it" in page.text
    assert "last validation loss" not in page.text


def test_three_numbers_in_words(tmp_path):
    text = report(folder(tmp_path, run={**RUN, "resolved": {"vocab_size": 65}})).text
    assert "1.234nats of loss on text that it has never seen: as unsure of the next token as among 3.4 equally" in text
    assert "before training it was 65" in text
    assert "2ktokens read, in 20 steps" in text


def test_commands_are_for_the_folder_where_the_run_lies(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder(tmp_path, name="moved", rows=[*ROWS, {"step": 20, "event": "stopped"}])
    text = report(Path("moved")).text
    for command in ("train --resume moved", "serve moved", "generate moved --stream"):
        assert f"groundup {command}" in text


PORTRAIT = {
    "tokens": ["a", "<", "\n"], "surprise": [None, 0.5, 3.0], "layer": 1, "head": 2, "kind": "previous",
    "attention": [[1.0], [0.75, 0.25], [0.0, 1.0, 0.0]],
}  # fmt: skip


def test_a_line_tinted_by_surprise_and_a_head(tmp_path):
    path = folder(tmp_path)
    (path / "portrait.json").write_text(json.dumps(PORTRAIT))
    page = report(path)
    tinted = [attributes for tag, attributes in page.tags if tag == "i" and "style" in attributes]
    assert [tint["title"] for tint in tinted] == ["", "0.50 nats", "3.00 nats"]
    shades = [float(re.search(r"/ ([\d.]+)", tint["style"])[1]) for tint in tinted]
    assert shades == sorted(shades)
    assert "Layer 1, head 2, which looks mostly at the token before" in page.text
    assert json.loads(page.data)["attention"] == PORTRAIT["attention"]


def test_a_head_whose_pattern_is_weak_is_not_said_to_have_one(tmp_path):
    path = folder(tmp_path)
    (path / "portrait.json").write_text(json.dumps({**PORTRAIT, "kind": None}))
    text = report(path).text
    assert "No head has a clear pattern. Layer 1, head 2 comes closest. Point" in text
    assert "which looks" not in text


def test_a_damaged_portrait_is_one_clear_line(tmp_path):
    path = folder(tmp_path)
    (path / "portrait.json").write_text(json.dumps({**PORTRAIT, "layer": "x"}))
    with pytest.raises(UserError, match=r"portrait\.json: layer must be int"):
        write_report(path)


def test_a_portrait_with_a_token_too_few_is_one_clear_line(tmp_path):
    path = folder(tmp_path)
    (path / "portrait.json").write_text(json.dumps({**PORTRAIT, "tokens": ["a", "b"]}))
    with pytest.raises(UserError, match="must be equally long"):
        write_report(path)


def test_no_text_ends_the_script(tmp_path):
    path = folder(tmp_path, name="a<!--<script>")
    (path / "portrait.json").write_text(json.dumps({**PORTRAIT, "tokens": ["</script>", "b", "c"]}))
    page = report(path)
    assert (path / "report.html").read_text().count("</script>") == 2
    assert [tag for tag, _ in page.tags].count("script") == 2


def test_it_says_how_it_went_on_which_machine_and_how_to_do_it_again(tmp_path):
    text = report(folder(tmp_path)).text
    for fact in (
        "my run", "801,664", "2.4567", "1.2345 at step 20", "(1.800 bits per byte)", "20, 2k", "1k tokens/s",
        "Xeon <Gold>", "fp32", RUN["command"], "0.1.0 (abc)", "after step 10", "ROMEO:\nlast & best é",
        "first <script>alert(1)</script>",
    ):  # fmt: skip
        assert fact in text, fact
    config = re.search(r"config\.json(\{.*?\n\})", text, re.DOTALL)
    assert json.loads(config[1]) == RUN["config"]


def test_a_sample_between_two_losses_has_the_one_before_it(tmp_path):
    between = {"step": 15, "sample": "between"}
    page = report(folder(tmp_path, rows=[*ROWS[:3], between, *ROWS[3:]]))
    assert "after step 15, training loss 3.000 at step 10" in page.text


def test_only_the_last_sample_is_shown_until_the_slider_moves(tmp_path):
    page = report(folder(tmp_path))
    samples = [attributes for tag, attributes in page.tags if tag == "div" and attributes.get("class") == "sample"]
    assert ["hidden" in attributes for attributes in samples] == [True, False]
    assert [attributes["data-share"] for attributes in samples] == ["0.5000", "1.0000"]
    assert "after step 10, training loss 3.000" in page.text
    assert "after step 20, validation loss 1.234" in page.text


@pytest.mark.parametrize(
    ("kept", "says", "order"),
    [
        (10, "the weights that were kept, after step 10, training loss 3.000", ["10", "20"]),
        (0, "the weights that were kept, before the first step, validation loss 4.200", ["0", "10", "20"]),
    ],
)
def test_the_last_sample_stands_at_the_step_of_the_weights_that_wrote_it(tmp_path, kept, says, order):
    """A run that ends at step 30 keeps the weights of an earlier step, or those it began with."""
    end = [
        {"step": 30, "tokens": 3000, "seconds": 3.0, "val/loss": 5.0, "val/bpb": 7.0},
        {"step": 30, "kept_step": kept, "sample": "by what was kept"},
    ]
    page = report(folder(tmp_path, rows=[*ROWS, *end]))
    assert says in page.text
    assert "after step 30" not in page.text
    shown = [attributes for tag, attributes in page.tags if tag == "div" and attributes.get("class") == "sample"]
    at = order.index(str(kept))
    assert ["hidden" in attributes for attributes in shown] == [i != at for i in range(len(order))]
    assert shown[at].get("data-share") == ({10: "0.3333", 0: None}[kept])
    (slider,) = [attributes for tag, attributes in page.tags if tag == "input"]
    assert (slider["max"], slider["value"]) == (str(len(order) - 1), str(at))


@pytest.mark.parametrize("name", ["<i>x & 'y'", "é", "a_$5"])
def test_any_folder_name_is_shown_as_it_is(tmp_path, name):
    page = report(folder(tmp_path, name=name))
    assert name in page.text
    assert ("i", {}) not in page.tags


def test_dollars_in_the_name_are_no_mathematics(tmp_path):
    report(folder(tmp_path, name=r"cost$_$5"))


@pytest.mark.parametrize("rows", [[], ROWS[:1], ROWS[1:2], ROWS[2:3]])
def test_a_run_that_has_little_to_show_still_has_a_report(tmp_path, rows):
    page = report(folder(tmp_path, rows=rows))
    assert "801,664" in page.text


def test_what_was_measured_names_its_step(tmp_path):
    """A run that was measured and went on has numbers of before beside a new best."""
    path = folder(tmp_path)
    tasks = {"val": {"loss": 1.5, "tokens": 9, "step": 1000}, "own": {"loss": 2.5, "tokens": 9}}
    (path / "eval.json").write_text(dump_json({"version": 1, "tasks": tasks}))
    text = report(path).text
    assert "val, step 1,000loss 1.5000" in text
    assert "ownloss 2.5000" in text


def timed(step, seconds, **parts):
    row = {"step": step, "tokens": step, "seconds": seconds, "train/loss": 1.0, "perf/tokens_per_sec": 1.0}
    return {**row, **{f"perf/{part}_ms": value for part, value in parts.items()}}


TIMED = [
    timed(1, 2.0, data=100.0, forward_backward=1500.0, optimizer=300.0),
    timed(5, 4.0, data=50.0, forward_backward=300.0, optimizer=125.0),
    {"step": 5, "tokens": 5, "seconds": 4.0, "val/loss": 1.0, "val/bpb": 1.0, "perf/eval_seconds": 1.0},
]
"""Data 0.3 s, forward and backward 2.7 s, optimizer 0.8 s: 3.8 of 4 s; evaluation 1 s."""


def test_it_says_where_the_time_went(tmp_path):
    page = report(folder(tmp_path, rows=TIMED))
    assert "forward and backward3 s54.0%" in page.text
    assert "evaluation1 s20.0%" in page.text
    widths = [tag[1]["style"] for tag in page.tags if tag[0] == "div" and "style" in tag[1]]
    assert widths == ["width:54.0%", "width:16.0%", "width:6.0%", "width:4.0%", "width:20.0%"]


def test_where_the_time_went_in_one_line_the_largest_part_first():
    assert time_line(TIMED) == (
        "time: forward and backward 54.0%, evaluation 20.0%, optimizer 16.0%, data 6.0%, rest of the step 4.0%"
    )
    assert time_line(ROWS) is None
    assert "Where the time went" not in "".join(_time(ROWS))


def test_what_was_not_measured_is_not_shown(tmp_path):
    assert "bigram" not in report(folder(tmp_path, run={**RUN, "bigram_loss": None})).text


def test_a_folder_without_a_run_is_one_clear_line(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*run\.json"):
        write_report(tmp_path)


def test_writing_it_again_leaves_no_other_files(tmp_path):
    path = folder(tmp_path)
    before = (report(path), (path / "report.html").read_bytes())
    report(path)
    assert (path / "report.html").read_bytes() == before[1]
    assert {p.name for p in path.iterdir()} == {"run.json", "metrics.jsonl", "loss.png", "report.html"}


@pytest.mark.parametrize(
    ("started", "shown"),
    [
        ("2026-01-01T01:30:00+01:00", "<span class=whole>2026-01-01 00:30 UTC</span>"),
        ("<odd>", "<span class=whole>&lt;odd&gt;</span>"),
    ],
)
def test_the_time_is_for_people_and_stays_on_one_line(tmp_path, started, shown):
    path = folder(tmp_path, run={**RUN, "started": started})
    write_report(path)
    assert shown in (path / "report.html").read_text(encoding="utf-8")
