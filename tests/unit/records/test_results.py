import json
import math
import subprocess
import sys

import pytest

from groundup.config.errors import UserError
from groundup.config.io import dump_json
from groundup.files import atomic as files
from groundup.records.results import add_results, read_results, result_line


def test_tasks_are_merged_and_measured_again(tmp_path):
    assert read_results(tmp_path) == {}
    add_results(tmp_path, {"val": {"loss": 2.0}})
    add_results(tmp_path, {"hellaswag": {"acc": 0.3}, "a.jsonl": {"acc": 1.0}})
    add_results(tmp_path, {"val": {"loss": 1.0}})
    assert read_results(tmp_path) == {"val": {"loss": 1.0}, "hellaswag": {"acc": 0.3}, "a.jsonl": {"acc": 1.0}}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["eval.json"]


def test_a_crash_leaves_the_old_file(tmp_path, monkeypatch):
    add_results(tmp_path, {"val": {"loss": 2.0}})

    def crash(operation, path):
        if operation == "rename":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "fault_point", crash)
    with pytest.raises(UserError, match=r"cannot write .*eval\.json: No space left"):
        add_results(tmp_path, {"val": {"loss": 1.0}})
    assert read_results(tmp_path) == {"val": {"loss": 2.0}}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["eval.json"]


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"version": 2, "tasks": {}}', '{"version": 1}', '{"version": 1, "tasks": {"a": 1}}']
)
def test_what_is_not_ours_is_not_overwritten(tmp_path, text):
    (tmp_path / "eval.json").write_text(text)
    with pytest.raises(UserError, match=r"eval\.json"):
        add_results(tmp_path, {"val": {}})
    assert (tmp_path / "eval.json").read_text() == text


def test_a_line_for_people():
    assert result_line({"acc": 0.25, "acc_norm": 0.5, "examples": 100, "data": "00"}) == (
        "acc 0.2500 ± 0.0433 · acc_norm 0.5000 ± 0.0500 (100 examples)"
    )
    assert result_line({"loss": 1.5, "perplexity": 4.48169, "bits_per_byte": 2.1, "tokens": 12345, "seconds": 3.0}) == (
        "loss 1.5000 · perplexity 4.4817 · bits per byte 2.1000 (12,345 tokens)"
    )
    assert result_line({"loss": 700.0, "perplexity": math.exp(700.0), "bits_per_byte": 2.0e9, "tokens": 1}) == (
        "loss 700.0000 · perplexity 1.014e+304 · bits per byte 2e+09 (1 token)"
    )
    assert json.dumps(result_line({}))


@pytest.mark.fault(
    "E12",
    "six processes note results of one model at once",
    "none is lost",
)
def test_results_of_several_at_once_are_all_kept(tmp_path):
    code = (
        "import pathlib, sys; from groundup.records.results import add_results\n"
        "for i in range(10): add_results(pathlib.Path(sys.argv[1]), {f'{sys.argv[2]}-{i}': {'loss': 1.0}})"
    )
    children = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(j)]) for j in range(6)]
    assert [child.wait() for child in children] == [0] * 6
    assert len(read_results(tmp_path)) == 60


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_diverged_model_is_one_line_and_nothing_is_noted(tmp_path, value):
    with pytest.raises(UserError, match="val: the result is not a finite number; the model is damaged or has diverged"):
        add_results(tmp_path, {"val": {"loss": value, "tokens": 3}})
    assert read_results(tmp_path) == {}


def test_names_of_old_results_stay_as_they_become(tmp_path):
    old = {"a.txt (int8)": {"loss": 1.0, "limit": 2, "weights": "int8"}, "val": {"loss": 2.0, "limit": 1}}
    (tmp_path / "eval.json").write_text(dump_json({"version": 1, "tasks": old}))
    for _ in range(3):
        add_results(tmp_path, {"b": {"loss": 3.0}})
    assert sorted(read_results(tmp_path)) == ["a.txt (int8, first 2)", "b", "val (first 1)"]
    add_results(tmp_path, {"a.txt": {"loss": 4.0, "limit": 2, "weights": "int8", "how": "int8, first 2"}})
    assert read_results(tmp_path)["a.txt (int8, first 2)"]["loss"] == 4.0
    assert len(read_results(tmp_path)) == 3


def test_an_old_result_of_the_first_examples_is_told_and_gives_way_to_a_new_one(tmp_path):
    first, whole = {"loss": 1.0, "limit": 3}, {"loss": 2.0, "limit": 0}
    add_results(tmp_path, {"val": first, "a.txt": whole | {"limit": "3"}})
    newer = first | {"how": "first 3"}
    assert read_results(tmp_path) == {"val (first 3)": newer, "a.txt": whole | {"limit": "3"}}
    add_results(tmp_path, {"val": newer})
    add_results(tmp_path, {"val": whole})
    assert read_results(tmp_path) == {"val": whole, "val (first 3)": newer, "a.txt": whole | {"limit": "3"}}
    (tmp_path / "eval.json").write_text(dump_json({"version": 1, "tasks": {"val": first, "val (first 3)": newer}}))
    assert read_results(tmp_path) == {"val (first 3)": newer}
