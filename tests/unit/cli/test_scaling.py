"""groundup scaling."""

import json
from pathlib import Path

import pytest

from groundup.cli.main import main


def test_a_wrong_flag_is_told_at_once(capsys):
    assert main(["scaling", "--preset", "shakespear"]) == 2
    assert "preset must be one of" in capsys.readouterr().err
    assert main(["scaling", "--sizes", "4x100"]) == 2
    assert main(["bench", "scaling-law"]) == 2


def test_a_text_that_holds_nothing_leaves_no_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    assert main(["scaling", "--text", "empty", "--device", "cpu"]) == 1
    assert "empty holds no files that end with" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["shakespeare", "tiny-shakespeare"])
def test_three_sizes_a_law_and_its_picture(preset, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("the quick brown fox jumps over the lazy dog\n" * 400)
    words = ["--sizes", "1x32,2x32,1x64", "--steps", "20", "--eval-tokens", "1000", "--device", "cpu"]
    assert main(["scaling", "--preset", preset, "--text", "text.txt", *words]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(result["models"]) == ["1x32", "2x32", "1x64"]
    assert json.loads(Path("runs/scaling/scaling-law.json").read_text())["fit"] == result["fit"]
    assert Path("runs/scaling/scaling-law.png").read_bytes().startswith(b"\x89PNG")
