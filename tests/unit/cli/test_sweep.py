"""groundup sweep."""

import json
import shutil
import signal
import time

import pytest

from forked import ForkedPopen
from groundup.cli.main import main
from groundup.cli.sweep import plan_runs
from groundup.cli.train import read_request
from groundup.config.errors import UsageError, UserError
from groundup.records.history import read_run
from groundup.studies.sweep import compare


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("groundup.studies.sweep.subprocess.Popen", ForkedPopen)
    (tmp_path / "a.txt").write_text("the quick brown fox jumps over the lazy dog\n" * 60)
    return tmp_path


SMALL = [
    "--data.source=text", "--data.path=a.txt", "--tokens-per-step=16", "--runtime.micro-batch-size=2", "--max-steps=4",
    "--eval.every=2", "--model.n-layer=1", "--model.n-head=1", "--model.n-embd=8", "--model.block-size=8",
    "--runtime.device=cpu", "--runtime.compile=off", "--runtime.matmul=default", "--runtime.threads=1",
]  # fmt: skip


def test_every_combination_is_a_run_of_its_own():
    runs = plan_runs(["shakespeare", "--optim.lr", "1e-3,3e-3", "--seed=1..3", "--max-steps", "50"])
    assert [config.name for config, _ in runs] == [
        f"lr={lr},seed={seed}" for lr in ("1e-3", "3e-3") for seed in (1, 2, 3)
    ]
    assert [(config.optim.lr, config.seed, config.max_steps) for config, _ in runs] == [
        (lr, seed, 50) for lr in (1e-3, 3e-3) for seed in (1, 2, 3)
    ]
    assert {str(config.out_dir) for config, _ in runs} == {"runs/sweep-shakespeare"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["shakespeare", "--seed", "1"], "nothing varies"),
        (["shakespeare", "--seed", "1..100000000"], "more than 1000 values"),
        (
            ["shakespeare", "--seed", "1..100", "--optim.lr", ",".join(f"{i}e-5" for i in range(1, 30))],
            "more than 1000",
        ),
        (["shakespeare", "--seed", "1,1"], "a value stands twice"),
        (["shakespeare", "--optim.lr", "1e-3,0.001"], "a value stands twice"),
        (["shakespeare", "--seed", "1,2", "--seed", "2"], "--seed is given twice"),
        (["shakespeare", "--model.n_head", "1,2", "--model.n-head=2"], "--model.n_head is given twice"),
        (["shakespeare", "--name", "one,two"], "names a folder alone"),
        (["shakespeare", "--data.source", "text", "--data.path", "a b,a?b"], "would have the same folder"),
        (["shakespeare", "--optim.lr", "1e-3,fast"], "must be a number, got 'fast'"),
        (["shakespear", "--seed", "1..2"], "did you mean shakespeare?"),
        (["--config", "x.json", "--seed", "1..2"], "--config does not go with sweep"),
        (["a.txt", "--seed", "1..2", "--resume-or-start"], "--resume-or-start does not go with sweep"),
        (["--seed", "1..2"], "name what to train, a preset or a text, as in groundup sweep shakespeare"),
    ],
)
def test_a_mistake_is_told_before_anything_runs(place, words, said):
    with pytest.raises(UsageError, match=said.replace("?", r"\?")):
        plan_runs(words)


@pytest.mark.fault("G1", "a value that is missing in a list of a sweep", "one line that shows the list, exit 2")
@pytest.mark.parametrize("listed", ["1e-3,,2e-3", ",1e-3,2e-3", "1e-3,2e-3,", "1e-3, ,2e-3", ","])
def test_a_missing_value_is_no_value_less(listed):
    with pytest.raises(UsageError, match=f"a value is missing beside a comma in '{listed}'"):
        plan_runs(["shakespeare", "--optim.lr", listed])


def test_a_separator_may_be_a_comma(place):
    runs = plan_runs(["a.txt", "--data.separator", ",", "--seed", "1..2"])
    assert [(config.data.separator, config.seed) for config, _ in runs] == [(",", 1), (",", 2)]


def test_a_file_with_a_comma_in_its_name_is_one_value(place):
    (place / "a,b.txt").write_text("to be or not to be")
    lr = ",".join(f"{i}.{'0' * 130}e-3" for i in (1, 2))  # longer than a file's name may be
    for words in (["shakespeare", "--data.source", "text", "--data.path", "a,b.txt"], ["text", "--data.path=a,b.txt"]):
        runs = plan_runs([*words, "--optim.lr", lr])
        assert {str(config.data.path) for config, _ in runs} == {"a,b.txt"}
        assert len(runs) == 2


def test_a_value_may_stand_behind_a_space():
    assert [config.name for config, _ in plan_runs(["shakespeare", "--seed", "1, 2"])] == ["seed=1", "seed=2"]


def test_flags_may_stand_before_the_preset():
    runs = plan_runs(["--seed", "1..2", "--max-steps", "5", "shakespeare"])
    after = plan_runs(["shakespeare", "--seed", "1..2", "--max-steps", "5"])
    assert [config for config, _ in runs] == [config for config, _ in after]
    assert [read_request(list(line)).config for _, line in runs] == [config for config, _ in after]


def test_each_run_is_what_its_words_say():
    """Flags are read once a value; the config is that of reading the whole line."""
    words = ["shakespeare-modern", "--model.n-layer", "2,3", "--optim.lr", "1e-3,2e-3", "--data.tokenizer", "char,gpt2"]
    runs = plan_runs([*words, "--seed", "7"])
    assert len(runs) == 8
    for config, line in runs:
        assert read_request(list(line)).config == config


def test_another_run_in_the_way_is_left_alone(place):
    (config, _), _ = plan_runs(["shakespeare", "--seed", "1,2"])
    config.run_dir.mkdir(parents=True)
    from groundup.config.io import dump_json, to_dict

    (config.run_dir / "config.json").write_text(dump_json({**to_dict(config), "max_steps": 3}))
    with pytest.raises(UserError, match="is a run with other max_steps; give this sweep a --name"):
        plan_runs(["shakespeare", "--seed", "1,2"])


def test_help_shows_an_example(capsys):
    assert main(["sweep"]) == 0
    assert "groundup sweep shakespeare --optim.lr 1e-3,3e-3 --seed 1..3" in capsys.readouterr().out


def test_a_sweep_runs_compares_and_goes_on_where_it_was(place, capfd):
    words = ["sweep", "shakespeare", "--seed", "1..2", *SMALL, "--name", "tried"]
    assert main(words) == 0
    out, err = capfd.readouterr()
    for i in (1, 2):
        assert f"run {i} of 2: runs/tried/seed={i}\n" in out
        assert json.loads((place / f"runs/tried/seed={i}/config.json").read_text())["name"] == f"seed={i}"
    assert "±" in out[out.index("best val loss") :]
    assert "last step" not in err
    assert (place / "runs/tried/sweep.png").read_bytes().startswith(b"\x89PNG")

    shutil.rmtree(place / "runs/tried/seed=2/model")  # as if it had been killed before its last words
    compare([read_run(place / f"runs/tried/seed={i}") for i in (1, 2)], place)
    assert "1 of 2 runs are not at their last step, and compared by what they have" in capfd.readouterr().err
    assert main(words) == 0
    out = capfd.readouterr().out
    assert "run 1 of 2: runs/tried/seed=1: finished\n" in out
    assert "run 2 of 2: runs/tried/seed=2: goes on" in out
    assert (place / "runs/tried/seed=2/model/config.json").is_file()


def test_a_run_that_fails_ends_the_sweep_with_its_code(place, capfd):
    words = ["sweep", "shakespeare", "--seed", "1..2", *SMALL, "--data.path=missing.txt"]
    code = main(words)
    assert code == 1
    err = capfd.readouterr().err
    assert "missing.txt" in err
    assert err.count("\n") == 1  # nothing has begun that the same command could go on with


@pytest.mark.fault(
    "E11",
    "SIGTERM, SIGHUP or SIGINT to a sweep alone, while one of its runs goes on",
    "the run saves and ends, then the sweep",
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_the_end_of_a_sweep_is_that_of_its_run(place, monkeypatch, capsys, number):
    class Ending(ForkedPopen):
        """Signals the sweep once its run has saved something; the sweep then waits for the run alone."""

        def wait(self, timeout=None):
            if not self.asked:
                self.asked = True
                while not list(place.glob("runs/*/*/checkpoints/step-*")):
                    time.sleep(0.05)
                signal.raise_signal(number)
            return super().wait(timeout)

        asked = False

    monkeypatch.setattr("groundup.studies.sweep.subprocess.Popen", Ending)
    monkeypatch.setattr("groundup.studies.sweep._has_terminal", lambda: False)
    words = [word for word in SMALL if not word.startswith("--max-steps")]
    assert main(["sweep", "shakespeare", *words, "--max-steps=1000000", "--seed=1,2"]) == 128 + number
    said = "ended with 130; the same command goes on" if number == signal.SIGINT else f"ended by {number.name}"
    assert said in capsys.readouterr().err
    (run,) = place.glob("runs/*/seed=*")
    assert read_run(run).state == "stopped"
