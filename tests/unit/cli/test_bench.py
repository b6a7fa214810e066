import json
from dataclasses import dataclass

import pytest

from groundup.bench import train as bench_train
from groundup.cli.bench import BENCHES
from groundup.cli.main import main


@dataclass(frozen=True)
class Options:
    """A bench that takes no time."""

    rounds: int = 9
    """How often."""


@pytest.fixture
def quick(monkeypatch):
    def bench(options, say):
        say("a line for people")
        return {"bench": "train", "rounds": options.rounds, "device": "Gerät"}

    monkeypatch.setattr(bench_train, "Options", Options)
    monkeypatch.setattr(bench_train, "bench", bench)


def test_the_last_line_is_one_json_object(quick, capsys):
    assert main(["bench", "train", "--rounds", "3"]) == 0
    first, last = capsys.readouterr().out.splitlines()
    assert first == "a line for people"
    assert json.loads(last) == {"bench": "train", "rounds": 3, "device": "Gerät"}


def test_help_lists_every_bench(capsys):
    assert main(["bench"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("usage: groundup bench gpu|train|generate|")
    for name, what in BENCHES.items():
        assert f"  {name} " in printed
        assert what in printed


@pytest.mark.parametrize("name", BENCHES)
def test_every_bench_explains_itself(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["bench", name, "--help"])
    assert not stop.value.code
    assert f"usage: groundup bench {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "unknown action 'trian'; did you mean train?"),
        (["zzz"], f"unknown action 'zzz'; there are {', '.join(BENCHES)}"),
        (["train", "--rounds", "x"], "--rounds must be a whole number, got 'x'"),
        (["train", "--rounds=0"], "rounds must be at least 1, got 0"),
        (["train", "--steps=-3"], "steps must be at least 1, got -3"),
        (["data", "--tokens=0"], "tokens must be at least 1, got 0"),
        (["prepare", "--threads=-1"], "unrecognized options: --threads=-1"),
        (["train", "--threads=-1"], "threads must be at least 0, got -1"),
        (["train", "--rouds=3"], "unrecognized options: --rouds=3; did you mean --rounds?"),
    ],
)
def test_mistakes_are_one_line_and_2(words, message, capsys):
    assert main(["bench", *words]) == 2
    line = capsys.readouterr().err
    assert line.startswith(f"groundup: {message}")
    assert line.count("\n") == 1
