import errno
import json
import math
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from groundup.config.errors import UserError
from groundup.config.io import dump_json, to_dict
from groundup.config.presets import RECIPES
from groundup.files.lock import RunLock, is_held
from groundup.model.build import build_model
from groundup.planner.flops import flops_per_token
from groundup.records.facts import run_facts
from groundup.records.history import (
    MISSING,
    Sample,
    differences,
    find_runs,
    is_run,
    median_mfu,
    read_run,
    read_runs,
    samples,
    series,
    where_time_went,
)
from groundup.records.models_here import holds_model

CONFIG = {**to_dict(RECIPES["shakespeare"]), "max_steps": 20}
FACTS = {"parameters": 801_664, "resolved": {"vocab_size": 65}, "config": CONFIG}
ROWS = [
    {"step": 0, "tokens": 0, "seconds": 0.0, "val/loss": 4.0, "val/bpb": 6.0},
    {"step": 10, "tokens": 1000, "seconds": 2.0, "train/loss": 3.0, "perf/mfu": 0.1},
    {"step": 10, "tokens": 1000, "seconds": 2.0, "val/loss": 2.0, "val/bpb": 3.0},
    {"step": 20, "tokens": 2000, "seconds": 4.0, "train/loss": 2.0, "perf/mfu": 0.3},
    {"step": 20, "tokens": 2000, "seconds": 4.0, "val/loss": 2.5, "val/bpb": 3.5},
]


def folder(path, *, rows=ROWS, config=CONFIG, facts=FACTS, model=True, extra=b""):
    path.mkdir(parents=True)
    if config is not None:
        (path / "config.json").write_text(dump_json(config))
    if facts is not None:
        (path / "run.json").write_text(dump_json(facts))
    (path / "metrics.jsonl").write_bytes("".join(json.dumps(row) + "\n" for row in rows).encode() + extra)
    if model:
        (path / "model").mkdir()
    return path


def test_the_numbers_of_a_run(tmp_path):
    run = read_run(folder(tmp_path / "a"))
    assert (run.name, run.state, run.damaged) == ("a", "finished", 0)
    assert run.last["step"] == 20
    assert (run.best["val/loss"], run.best["step"]) == (2.0, 10)
    assert run.tokens_per_sec == 500
    assert median_mfu(run.rows) == pytest.approx(0.2)


def test_the_loss_before_the_first_step_is_the_best_only_of_a_trained_model(tmp_path):
    early = [{**ROWS[0], "val/tokens": 65}, {**ROWS[2], "val/tokens": 65, "step": 5}, {"step": 7, "event": "stopped"}]
    run = read_run(folder(tmp_path / "a", rows=early, model=False))
    assert run.best == {}
    assert run_facts(run)["best val loss"] == "about 2.00 at 5, from 65 tokens"
    assert run_facts(run)["last val loss"] == MISSING
    run = read_run(folder(tmp_path / "b", rows=[early[0], early[2]], model=False))
    assert run_facts(run)["best val loss"] == MISSING
    run = read_run(folder(tmp_path / "c", rows=ROWS[:1], config={**CONFIG, "init_from": "models/gpt2"}))
    assert run_facts(run)["best val loss"] == "4.0000 at 0"
    assert run_facts(run)["last val loss"] == "4.0000"


@pytest.mark.parametrize(
    ("rows", "model", "state"),
    [
        (ROWS, True, "finished"),
        (ROWS, False, "crashed"),  # after its last step, before its model was written
        (ROWS[:3], False, "crashed"),
        ([*ROWS[:3], {"step": 10, "event": "stopped"}], False, "stopped"),
        ([*ROWS[:3], {"step": 10, "event": "stopped"}, ROWS[3]], False, "crashed"),  # resumed, and then
        ([*ROWS, {"step": 20, "sample": "text"}], True, "finished"),
        (ROWS[:3], True, "crashed"),  # a longer second run over a finished first
        ([], False, "crashed"),
    ],
)
def test_how_it_ended(tmp_path, rows, model, state):
    assert read_run(folder(tmp_path / "a", rows=rows, model=model)).state == state


def test_a_run_that_goes_on_is_running(tmp_path):
    path = folder(tmp_path / "a", rows=ROWS[:3], model=False)
    with RunLock(path):
        assert is_held(path)
        assert read_run(path).state == "running"
    assert not is_held(path)
    assert read_run(path).state == "crashed"


def test_asking_does_not_take_the_lock_away(tmp_path):
    path = folder(tmp_path / "a")
    with RunLock(path):
        is_held(path)
        with pytest.raises(UserError, match="in use"), RunLock(path):
            pass


def test_asking_leaves_nothing_behind(tmp_path):
    read_run(folder(tmp_path / "a"))
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_run_may_be_named_by_a_dot(tmp_path, monkeypatch):
    from pathlib import Path

    monkeypatch.chdir(folder(tmp_path / "a"))
    assert read_run(Path()).name == "a"


@pytest.mark.parametrize(
    ("extra", "damaged"),
    [
        (b'{"step": 21, "train/', 1),
        (b'\xff\xfe\n{"step": 21}\n', 1),
        (b'[1]\n"text"\n5\nnull\n', 4),
        (b'{"train/loss": 1.0}\n', 1),
        (b'{"step": "21"}\n{"step": true}\n{"step": 1.5}\n', 3),
        (b'{"step": 21, "val/loss": "low"}\n{"step": 21, "tokens": []}\n', 2),
        (b"\n\n", 0),
        (b'{"step": 21, "sample": null}\n', 0),
        (b'{"step": 21, "note": ["of a later version"]}\n', 0),
        (b"[" * 100_000, 1),
    ],
)
def test_damaged_lines_are_left_out_and_counted(tmp_path, extra, damaged):
    run = read_run(folder(tmp_path / "a", extra=extra))
    assert run.damaged == damaged
    assert run.rows[: len(ROWS)] == ROWS
    assert (run.best["val/loss"], run.last["step"]) == (2.0, 20)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.binary(max_size=30)
        | st.dictionaries(
            st.sampled_from(["step", "tokens", "seconds", "val/loss", "perf/data_ms", "perf/eval_seconds", "event"]),
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.lists(st.none()),
        ).map(lambda row: json.dumps(row).encode()),
        max_size=8,
    )
)
def test_no_file_of_metrics_makes_it_fail(tmp_path_factory, lines):
    path = folder(tmp_path_factory.mktemp("runs") / "a", rows=[], extra=b"\n".join(lines))
    run = read_run(path)
    assert len(run.rows) + run.damaged <= sum(1 + line.count(b"\n") for line in lines)
    for axis in ("tokens", "time", "flops"):
        x, y = run.series("val/loss", axis)
        assert len(x) == len(y)
        assert all(map(math.isfinite, y))
    where_time_went(run.rows)
    assert math.isfinite(run.best.get("val/loss", 0.0))


@pytest.mark.parametrize("name", ["config.json", "run.json"])
@pytest.mark.parametrize("text", ["", "{", "[]", '{"model": 5, "resolved": 7, "max_steps": null}'])
def test_a_hurt_file_leaves_its_part_empty(tmp_path, name, text):
    path = folder(tmp_path / "a")
    (path / name).write_text(text)
    run = read_run(path)
    assert run.best["val/loss"] == 2.0
    assert run.shape is None or run.shape.n_layer == 4  # run.json holds the config, too


def test_a_model_that_is_not_known_has_no_flops(tmp_path):
    run = read_run(folder(tmp_path / "a", config={**CONFIG, "model": {"n_experts": 8}}))
    assert run.shape is None
    with pytest.raises(UserError, match="does not say which model"):
        run.series("val/loss", "flops")


def test_against_what_a_loss_stands(tmp_path):
    run = read_run(folder(tmp_path / "a"))
    assert run.series("train/loss", "tokens") == ([1000, 2000], [3.0, 2.0])
    assert run.series("train/loss", "time") == ([2.0, 4.0], [3.0, 2.0])
    assert run.shape.vocab_size == 65
    x, _ = run.series("train/loss", "flops")
    # PaLM, appendix B, by hand: 6 N + 12 L C T, N without the table of n-grams (rope has none).
    n = sum(p.numel() for name, p in build_model(run.shape).named_parameters() if name != "ngrams.weight")
    assert x == [tokens * (6 * n + 12 * 4 * 128 * 128) for tokens in (1000, 2000)]
    assert x[0] == 1000 * flops_per_token(run.shape, 128)


def test_what_is_not_finite_is_not_drawn():
    rows = [
        {"x": 1, "y": math.nan},
        {"x": 2, "y": None},
        {"x": 3},
        {"x": math.inf, "y": 1.0},
        {"x": 10**400, "y": 1.0},
        {"x": 1, "y": True},
        {"x": 4, "y": 2.0},
    ]
    assert series(rows, "x", "y") == ([4], [2.0])


def test_runs_are_found_by_what_lies_in_them(tmp_path):
    folder(tmp_path / "b")
    folder(tmp_path / "a", facts=None)
    folder(tmp_path / "old", config=None)
    folder(tmp_path / "data", config=None, facts=None)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    assert [p.name for p in find_runs(tmp_path)] == ["a", "b", "old"]
    assert find_runs(tmp_path / "a") == [tmp_path / "a"]
    assert read_run(tmp_path / "old").config == CONFIG
    with pytest.raises(UserError, match=r"^cannot list runs in .*none"):
        find_runs(tmp_path / "none")
    with pytest.raises(UserError, match="is not a run folder"):
        read_run(tmp_path / "data")


def close(monkeypatch, folder):
    """Make a folder one that this user may not look into; the tests may run as root, who may look anywhere."""
    stat = Path.stat

    def refusing(path, **options):
        if folder in path.parents:
            raise PermissionError(errno.EACCES, "Permission denied")
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", refusing)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != folder)


def test_a_run_that_cannot_be_read_hides_no_other(tmp_path, monkeypatch):
    for name in ("a", "b", "c", "d"):
        folder(tmp_path / name)
    (tmp_path / "c" / "metrics.jsonl").unlink()
    (tmp_path / "c" / "metrics.jsonl").mkdir()
    close(monkeypatch, tmp_path / "b")
    told = []
    assert [run.name for run in read_runs(tmp_path, told.append)] == ["a", "d"]
    assert told == [
        f"left out: cannot read {tmp_path / 'b'}: Permission denied",
        f"left out: cannot read {tmp_path / 'c' / 'metrics.jsonl'}: it is not a file",
    ]
    assert not is_run(tmp_path / "b")
    assert not holds_model(tmp_path / "b")
    for name in ("b", "c"):  # named itself, it is an error
        with pytest.raises(UserError, match=f"^cannot read .*{name}"):
            read_run(tmp_path / name)
    with pytest.raises(UserError, match="it is not a file"):
        read_runs(tmp_path / "c", told.append)


def test_scores_have_dotted_keys(tmp_path):
    path = folder(tmp_path / "a")
    (path / "eval.json").write_text('{"tasks": {"hellaswag": {"acc_norm": 0.31}}, "val": 2.5}')
    assert read_run(path).scores == {"tasks.hellaswag.acc_norm": 0.31, "val": 2.5}


def test_only_what_differs_is_a_difference():
    a = {"seed": 1, "optim": {"lr": 0.1, "name": "adamw"}, "same": [1]}
    b = {"seed": 1, "optim": {"lr": 0.2, "name": "adamw"}, "same": [1], "new": {"flag": True}}
    assert differences([a, b]) == {"optim.lr": [0.1, 0.2], "new.flag": [MISSING, True]}
    assert differences([a, a, a]) == {}
    assert differences([a, a, b])["optim.lr"] == [0.1, 0.1, 0.2]


def test_means_of_steps_are_weighted_with_the_steps_they_stand_for():
    rows = [
        {"step": 1, "seconds": 1.0, "perf/data_ms": 10.0, "perf/forward_backward_ms": 500.0, "perf/optimizer_ms": 90.0},
        {"step": 1, "sample": "text"},
        {"step": 11, "seconds": 3.0, "perf/data_ms": 1.0, "perf/forward_backward_ms": 150.0},
        {"step": 11, "perf/eval_seconds": 0.25},
        {"step": 20, "perf/eval_seconds": 0.5},
    ]
    parts = where_time_went(rows)
    assert parts == pytest.approx(
        {"forward and backward": 2.0, "optimizer": 0.09, "data": 0.02, "rest of the step": 0.89, "evaluation": 0.75}
    )
    assert where_time_went([{"step": 1, "perf/eval_seconds": 1.0}]) == {}


@pytest.mark.parametrize(
    ("start", "end", "mfu"),
    [(1e11, 1e11, 0.2), (1e11, 1.2e11, 0.2 / 1.2), (1e11, 9e10, 0.2), (1e11, 2e11, None), (2e11, 1e11, None)],
)
def test_mfu_needs_the_same_peak_at_both_ends(start, end, mfu):
    rows = [{"step": k, "perf/mfu": value} for k, value in ((1, 0.1), (2, 0.2), (3, 0.3))]
    rows.append({"step": 3, "perf/peak_flops_start": start, "perf/peak_flops_end": end})
    assert median_mfu(rows) == (None if mfu is None else pytest.approx(mfu))


def test_a_sample_is_of_the_step_of_the_weights_that_wrote_it():
    rows = [
        {"step": 5, "sample": "a"},
        {"step": 10, "sample": "short"},
        {"step": 15, "sample": None},
        {"step": 20, "kept_step": 10, "sample": "short and more"},
    ]
    assert samples(rows) == [Sample(5, "a", kept=False), Sample(10, "short and more", kept=True)]
    # Resumed: the text of the first end stays what it was, and only the last one is of what is kept.
    longer = [*rows, {"step": 25, "sample": "b"}, {"step": 30, "kept_step": 5, "sample": "a, at the end"}]
    assert [(sample.step, sample.kept) for sample in samples(longer)] == [(5, True), (10, False), (25, False)]
    assert samples(rows[2:3]) == []
