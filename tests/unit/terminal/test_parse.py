import ast
import dataclasses
import io
import itertools
import os
import signal
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from groundup.cli.generate import Options as GenerateOptions
from groundup.config.errors import UsageError
from groundup.config.presets import RECIPES
from groundup.config.train import TrainConfig
from groundup.terminal import parse as parse_module
from groundup.terminal.ended import Ended
from groundup.terminal.parse import nearest, one_line, parse


@dataclasses.dataclass(frozen=True)
class Inner:
    """The inner part."""

    rate: float = 0.5
    """A number."""
    kind: Literal["warm", "cold"] = "warm"
    """A choice."""


@dataclasses.dataclass(frozen=True)
class Options:
    """What the help says first."""

    folder: Path
    """A required one."""
    depth: int
    """Another."""
    inner: Inner = dataclasses.field(default_factory=Inner)
    loud: bool = False
    """A switch."""

    def __post_init__(self):
        if self.depth < 0:
            raise UsageError(f"depth must be 0 or more, got {self.depth}")
        if self.loud and self.depth == 0:
            raise UsageError("--loud and depth 0 do not go together")


GOOD = ["--folder=here", "--depth=3"]


def refuse(argv, spec=Options, **options):
    with pytest.raises(UsageError) as caught:
        parse(spec, argv, prog="prog cmd", **options)
    return str(caught.value)


def test_a_switch_takes_no_value():
    assert refuse([*GOOD, "--loud=yes"]) == "--loud takes no value, got 'yes': write --loud or --no-loud"
    line = refuse(["--runtime.recompute=1"], TrainConfig)
    assert line == "--runtime.recompute takes no value, got '1': write --runtime.recompute or --runtime.no-recompute"


def test_values_arrive_typed():
    result = parse(Options, [*GOOD, "--inner.rate", "1", "--inner.kind=cold", "--loud"], prog="p")
    assert result == Options(Path("here"), 3, Inner(1.0, "cold"), loud=True)
    assert type(result.inner.rate) is float


def test_a_default_stands_where_no_flag_is_given():
    default = Options(Path("there"), 7, Inner(0.1, "cold"))
    assert parse(Options, ["--inner.rate=0.2"], prog="p", default=default) == dataclasses.replace(
        default, inner=Inner(0.2, "cold")
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--inner.rte", "1"], "unrecognized options: --inner.rte, 1; did you mean --inner.rate?"),
        (["--lod"], "unrecognized options: --lod; did you mean --loud?"),
        (["stray"], "unrecognized options: stray (help)"),
        (["--inner.rate", "fast"], "--inner.rate must be a number, got 'fast' (help)"),
        (["--depth", "1.5"], "--depth must be a whole number, got '1.5' (help)"),
        (["--inner.kind=tepid"], "--inner.kind must be one of 'warm', 'cold', got 'tepid' (help)"),
        (["--inner.rate"], "--inner.rate needs a value (help)"),
        (["--depth=-1"], "depth must be 0 or more, got -1 (help)"),
        (["--depth=0", "--loud"], "--loud and depth 0 do not go together (help)"),
    ],
)  # fmt: skip
def test_every_mistake_is_one_line_that_says_what_to_do(words, message):
    assert refuse([*GOOD, *words]) == message.replace("(help)", "(see prog cmd --help)")


def test_what_is_missing_is_named():
    assert refuse([]) == "missing --folder PATH, --depth INT (see prog cmd --help)"
    assert refuse(["--depth=3"]) == "missing --folder PATH (see prog cmd --help)"


def test_a_narrow_terminal_does_not_break_the_line(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    long = "--inner.kind=" + "x" * 300
    assert "x" * 300 in refuse([*GOOD, long])
    assert os.environ["COLUMNS"] == "20"
    monkeypatch.delenv("COLUMNS")
    assert "x" * 300 in refuse([*GOOD, long])
    assert "COLUMNS" not in os.environ


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("encoding", ["utf-8", "UTF-8", "ascii", "latin-1"])
def test_the_line_is_the_same_on_every_terminal(terminal, encoding, monkeypatch):
    """tyro colors its boxes on a terminal and draws them with other characters for other encodings."""
    monkeypatch.setenv("TERM", "xterm-256color")
    with io.TextIOWrapper(io.BytesIO(), encoding=encoding) as stdout:
        stdout.isatty = lambda: terminal
        monkeypatch.setattr("sys.stdout", stdout)
        message = refuse([*GOOD, "--inner.rte=1"])
        monkeypatch.undo()
    assert message == "unrecognized options: --inner.rte=1; did you mean --inner.rate?"


def flags(config, prefix=""):
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            yield from flags(value, f"{prefix}{f.name}.")
        else:
            yield f"--{prefix}{f.name}".replace("_", "-"), value


@pytest.mark.parametrize("change", ["swap", "drop", "double"])
def test_every_flag_of_a_run_is_found_again_from_a_typo(change):
    # beta1 and beta2 are as near to each other's typos as to their own.
    names = [name for name, _ in flags(RECIPES["shakespeare"]) if name != "--optim.beta2"]
    assert len(names) >= 39
    for name in names:
        if change == "swap":
            typo = name[:-2] + name[-1] + name[-2]
        else:
            typo = name[:-2] + name[-1] if change == "drop" else name + name[-1]
        near = nearest(typo, names)
        assert near == name, typo


def test_a_flag_without_its_section_is_found():
    recipe = RECIPES["shakespeare"]
    assert refuse(["--lr=1"], TrainConfig, default=recipe).endswith("did you mean --optim.lr?")
    assert refuse(["--n-layer", "3"], TrainConfig, default=recipe).endswith("did you mean --model.n-layer?")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--no-checkpoint.growth", "--checkpoint.no-growth"),
        ("--no-checkpoint.growht", "--checkpoint.no-growth"),
        ("--no-recompute", "--runtime.no-recompute"),
        ("--checkpoint.nogrowth", "--checkpoint.no-growth"),
        ("--checkpoint.growht", "--checkpoint.growth"),
        ("--no-compile", "--runtime.compile"),  # which has values, and no negation
        ("--runtime.no-compile", "--runtime.compile"),
        ("--no-runtime.compile", "--runtime.compile"),
        ("--model.no-n-layer", "--model.n-layer"),
        ("--no-seed", "--seed"),
        ("--optim.learning-rate", "--optim.lr"),
        ("--optim.learning_rate", "--optim.lr"),
        ("--optim.min-lr", "--optim.min-lr-ratio"),
        ("--model.layers", "--model.n-layer"),
        ("--optm.name", "--optim.name"),
    ],
)
def test_no_flag_is_turned_into_its_opposite_or_another(typed, meant):
    assert refuse([typed], TrainConfig).endswith(f"; did you mean {meant}?")


def test_flags_behind_two_dashes_are_told_of_them():
    line = refuse([*GOOD, "--", "--loud"])
    assert line == "unrecognized options: --loud; they stand behind a -- alone: leave it out (see prog cmd --help)"


def test_flags_that_the_command_reads_itself_are_found_too():
    assert refuse([*GOOD, "--dryrun"], also=["--dry-run"]).endswith("did you mean --dry-run?")
    assert "did you mean" not in refuse([*GOOD, "--no-dry-run"], also=["--dry-run"])


def test_every_value_of_a_recipe_can_be_given_as_a_flag():
    recipe = RECIPES["gpt2-fineweb"]
    words = []
    for name, value in flags(recipe):
        if value == ():
            continue  # nothing to write
        section, _, last = name.rpartition(".")
        switch = name if value else (f"{section}.no-{last}" if section else f"--no-{last[2:]}")
        words.append(switch if isinstance(value, bool) else f"{name}={value}")
    assert parse(TrainConfig, words, prog="p", default=RECIPES["tiny-shakespeare"]) == recipe


def test_help_goes_to_stdout_and_exits_with_0(capsys):
    with pytest.raises(SystemExit) as caught:
        parse(Options, ["--help"], prog="prog cmd")
    assert caught.value.code in (0, None)
    printed = capsys.readouterr()
    assert "usage: prog cmd" in printed.out
    assert "What the help says first." in printed.out
    assert "A number." in printed.out
    assert printed.err == ""


@pytest.mark.parametrize("room", ["config", "cli", "bench"])
def test_the_help_of_a_flag_is_one_line(room):
    """tyro breaks a help text where its source breaks, in the middle of a sentence."""
    broken = []
    for file in (Path(parse_module.__file__).parents[1] / room).glob("*.py"):
        for owner in ast.walk(ast.parse(file.read_text("utf-8"))):
            for field, text in itertools.pairwise(
                getattr(owner, "body", []) if isinstance(owner, ast.ClassDef) else []
            ):
                if (
                    isinstance(field, ast.AnnAssign)
                    and isinstance(text, ast.Expr)
                    and isinstance(text.value, ast.Constant)
                ):
                    broken += [f"{file.name}: {ast.unparse(field)}"] * ("\n" in str(text.value.value))
    assert broken == []


def test_completion_scripts_go_to_stdout(capsys):
    with pytest.raises(SystemExit) as caught:
        parse(Options, ["--tyro-print-completion", "bash"], prog="prog")
    assert not caught.value.code
    assert "--inner.rate" in capsys.readouterr().out


words = st.sampled_from(["x", "--seed", "--top-p", "--stop", "--device", "--stream", "--", "-", "--no-", "--prompt="])
garbage = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("│─╭╰[]\n\r{}%"), max_size=12)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(argv=st.lists(words | garbage | garbage.map("--{}".format) | garbage.map("--seed={}".format), max_size=4))
@example(argv=["-a\r"])
def test_whatever_is_typed_the_answer_is_options_or_one_line(argv, capsys):
    if {"-h", "--help"} & set(argv):
        return
    try:
        message = ""
        assert isinstance(parse(GenerateOptions, argv, prog="groundup generate"), GenerateOptions)
    except UsageError as error:
        message = str(error)
    assert len(message.splitlines()) <= 1
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "")


@pytest.mark.parametrize("box", ["", "\n", "no box at all", "││\n│ │"])
def test_an_unknown_shape_of_box_is_still_one_line(box):
    line = one_line(box)
    assert line
    assert "\n" not in line


def test_a_signal_while_flags_are_read_is_no_wrong_flag(monkeypatch):
    def signaled(*_, **__):
        raise Ended(signal.SIGTERM)

    monkeypatch.setattr("tyro.cli", signaled)
    with pytest.raises(Ended):
        parse(TrainConfig, [], prog="groundup train", default=None)
