import pytest

from groundup.cli.main import main


def run(capsys, *words, code=0):
    assert main(["plan", *words]) == code
    captured = capsys.readouterr()
    return captured.out if code == 0 else captured.err.strip().removeprefix("groundup: ")


def test_tokens_become_steps(capsys):
    out = run(capsys, "gpt2-fineweb", "--tokens", "1.7B", "--hardware", "8xH100")
    assert "3,243" in out  # 1.7e9 / 524,288, upward
    assert "8 x H100, bf16" in out
    assert "cost" not in out


def test_flags_of_a_run_change_the_plan(capsys):
    one = run(capsys, "gpt2-fineweb", "--hardware", "T4", "--model.block-size", "512", "--dollars-per-hour", "1")
    assert "context 512" in one
    assert "$1 per device hour" in one
    flags = ["--hardware=T4", "--model.block-size=512", "--dollars-per-hour=1"]
    assert run(capsys, "gpt2-fineweb", *flags) == one
    assert run(capsys, *flags, "gpt2-fineweb") == one


def test_here_is_measured(capsys):
    out = run(capsys, "tiny-shakespeare", "--model.n-layer", "1", "--model.n-embd", "16", "--model.n-head", "2")
    out = " ".join(out.split())  # where lines are broken depends on the processor's name
    assert "measured in training" in out
    assert "sequences at a time per device" in out


@pytest.mark.parametrize("words", ["shakespeare --help", "--help shakespeare", "shakespeare --hardware=T4 -h"])
def test_help_of_a_preset_begins_with_the_flags_of_plan(capsys, words):
    with pytest.raises(SystemExit) as left:
        main(["plan", *words.split()])
    assert not left.value.code
    out = capsys.readouterr().out
    assert out.count("usage: groundup plan PRESET") == 1
    assert 0 < out.index("--hardware WHAT") < out.index("--max-steps INT")


@pytest.mark.parametrize("words", [[], ["--help"], ["--hardware", "T4", "-h"]])
def test_help_without_a_preset_is_that_of_plan(capsys, words):
    out = run(capsys, *words)
    assert "--hardware WHAT" in out
    assert "--max-steps" not in out


@pytest.mark.parametrize("words", ["plan shakespeare --hardware T4", "train shakespeare --dry-run"])
def test_in_a_pipe_a_fact_is_a_line_without_blanks_at_its_end(capsys, monkeypatch, words):
    monkeypatch.setenv("COLUMNS", "60")
    assert main(words.split()) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [line.rstrip() for line in lines]
    assert sum(line.startswith(("model  ", "learning rate  ", "memory")) for line in lines) == 3
    assert not [line for line in lines if line.startswith(" ")]


@pytest.mark.fault("G1", "numbers of plan without end, of other scripts, or that make no sense", "one line, exit 2")
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["gpt2-fineweb", "--tokens", "many", "--hardware", "T4"], "--tokens must be a number such as 300M or 10B"),
        (["gpt2-fineweb", "--tokens", "1B", "--max-steps=1", "--hardware", "T4"], "both say how long the run is"),
        (["gpt2-fineweb", "--tokens", "0", "--hardware", "T4"], "--tokens must be a number such as"),
        *[
            (["gpt2-fineweb", "--tokens", tokens, "--hardware", "T4"], "--tokens must be a number such as")
            for tokens in ("9" * 400, "٣M", "1e400")
        ],
        *[
            (["gpt2-fineweb", "--hardware", hardware], "hardware must be here, or a device")
            for hardware in ("T5", "00xT4", "9" * 5000 + "xT4", "٣xT4")
        ],
        (["gpt2-fineweb", "--mfu", "1e-320"], "--mfu must be a number from"),
        (["gpt2-fineweb", "--mfu", "nan"], "--mfu must be a number from"),
        (["gpt2-fineweb", "--hardware", "3xT4"], "must be a multiple"),
        (["gpt2-fineweb", "--mfu", "1.5"], "--mfu must be a number from 0.001 to 1"),
        (
            ["gpt2-fineweb", "--hardware", "T4", "--dollars-per-hour", "x"],
            "--dollars-per-hour must be a number from 0.001 to 1e+06",
        ),
        (["gpt2-finewep"], "did you mean gpt2-fineweb?"),
    ],
)
def test_mistakes_get_one_line(capsys, words, says):
    line = run(capsys, *words, code=2)
    assert says in line
    assert "\n" not in line
