import itertools
import math
import types
import warnings

import matplotlib.colors
import matplotlib.image
import numpy as np
import pytest

from groundup.config.errors import UserError
from groundup.config.io import to_dict
from groundup.config.presets import RECIPES
from groundup.records import plot as module
from groundup.records.history import RunHistory
from groundup.records.plot import COLORS, DASHES, plot_loss, plot_runs

CONFIG = to_dict(RECIPES["shakespeare"])


def run(path, name, *, height=0.0, rows=None):
    if rows is None:
        rows = []
        for step in range(0, 101, 10):
            place = {"step": step, "tokens": 1000 * step, "seconds": 0.5 * step}
            rows.append({**place, "train/loss": height + 2 + math.exp(-step / 30)})
            rows.append({**place, "val/loss": height + 2.1 + math.exp(-step / 30)})
    facts = {"resolved": {"vocab_size": 65}}
    return RunHistory(path / name, CONFIG, facts, rows, damaged=0, scores={}, state="finished")


def colors_in(path):
    pixels = matplotlib.image.imread(path)[..., :3].reshape(-1, 3)
    return {
        color
        for color in COLORS
        if (np.abs(pixels - np.array(matplotlib.colors.to_rgb(color))).max(axis=1) < 0.01).sum() > 50
    }


def test_every_run_has_its_own_color(tmp_path):
    runs = [run(tmp_path, f"run{i}", height=i / 3) for i in range(len(COLORS))]
    black = {"#000000"}  # is also that of the axes
    for n in (1, 4, len(COLORS)):
        plot_runs(runs[:n], tmp_path / "out.png", axis="tokens")
        assert colors_in(tmp_path / "out.png") == {*COLORS[:n]} | black
    assert [p.name for p in tmp_path.iterdir()] == ["out.png"]


def test_colors_can_be_told_apart():
    rgb = np.array([matplotlib.colors.to_rgb(color) for color in COLORS])
    distances = np.linalg.norm(rgb[:, None] - rgb[None], axis=-1) + 9 * np.eye(len(COLORS))
    assert distances.min() > 0.2
    assert np.linalg.norm(1 - rgb, axis=-1).min() > 0.4  # from the paper
    assert len({(c, d) for d in DASHES for c in COLORS}) == len(DASHES) * len(COLORS)


@pytest.fixture
def drawn(monkeypatch):
    """The figure, before it becomes a file."""
    figures = []
    monkeypatch.setattr(module, "_save", lambda figure, path: figures.append(figure))
    return figures


def legends(figure):
    return [legend for owner in (figure, *figure.axes) for legend in
            (owner.legends if owner is figure else [owner.get_legend()]) if legend]  # fmt: skip


@pytest.mark.parametrize("n", [1, 4, 12])
def test_one_legend_in_which_every_run_is_named_once(tmp_path, drawn, n):
    names = ["_hidden", r"cost$_$5", "plain", "x" * 80][:n] + [f"run{i}" for i in range(n - 4)]
    plot_runs([run(tmp_path, name, height=i) for i, name in enumerate(names)], tmp_path / "out.png", axis="tokens")
    (legend,) = legends(drawn[0])
    drawn[0].canvas.draw()
    told = [text.get_text() for text in legend.get_texts()]
    assert len(told) == n
    for i, (name, text) in enumerate(zip(names, told, strict=True)):
        assert text.endswith(f": {i + 2.1 + math.exp(-100 / 30):.4f}")
        assert text.startswith(name[:15])
        assert len(text) <= 45


def test_the_axes_say_what_they_are(tmp_path, drawn):
    for axis in ("tokens", "time", "flops"):
        plot_runs([run(tmp_path, "a")], tmp_path / "out.png", axis=axis)
    axes = [figure.axes[0] for figure in drawn]
    assert [a.get_xlabel() for a in axes] == ["tokens learned from", "training time", "training FLOPs"]
    assert {a.get_ylabel() for a in axes} == {"loss (nats per token)"}
    for figure in drawn:
        figure.canvas.draw()
    ticks = [[label.get_text() for label in a.get_xticklabels()] for a in axes]
    assert "20k" in ticks[0]
    assert ticks[1] == ["0", "10 s", "20 s", "30 s", "40 s", "50 s"]
    assert "2e11" in ticks[2]


@pytest.mark.parametrize("seconds", [0.5, 100, 5000, 90_000, 1e7, 1e9])
def test_a_time_axis_never_has_too_many_ticks(tmp_path, drawn, seconds):
    rows = [{"step": i, "tokens": i, "seconds": i * seconds, "val/loss": 2.0 - i} for i in (0, 1)]
    plot_runs([run(tmp_path, "a", rows=rows)], tmp_path / "out.png", axis="time")
    assert 1 <= len(drawn[0].axes[0].get_xticks()) <= 9


@pytest.mark.parametrize("y", ["loss", "val/loss"])
def test_no_line_is_drawn_from_before_the_first_step(tmp_path, drawn, y):
    plot_runs([run(tmp_path, "a")], tmp_path / "out.png", axis="steps", y=y)
    assert {min(line.get_xdata()) for line in drawn[0].axes[0].get_lines()} == {10}


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path, drawn):
    plot_runs([run(tmp_path / "x", "same"), run(tmp_path / "y", "same")], tmp_path / "out.png", axis="tokens")
    told = {text.get_text() for text in legends(drawn[0])[0].get_texts()}
    assert len(told) == 2


def test_a_run_that_has_no_loss_is_left_out_and_none_at_all_is_an_error(tmp_path, drawn):
    empty = run(tmp_path, "empty", rows=[{"step": 1, "tokens": 1, "seconds": 1.0, "val/loss": None}])
    plot_runs([empty, run(tmp_path, "full")], tmp_path / "out.png", axis="tokens")
    (text,) = legends(drawn[0])[0].get_texts()
    assert text.get_text().startswith("full")
    with pytest.raises(UserError, match=r"nothing to draw: .*empty logged no loss"):
        plot_runs([empty], tmp_path / "out.png", axis="tokens")


def test_a_disk_that_refuses_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"^cannot write .*none.out\.png: No such file or directory$"):
        plot_runs([run(tmp_path, "a")], tmp_path / "none" / "out.png", axis="tokens")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UserError, match=r"cannot write .*folder\.png"):
        plot_loss([], tmp_path / "folder.png", baseline=None, title="a")
    assert [p.name for p in tmp_path.iterdir()] == ["folder.png"]


def test_losses_of_the_whole_split_are_not_joined_with_those_of_a_part(tmp_path, drawn):
    part = {"step": 5, "tokens": 5000, "seconds": 1.0, "val/loss": 0.9967, "val/tokens": 65536}
    learning = {"step": 5, "tokens": 5000, "seconds": 1.0, "train/loss": 3.0}
    one = run(tmp_path, "one")
    for rows in ([*one.rows, part], [learning, part]):
        plot_loss(rows, tmp_path / "loss.png", baseline=None, title="one")
        plot_runs([run(tmp_path, "one", rows=rows)], tmp_path / "out.png", axis="steps", y="val/loss")
    lowest = [min(figure.axes[0].get_lines()[-1].get_ydata()) for figure in drawn]
    assert lowest == pytest.approx([2.1 + math.exp(-100 / 30)] * 2 + [0.9967] * 2)
    told = [legends(figure)[0].get_texts()[-1].get_text() for figure in drawn[::2]]
    assert told == ["validation, 2.136", "validation, of a part of the split"]


def test_a_slow_machine_is_told_nothing_of_legends(tmp_path, monkeypatch):
    """matplotlib warns where it takes more than a second to find the place of a legend that nobody has placed."""
    monkeypatch.setattr("matplotlib.legend.time", types.SimpleNamespace(perf_counter=itertools.count(0, 2).__next__))
    one = run(tmp_path, "one")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_runs([one], tmp_path / "runs.png", axis="steps")
        plot_loss(one.rows, tmp_path / "loss.png", baseline=2.5, title="one")
