import json
import struct
import sys
import time
from pathlib import Path

import pytest

from groundup.config.errors import UserError
from groundup.config.train import LogConfig
from groundup.training import loggers as module
from groundup.training.loggers import Loggers, TensorBoard, WeightsAndBiases, open_loggers, require_extras

ROWS = [
    {"step": 0, "tokens": 0, "val/loss": 4.5},
    {"step": 1, "tokens": 100, "train/loss": 4.25, "optim/grad_norm": None},
    {"step": 2, "tokens": 200, "train/loss": 3.5},
    {"step": 2, "tokens": 200, "val/loss": 3.75},
    {"step": 2, "sample": "<b>ROMEO</b>:\n  & so on"},
    {"step": 2, "event": "stopped"},
]


class Notes:
    def __init__(self, *, fails=()):
        self.rows, self.closed, self.fails = [], [], fails

    def write(self, **values):
        if "write" in self.fails:
            raise OSError("disk full")
        self.rows.append(values)

    def close(self, *, failed):
        if "close" in self.fails:
            raise OSError("disk full")
        self.closed.append(failed)


def test_every_logger_gets_every_row_and_is_closed():
    record, view = Notes(), Notes()
    with Loggers(record, [view], print) as log:
        for row in ROWS:
            log.write(**row)
    assert record.rows == view.rows == ROWS
    assert record.closed == view.closed == [False]


def test_an_error_of_the_run_is_told_and_not_swallowed():
    record, view = Notes(), Notes()
    with pytest.raises(ZeroDivisionError), Loggers(record, [view], print):
        1 / 0  # noqa: B018
    assert record.closed == view.closed == [True]


@pytest.mark.parametrize("fails", ["write", "close"])
def test_a_view_that_fails_is_left_out_and_the_others_go_on(fails):
    record, bad, good, said = Notes(), Notes(fails=[fails]), Notes(), []
    with Loggers(record, [bad, good], said.append) as log:
        for row in ROWS:
            log.write(**row)
    assert record.rows == good.rows == ROWS
    assert said == ["Notes is left out from here on (disk full); metrics.jsonl goes on"]


def test_a_record_that_fails_is_an_error():
    with pytest.raises(OSError, match="disk full"):
        Loggers(Notes(fails=["write"]), [], print).write(step=1)


@pytest.mark.parametrize(
    ("config", "package"),
    [(LogConfig(tensorboard=True), "tensorboard"), (LogConfig(wandb="offline"), "wandb"),
     (LogConfig(wandb="online"), "wandb")],
)  # fmt: skip
def test_a_missing_package_is_one_line_that_names_the_extra(config, package, monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError) as caught:
        require_extras(config)
    assert str(caught.value) == f"--log.{package} needs {package}: pip install 'groundup[{package}]'"
    require_extras(LogConfig())


def test_nothing_is_opened_that_nobody_asked_for(tmp_path):
    record = Notes()
    with open_loggers(LogConfig(), tmp_path, record, step=0, facts={}, say=print) as log:
        log.write(step=1)
    assert list(tmp_path.iterdir()) == []
    assert record.rows == [{"step": 1}]


def scalars(folder: Path):
    """What TensorBoard itself reads."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    numbers = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    texts = {tag: [(e.step, e.tensor_proto.string_val[0].decode()) for e in events.Tensors(tag)]
             for tag in events.Tags()["tensors"]}  # fmt: skip
    return numbers, texts


def test_tensorboard_reads_what_was_written(tmp_path):
    pytest.importorskip("tensorboard")
    log = TensorBoard(tmp_path, step=0)
    for row in ROWS:
        log.write(**row)
    log.close(failed=False)
    numbers, texts = scalars(tmp_path)
    assert numbers == {
        "train/loss": [(1, 4.25), (2, 3.5)],
        "val/loss": [(0, 4.5), (2, 3.75)],
        "tokens": [(0, 0), (1, 100), (2, 200), (2, 200)],
    }
    ((_, samples),) = texts.items()
    assert samples == [(2, "<pre>&lt;b&gt;ROMEO&lt;/b&gt;:\n  &amp; so on</pre>")]


KEPT = {"step": 9, "kept_step": 1000, "sample": "a <b>"}
KEPT_PAGE = "<p>by the weights that were kept, of step 1,000</p><pre>a &lt;b&gt;</pre>"


def test_tensorboard_says_of_which_step_the_weights_are_that_were_kept(tmp_path):
    pytest.importorskip("tensorboard")
    log = TensorBoard(tmp_path, step=0)
    log.write(**KEPT)
    log.close(failed=False)
    numbers, texts = scalars(tmp_path)
    assert numbers == {}
    assert list(texts.values()) == [[(9, KEPT_PAGE)]]


def test_tensorboard_forgets_steps_that_a_resumed_run_makes_again(tmp_path):
    pytest.importorskip("tensorboard")
    first = TensorBoard(tmp_path, step=0)
    for step in range(1, 8):
        first.write(step=step, **{"train/loss": float(step)})
    first.close(failed=True)
    again = TensorBoard(tmp_path, step=4)
    for step in (5, 6):
        again.write(step=step, **{"train/loss": 10.0 * step})
    again.close(failed=False)
    assert scalars(tmp_path)[0]["train/loss"] == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 50), (6, 60)]


def records(path: Path):
    """The records of a .wandb file: a 7-byte header, then LevelDB's log format in blocks of 32 KiB."""
    from wandb.proto import wandb_internal_pb2

    data, at, whole = path.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def wait_for_the_end(path: Path):
    """wandb's service answers that a run has ended a moment before its last records are in the file."""
    deadline = time.monotonic() + 60
    while not any(record.WhichOneof("record_type") == "exit" for record in records(path)):
        assert time.monotonic() < deadline, f"{path} has no end"
        time.sleep(0.05)


def history(path: Path):
    rows = {}
    for record in records(path):
        if record.WhichOneof("record_type") == "history":
            row = {"/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            rows[row["_step"]] = row
    return rows


def test_weights_and_biases_offline_writes_what_sync_will_send(tmp_path, monkeypatch, capfd):
    pytest.importorskip("wandb")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "home"))
    monkeypatch.delitem(sys.modules, "openai", raising=False)  # it would be advertised to
    folder = tmp_path / "my run"
    folder.mkdir()
    options = {"mode": "offline", "project": "lab", "config": {"parameters": 7, "config": {"seed": 3}}}
    for rows in (ROWS, [{"step": 3, "train/loss": 3.0}, {**KEPT, "step": 3}]):  # a run, and the same run resumed
        time.sleep(1.1)  # its files are named by the second in which it begins
        log = WeightsAndBiases(folder, **options)
        for row in rows:
            log.write(**row)
        log.close(failed=False)
    files = sorted(folder.glob("wandb/offline-run-*/*.wandb"))
    assert len(files) == 2
    for file in files:
        wait_for_the_end(file)
    runs = [record.run for file in files for record in records(file) if record.WhichOneof("record_type") == "run"]
    assert {run.run_id for run in runs} == {(folder / "wandb" / "groundup-id").read_text()}
    assert {(run.project, run.display_name) for run in runs} == {("lab", "my run")}
    settings = {item.key: json.loads(item.value_json) for item in runs[0].config.update}
    assert (settings["parameters"], settings["config"]) == (7, {"seed": 3})

    first = history(files[0]) | history(files[1])
    assert {step: row.get("train/loss") for step, row in first.items()} == {0: None, 1: 4.25, 2: 3.5, 3: 3.0}
    assert {step: row["val/loss"] for step, row in first.items() if "val/loss" in row} == {0: 4.5, 2: 3.75}
    assert "kept_step" not in first[3]
    pages = sorted(folder.glob("wandb/offline-run-*/files/media/html/sample_*.html"))
    assert [page.read_text() for page in pages] == ["<pre>&lt;b&gt;ROMEO&lt;/b&gt;:\n  &amp; so on</pre>", KEPT_PAGE]
    assert capfd.readouterr() == ("", "")


def test_weights_and_biases_online_without_a_key_is_one_line(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with pytest.raises(UserError, match=r"^Weights & Biases: .*try `wandb login`, or --log.wandb offline$") as caught:
        WeightsAndBiases(tmp_path, mode="online", project="lab", config={})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("project", ["", "a/b", "x" * 129, "what?"])
def test_a_project_that_the_service_would_refuse_is_refused_at_once(project):
    with pytest.raises(UserError, match=r"log\.wandb_project must be"):
        LogConfig(wandb_project=project)
