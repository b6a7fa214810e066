"""groundup import and groundup export, from the command line."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from forked import ForkedPopen
from groundup.checkpoint.model_folder import load_model, save_model
from groundup.cli.main import main
from groundup.files.manifest import read_manifest
from groundup.records.results import add_results


@pytest.fixture
def place(tmp_path, monkeypatch, tiny_model, alphabet):
    monkeypatch.chdir(tmp_path)
    save_model(tmp_path / "poet", tiny_model, alphabet, {"step": 7})
    return tmp_path


def test_out_and_in_again(place, capsys, tiny_model):
    assert main(["export", "poet", "shared/poet"]) == 0
    printed = capsys.readouterr().out
    for name in ("README.md", "config.json", "model.safetensors", "tokenizer.json"):
        assert f"shared/poet/{name}  " in printed
    assert main(["import", "shared/poet"]) == 0
    assert capsys.readouterr().out.startswith("models/poet: 2 layers, 2 heads, 32 wide, context 16, 27 ids: 26,")
    for name, p in load_model(Path("models/poet")).model.state_dict().items():
        assert torch.equal(p, tiny_model.state_dict()[name])


def test_the_version_in_a_folders_name_is_kept(place, capsys):
    assert main(["export", "poet", "shared/poet-v1.5"]) == 0
    assert main(["import", "shared/poet-v1.5"]) == 0
    assert Path("models/poet-v1.5").is_dir()


def test_what_is_imported_speaks(place, capsys):
    assert main(["export", "poet", "out"]) == 0
    assert main(["import", "out", "ours"]) == 0
    assert main(["generate", "ours", "--prompt=abc", "--max-new-tokens=5"]) == 0
    assert "abc" in capsys.readouterr().out


def test_the_card_shows_what_was_measured_of_these_weights(place, tiny_model, alphabet):
    """In the run, in the model folder, and nowhere for other weights; the run's curve comes along."""
    save_model(place / "run" / "model", tiny_model, alphabet, {"step": 7})
    weights = read_manifest(place / "run" / "model")["model.safetensors"]["sha256"]
    right, wrong = {"model": weights, "examples": 4}, {"model": "0" * 64, "examples": 4}
    add_results(place / "run", {"hellaswag": right | {"acc": 0.25}, "lambada": wrong | {"acc": 0.75}})
    add_results(place / "run" / "model", {"val": right | {"loss": 1.5}})
    (place / "run" / "loss.png").write_bytes(b"a picture")
    assert main(["export", "run", "out"]) == 0
    card = Path("out/README.md").read_text()
    assert "| hellaswag | acc 0.2500 ± 0.2165 (4 examples) |\n| val | loss 1.5000 (4 examples) |\n\n## License" in card
    assert "lambada" not in card
    assert "![Loss of training and validation](loss.png)" in card
    assert Path("out/loss.png").read_bytes() == b"a picture"

    # An older groundup kept a score of the first examples under the name of the whole.
    old = {
        "hellaswag": right | {"acc": 0.5, "limit": 4},
        "t.txt (int8)": right | {"loss": 2.0, "limit": 1, "weights": "int8"},
    }
    (place / "run" / "eval.json").write_text(json.dumps({"version": 1, "tasks": old}))
    assert main(["export", "run", "later"]) == 0
    card = Path("later/README.md").read_text()
    assert "| hellaswag (first 4) | acc 0.5000 ± 0.2500 (4 examples) |\n| t.txt (int8, first 1) | loss 2.0000 " in card

    assert main(["export", "poet", "plain", "--format=onnx"]) == 0
    card = Path("plain/README.md").read_text()
    assert "## Scores\n\nNone were measured: `groundup eval` does it." in card
    assert "loss.png" not in card


def test_help_names_all_commands_that_read_int8(capsys):
    with contextlib.suppress(SystemExit):
        main(["export", "--help"])
    words = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "int8 is for `generate`, `eval`, `serve` alone" in words


@pytest.mark.parametrize("kind", ["gguf", "onnx"])
def test_formats(place, kind):
    pytest.importorskip(kind)
    assert main(["export", "poet", "out", "--format", kind]) == 0
    assert Path(f"out/model.{kind}").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["import", "nowhere"], 1, "nowhere does not exist; name a folder, a file or hf:NAME"),
        (["import", "hf:gpt3"], 2, "hf:gpt3 is not known; the names are gpt2, gpt2-medium"),
        (["import", "poet", "poet"], 1, "poet is a model of groundup already; there is nothing to import"),
        (["import", ".", "poet"], 2, "poet is there already"),
        (["export", "nowhere", "out"], 1, "nowhere does not exist"),
        (["export", "poet", "poet"], 2, "poet is there already"),
        (["export", "poet", "out", "--format=exe"], 2, "--format must be one of"),
        (["export", "poet", "out", "--push-to-hub=poet"], 2, "push-to-hub must be OWNER/NAME, got 'poet'"),
        (["export", "poet"], 2, "missing OUT"),
        (["import"], 2, "missing SOURCE"),
    ],
)
def test_mistakes_are_one_line(place, capsys, words, code, message):
    assert main(words) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("words", [["import", "../nano.pt"], ["export", "../poet"]])
def test_the_folder_that_one_is_in_is_not_replaced(place, monkeypatch, capsys, words):
    Path("nano.pt").touch()
    Path("empty").mkdir()
    monkeypatch.chdir("empty")
    assert main([*words, "."]) == 2
    assert capsys.readouterr().err == "groundup: . is the folder that you are in; name a new one in it\n"
    assert not list(Path.cwd().iterdir())


def test_our_own_folder_is_not_a_foreign_one(place, capsys):
    assert main(["import", "poet", "again"]) == 1
    assert "poet is a model of groundup already" in capsys.readouterr().err


def test_offline_is_one_line(place):
    """In a process of its own: the address of the hub is read when its package is imported. Its waits between tries,
    half a minute of them, are left out."""
    pytest.importorskip("huggingface_hub")
    commands = [["import", "hf:gpt2"], ["export", "poet", "out", "--push-to-hub=o/m"]]
    code = f"""
import sys, time
assert "huggingface_hub" not in sys.modules
from groundup.cli.main import main
time.sleep = lambda seconds: None
print([main(words) for words in {commands!r}])
"""
    process = ForkedPopen(
        [sys.executable, "-c", code],
        env={**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    output, errors = process.communicate(240)
    assert output.splitlines()[-1] == "[1, 1]", errors
    fetch, push = errors.splitlines()
    assert fetch.startswith("groundup: cannot fetch openai-community/gpt2")
    assert push.startswith("groundup: cannot push to o/m")
    assert json.loads(Path("out/config.json").read_text())["model_type"] == "gpt2"


@pytest.mark.parametrize("source", ["nowhere", "gpt2"])
def test_a_model_that_is_not_there_is_told_before_pytorch_is_loaded(source, monkeypatch, capsys):
    monkeypatch.setattr("groundup.terminal.working.Working", lambda _: pytest.fail("loaded"))
    assert main(["import", source]) == 1
    assert f"{source} does not exist" in capsys.readouterr().err
