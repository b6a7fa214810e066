import base64
import json
import re
from html.parser import HTMLParser

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
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


def report(path):
    write_report(path)
    return Page((path / "report.html").read_text(encoding="utf-8"))


def test_one_file_that_loads_nothing(tmp_path):
    path = folder(tmp_path)
    page = report(path)
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base")
        for name, value in attributes.items():
            if name in ("src", "href", "srcset", "poster", "data", "action"):
                assert value.startswith("data:"), (tag, name)
    source = (path / "report.html").read_text()
    assert "http:" not in source
    assert "https:" not in source
    assert "url(" not in source
    assert "@import" not in source


def test_it_carries_the_picture_that_lies_beside_it(tmp_path):
    path = folder(tmp_path)
    ((_, image),) = [tag for tag in report(path).tags if tag[0] == "img"]
    kind, data = image["src"].split(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(data) == (path / "loss.png").read_bytes()
    assert base64.b64decode(data).startswith(b"\x89PNG\r\n")
    assert image["alt"]


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


def test_only_the_last_sample_is_open(tmp_path):
    details = [attributes for tag, attributes in report(folder(tmp_path)).tags if tag == "details"]
    assert ["open" in attributes for attributes in details] == [False, True, False]


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
    widths = [tag[1]["style"] for tag in page.tags if tag[0] == "div"]
    assert widths == ["width:54.0%", "width:16.0%", "width:6.0%", "width:4.0%", "width:20.0%"]


def test_where_the_time_went_in_one_line_the_largest_part_first():
    assert time_line(TIMED) == (
        "time: forward and backward 54.0%, evaluation 20.0%, optimizer 16.0%, data 6.0%, rest of the step 4.0%"
    )
    assert time_line(ROWS) is None
    assert "Where the time went" not in "".join(_time(ROWS))


def test_without_a_bigram_there_is_none(tmp_path):
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
