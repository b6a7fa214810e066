import json
import math
import os

import pytest

from groundup.config.errors import UserError
from groundup.records.metrics import Metrics, MetricsLog, load_metrics, read_metrics


def refuse(name):
    raise AssertionError(f"{name} is no JSON")


def rows_of(path):
    """Read as any other program would: a line is what ends with a newline, and JSON knows no NaN."""
    lines = path.read_bytes().split(b"\n")
    assert lines.pop() == b""
    return [json.loads(line, parse_constant=refuse) for line in lines]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


def test_every_line_is_one_json_object_in_the_order_written(path):
    log = MetricsLog(path, step=0)
    written = [
        {"step": 1, "train/loss": 3.25, "perf/mfu": 0.5},
        {"step": 1, "sample": 'ROMEO:\n\t"O, é 日本 \\ \x00 🙂"\r\n'},
        {"step": 2, "train/loss": 1e-30},
    ]
    for row in written:
        log.write(**row)
    assert rows_of(path) == written
    assert read_metrics(path) == written


def test_a_new_run_starts_with_an_empty_log(path):
    path.write_text('{"step": 0}\n{"step": 1}\n')
    MetricsLog(path, step=0)
    assert path.read_bytes() == b""


def test_a_resumed_run_appends_and_drops_what_it_will_make_again(path):
    log = MetricsLog(path, step=0)
    for step in range(1, 8):
        log.write(step=step, value=step)
    resumed = MetricsLog(path, step=5)
    assert [row["step"] for row in rows_of(path)] == [1, 2, 3, 4, 5]
    resumed.write(step=6, value="again")
    assert [row["value"] for row in rows_of(path)] == [1, 2, 3, 4, 5, "again"]


def test_a_line_cut_by_a_crash_is_left_out(path):
    path.write_bytes(b'{"step": 1}\n{"step": 2, "sample": "a')
    assert read_metrics(path) == [{"step": 1}]
    MetricsLog(path, step=2).write(step=3)
    assert rows_of(path) == [{"step": 1}, {"step": 3}]


def test_a_line_cut_inside_a_character_is_left_out(path):
    path.write_bytes(b'{"step": 1}\n{"step": 2, "sample": "\xc3')
    assert read_metrics(path) == [{"step": 1}]


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85"])
def test_line_ends_of_unicode_do_not_end_a_line(path, mark):
    log = MetricsLog(path, step=0)
    log.write(step=1, sample=f"a{mark}b")
    assert read_metrics(path) == [{"step": 1, "sample": f"a{mark}b"}]


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_what_json_cannot_hold_is_null(path, value):
    MetricsLog(path, step=0).write(step=1, **{"optim/grad_norm": value})
    assert rows_of(path) == [{"step": 1, "optim/grad_norm": None}]


@pytest.mark.parametrize("step", ["true", '"9"', "1.5", "-1", "null"])
def test_the_step_of_kept_weights_is_a_step(path, step):
    path.write_text(
        f'{{"step": 9, "kept_step": {step}, "sample": "a"}}\n{{"step": 9, "kept_step": 0, "sample": "b"}}\n'
    )
    assert [row["sample"] for row in read_metrics(path)] == ["b"]


def test_a_missing_file_has_no_rows(path):
    assert read_metrics(path) == []


@pytest.mark.fault("E9", "metrics.jsonl cannot be written", "one warning; the run goes on, and so does the log later")
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's full disk")  # noqa: PTH110
def test_a_full_disk_does_not_end_the_run(path):
    said = []
    log = MetricsLog(path, step=0, say=said.append)
    log.write(step=1)
    kept = path.rename(path.with_name("kept"))
    path.symlink_to("/dev/full")
    log.write(step=2)
    log.write(step=3)
    assert said == [f"{path} cannot be written (No space left on device); lines are lost, and the run goes on"]
    path.unlink()
    kept.rename(path)
    with path.open("a") as file:
        file.write('{"step": 3, "tr')  # what a disk took before it was full
    log.write(step=4)
    log.write(step=5)
    assert [row["step"] for row in read_metrics(path)] == [1, 4, 5]
    MetricsLog(path, step=0)
    path.unlink()
    path.symlink_to("/dev/full")
    MetricsLog.write(log, step=6)
    assert len(said) == 1


@pytest.mark.fault(
    "B6", "a FIFO or a device stands where the record of a run is read", "one line that names it; nothing waits"
)
@pytest.mark.parametrize("kind", ["fifo", "zero"])
def test_what_is_no_file_is_not_waited_for(path, kind):
    os.mkfifo(path) if kind == "fifo" else path.symlink_to("/dev/zero")
    with pytest.raises(UserError, match="it is not a file"):
        read_metrics(path)


@pytest.mark.parametrize(
    "values",
    [{"step": -7}, {"tokens": -1}, {"seconds": -0.5}, {"val/loss": -3}, {"train/loss": -0.1}, {"val/tokens": -5}],
)
def test_a_line_with_less_than_nothing_is_damaged(path, values):
    good = [{"step": 0, "train/loss": -1e-9, "optim/x": -3.0}, {"step": 1, "val/loss": 0}]
    path.write_text("".join(json.dumps(row) + "\n" for row in [good[0], {"step": 1, **values}, good[1]]))
    assert load_metrics(path) == Metrics(good, 1)
