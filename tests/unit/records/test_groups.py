"""Runs that differ in their seed alone, as one."""

import json
import statistics

import pytest

from groundup.config.errors import UserError
from groundup.records.groups import group, mean_and_deviation, table
from groundup.records.history import read_run
from groundup.records.plot import plot_bands


def run(tmp_path, name, *, lr, seed, losses, parts=()):
    path = tmp_path / name
    path.mkdir()
    config = {"name": name, "out_dir": "runs", "seed": seed, "max_steps": 20, "optim": {"lr": lr}}
    (path / "run.json").write_text(json.dumps({"config": config}))
    (path / "config.json").write_text(json.dumps(config))
    rows = [{"step": step, "tokens": step, "seconds": 1.0, "val/loss": loss} for step, loss in losses.items()]
    rows += [{"step": 5, "tokens": 5, "val/loss": loss, "val/tokens": 65536} for loss in parts]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_run(path)


@pytest.fixture
def runs(tmp_path):
    return [
        run(tmp_path, "a1", lr=0.1, seed=1, losses={0: 9.0, 10: 3.0, 20: 2.0}),
        run(tmp_path, "a2", lr=0.1, seed=2, losses={0: 9.0, 10: 3.5, 20: 2.2}),
        run(tmp_path, "b1", lr=0.2, seed=1, losses={0: 9.0, 10: 2.0, 20: 1.0, 30: 0.9}),
        run(tmp_path, "b2", lr=0.2, seed=2, losses={0: 9.0, 10: 2.5, 20: 1.5}),
    ]


def test_seeds_are_put_together(runs):
    slow, fast = group(runs)
    assert (slow.settings, fast.settings) == ({"optim.lr": 0.1}, {"optim.lr": 0.2})
    assert (slow.name, fast.name) == ("optim.lr 0.1", "optim.lr 0.2")
    assert slow.best == [2.0, 2.2]
    assert fast.curve() == ([10, 20], [[2.0, 2.5], [1.0, 1.5]])


def test_one_setting_is_one_group(runs):
    (alone,) = group(runs[:2])
    assert (alone.settings, alone.name, len(alone.runs)) == ({}, "all", 2)


def test_a_mean_is_of_losses_of_the_whole_split(tmp_path):
    whole = [run(tmp_path, f"a{seed}", lr=0.1, seed=seed, losses={10: 3.0}, parts=[0.9]) for seed in (1, 2)]
    early = [run(tmp_path, f"b{seed}", lr=0.1, seed=seed, losses={}, parts=[0.9]) for seed in (3, 4)]
    assert group(whole)[0].curve() == ([10], [[3.0, 3.0]])
    assert group(early)[0].curve() == ([5], [[0.9, 0.9]])
    assert group([whole[0], early[0]])[0].curve() == ([], [])


def test_the_lowest_mean_stands_first(runs):
    made = table(group(runs))
    assert [column.header for column in made.columns] == ["optim.lr", "runs", "best val loss", "lowest"]
    assert [list(column.cells) for column in made.columns] == [
        ["0.2", "0.1"], ["2", "2"], [f"1.2000 ± {statistics.stdev([0.9, 1.5]):.4f}", "2.1000 ± 0.1414"],
        ["0.9000", "2.0000"],
    ]  # fmt: skip


@pytest.mark.parametrize(("values", "said"), [([], "-"), ([1.5], "1.5000"), ([1.0, 2.0], "1.5000 ± 0.7071")])
def test_mean_and_deviation(values, said):
    assert mean_and_deviation(values) == said


def test_bands_are_drawn_in_the_format_asked_for(runs, tmp_path):
    for suffix, magic in ((".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")):
        plot_bands(group(runs), tmp_path / f"sweep{suffix}")
        assert (tmp_path / f"sweep{suffix}").read_bytes().startswith(magic)


def test_without_a_validation_there_is_nothing_to_draw(tmp_path):
    with pytest.raises(UserError, match="no run was validated after its first step"):
        plot_bands(group([run(tmp_path, "x", lr=1, seed=1, losses={0: 4.0})]), tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()
