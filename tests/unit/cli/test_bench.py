import json
from typing import get_args, get_type_hints

import pytest

from groundup import __version__
from groundup.bench import train as bench_train
from groundup.cli.bench import BENCHES
from groundup.cli.main import main
from groundup.studies.options import AblationOptions
from groundup.studies.variants import SETS


@pytest.fixture
def quick(monkeypatch):
    def bench(options, say):
        say("a line for people")
        return {"bench": "train", "rounds": options.rounds, "device": "Gerät"}

    monkeypatch.setattr(bench_train, "bench", bench)


def test_the_last_line_is_one_json_object(quick, capsys):
    assert main(["bench", "train", "--rounds", "3"]) == 0
    first, last = capsys.readouterr().out.splitlines()
    assert first == "a line for people"
    told = json.loads(last)
    assert told.pop("command") == "groundup bench train --rounds 3"
    assert told.pop("groundup").split()[0] == __version__
    assert told == {"bench": "train", "rounds": 3, "device": "Gerät"}


def test_help_lists_every_bench(capsys):
    assert main(["bench"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("usage: groundup bench gpu|train|generate|")
    for name, (_, what) in BENCHES.items():
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
        (["data", "--batches=0"], "batches must be at least 1, got 0"),
        (["prepare", "--threads=-1"], "unrecognized options: --threads=-1"),
        (["train", "--threads=-1"], "threads must be at least 0, got -1"),
        (["train", "--rouds=3"], "unrecognized options: --rouds=3; did you mean --rounds?"),
        (["train", "--device", "tpu"], "--device must be one of 'auto', 'cpu', 'cuda', 'mps', got 'tpu'"),
        (["memory", "--micro-batch-sizes", "4", "0"], "micro-batch-sizes must be at least 1, got 0"),
        (["scaling", "--processes", "1"], "processes must be at least 2"),
        (["ablation", "--set", "all"], "--set must be one of 'parts', 'char-10m', 'cpu-minutes', got 'all'"),
        (["ablation", "--only", "no n-grams; SwiGLU"], "parts has no variant 'SwiGLU'; it has as it is; no n-grams;"),
        (["ablation", "--size", "4x100"], "sizes must be layers x width, a multiple of 32, got '4x100'"),
        (["ablation", "--steps=-1"], "steps must be at least 0, got -1"),
        (["ablation", "--seconds=-1"], "seconds must be at least 0, got -1.0"),
        (["ablation", "--seconds=nan"], "seconds must be at least 0, got nan"),
        (["loss", "--nanogpt", ".", "--tiny-shakespeare", ".", "--preset", "x"], "preset must be one of shakespeare"),
    ],
)
def test_mistakes_are_one_line_and_2(words, message, capsys):
    assert main(["bench", *words]) == 2
    line = capsys.readouterr().err
    assert line.startswith(f"groundup: {message}")
    assert line.count("\n") == 1


def test_the_sets_that_a_flag_names_are_those_that_there_are():
    assert get_args(get_type_hints(AblationOptions)["set"]) == tuple(SETS)
