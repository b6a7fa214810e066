import importlib
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

from groundup import __version__
from groundup.cli import main as cli
from groundup.cli.main import COMMANDS, main
from groundup.config.errors import UsageError, UserError
from groundup.config.io import dump_json, to_dict
from groundup.config.presets import RECIPES
from groundup.tokenizer.char import CharTokenizer
from groundup.tokenizer.io import tokenizer_json

OTHERS = {"tokenizer", "prepare", "data", "import", "export"}
"""Commands whose tests are in files of their own."""


def error_of(capsys, words, code):
    assert main(words) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("groundup: ")
    assert printed.err.count("\n") == 1
    return printed.err.removeprefix("groundup: ").rstrip("\n")


@pytest.mark.parametrize("words", [[], ["-h"], ["--help"], ["help"]])
def test_help_lists_every_command(words, capsys):
    assert main(words) == 0
    printed = capsys.readouterr().out
    for name, what in COMMANDS.items():
        assert f"  {name} " in printed
        assert what in printed


@pytest.mark.parametrize("flag", ["-V", "--version"])
def test_version(flag, capsys):
    assert main([flag]) == 0
    assert capsys.readouterr().out == f"groundup {__version__}\n"


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        ("trian", "unknown command 'trian'; did you mean train?"),
        ("Generate", "unknown command 'Generate'; did you mean generate?"),
        ("doktor", "unknown command 'doktor'; did you mean doctor?"),
        ("zzz", f"unknown command 'zzz'; the commands are {', '.join(COMMANDS)}"),
        ("", f"unknown command ''; the commands are {', '.join(COMMANDS)}"),
        ("main", None),  # a module beside the commands is none
        ("a\nb", None),
    ],
)
def test_an_unknown_command_is_answered_with_the_nearest(word, answer, capsys):
    line = error_of(capsys, [word], 2)
    assert line.startswith("unknown command")
    assert answer in (None, line)


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - OTHERS))
def test_every_listed_command_can_be_imported_and_explains_itself(command, capsys):
    module = importlib.import_module(f"groundup.cli.{command}")
    assert callable(module.main)
    status = 0
    try:
        status = main([command, "--help"])
    except SystemExit as stop:  # tyro's way to end after its help
        status = stop.code or 0
    assert status == 0
    printed = capsys.readouterr()
    assert f"groundup {command}" in printed.out
    assert printed.err == ""


@pytest.fixture
def command(monkeypatch):
    """Make `groundup doctor` do what a test wants."""

    def install(action):
        module = types.SimpleNamespace(main=action)
        monkeypatch.setattr(cli.importlib, "import_module", lambda name: module)

    return install


@pytest.mark.parametrize(("error", "code"), [(UserError("the disk is full"), 1), (UsageError("no such flag"), 2)])
def test_the_users_errors_are_one_line_and_a_code(error, code, command, capsys):
    def fail(argv):
        raise error

    command(fail)
    assert error_of(capsys, ["doctor"], code) == str(error)


def test_our_errors_keep_their_traceback(command):
    command(lambda argv: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        main(["doctor"])


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            PermissionError(13, "Permission denied", "runs/config.json"),
            "cannot use runs/config.json: Permission denied",
        ),
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError(), "OSError"),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to"
                " allocate 1920 bytes. Error code 12 (Cannot allocate memory)"
            ),
            "out of memory (tried to allocate 1920 bytes); a smaller batch, context or model needs less",
        ),
        (
            FileNotFoundError(2, "No usable temporary directory found in ['/tmp']"),
            "No usable temporary directory found in ['/tmp']; TMPDIR may name one",
        ),
        (MemoryError(), "out of memory; a smaller batch, context or model needs less"),
    ],
)
def test_what_the_machine_refuses_is_one_line(error, line, command, capsys):
    def fail(argv):
        raise error

    command(fail)
    assert error_of(capsys, ["doctor"], 1) == line


def test_a_gpu_out_of_memory_is_one_line(command, capsys):
    def fail(argv):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has\na total of 1 GiB.")

    command(fail)
    assert error_of(capsys, ["doctor"], 1).startswith("out of memory (tried to allocate 2.00 GiB);")


def test_ctrl_c_is_130(command, capsys):
    def interrupt(argv):
        raise KeyboardInterrupt

    command(interrupt)
    assert error_of(capsys, ["doctor"], 130) == "interrupted"


ENDS = """
import atexit, gc
atexit.register(lambda: print(2 * gc.get_freeze_count() > made))  # runs after what comes later
from groundup.cli.main import main
main(["--version"])
made = len(gc.get_objects())
"""


def test_python_looks_at_no_object_again_when_a_command_has_ended():
    done = subprocess.run([sys.executable, "-c", ENDS], capture_output=True, text=True)
    assert (done.stdout.splitlines()[1:], done.stderr) == (["True"], "")


def test_the_command_gets_its_words_and_its_code_is_returned(command):
    seen = []
    command(lambda argv: seen.append(argv) or 7)
    assert main(["doctor", "--json", "x"]) == 7
    assert seen == [["--json", "x"]]


def test_words_come_from_the_command_line(command, monkeypatch):
    command(lambda argv: len(argv))
    monkeypatch.setattr(sys, "argv", ["groundup", "doctor", "a", "b"])
    assert main() == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a file that is always full")
@pytest.mark.parametrize("words", [["--help"], ["train"], ["train", "shakespeare", "--dry-run"]])
def test_a_full_disk_is_one_line(words):
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "groundup", *words], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (result.returncode, result.stderr) == (1, "groundup: No space left on device\n")


def test_a_reader_that_leaves_is_no_error():
    """`groundup --help | head -0`: the pipe is closed before anything is written."""
    code = (
        "import sys\nfrom groundup.cli import main as m\n"
        "class Module:\n  main = staticmethod(lambda argv: print('x' * 100_000, flush=True) or 0)\n"
        "m.importlib.import_module = lambda name: Module\nsys.exit(m.main(['doctor']))"
    )
    read, write = os.pipe()
    os.close(read)
    result = subprocess.run([sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (result.returncode, result.stderr) == (1, "")


ENTRY = [sys.executable, "-c", "import sys; from groundup.cli.main import main; sys.exit(main())"]


@pytest.mark.fault(
    "G1",
    "a process is started without stdin, stdout or stderr, or with a width of 0",
    "it works all the same: no traceback",
)
@pytest.mark.parametrize("how", [">&-", "2>&-", ">&- 2>&-", "<&-"])
def test_closed_streams_are_no_reason_to_fail(tmp_path, how):
    (tmp_path / "t.json").write_text(tokenizer_json(CharTokenizer("ab")), "utf-8")
    encode = f"tokenizer encode --tokenizer '{tmp_path}/t.json'"
    for words, code in (("--version", 0), (f"runs list '{tmp_path}'", 0), ("runs list gone", 1), (encode, 0)):
        shell = subprocess.run(
            ["sh", "-c", f'"$0" "$@" {words} {how}', *ENTRY],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert shell.returncode == code
        assert "Traceback" not in shell.stderr
    if "2>&-" not in how:
        assert shell.stderr == "groundup: no text was given, and standard input is empty\n"


def test_a_width_of_0_is_no_width(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    for columns in ("0", "80"):
        env = os.environ | {"COLUMNS": columns}
        done = subprocess.run(
            [*ENTRY, "runs", "list", str(tmp_path)], capture_output=True, text=True, env=env, check=True
        )
        assert "crashed" in done.stdout


def test_help_fits_into_any_width():
    env = os.environ | {"COLUMNS": "3"}
    done = subprocess.run(
        [*ENTRY, "generate", "--help"], capture_output=True, text=True, env=env, timeout=100, check=True
    )
    assert "--temperature" in done.stdout


def test_a_folder_that_is_gone_is_one_line(capsys, monkeypatch, tmp_path):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    line = error_of(capsys, ["doctor"], 1)
    monkeypatch.undo()
    assert line == "the folder that this command was started in is gone; go to one that is there (cd)"


@pytest.mark.parametrize("home", ["there", "none"])
def test_temporary_files_go_to_the_cache_where_a_disk_is_read_only(monkeypatch, tmp_path, home):
    monkeypatch.setenv("TMPDIR", "/tmp")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache") if home == "there" else "")
    monkeypatch.setenv("HOME", "/dev/null")
    monkeypatch.setattr(os, "access", lambda folder, how: False)
    assert main(["--version"]) == 0
    assert os.environ["TMPDIR"] == (str(tmp_path / "cache") if home == "there" else "/tmp")
    assert (tmp_path / "cache").is_dir() == (home == "there")


@pytest.mark.fault("G2", "a value of ten million characters is refused", "the line shows its beginning and its end")
def test_an_error_is_a_line_that_can_be_read(capsys, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"name": "a/" + "b" * 10_000_000}))
    said = error_of(capsys, ["train", "--config", str(tmp_path / "config.json")], 2)
    assert len(said) < 2100


@pytest.mark.fault(
    "G2",
    "a folder's name holds an escape of the terminal, markup, a new line, or bytes that are no text",
    "it is shown as it is spelled, control characters as their escapes; an error stays one line",
)
def test_names_neither_command_the_terminal_nor_break_the_line(tmp_path, capsys):
    name = "a\x1b[2J\r[bold]:smile:\n\x9b"
    (tmp_path / name).mkdir()
    (tmp_path / name / "run.json").write_text("{}")
    assert main(["runs", "list", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "a\\x1b[2J\\r[bold]:smile:" in out
    assert not set("\x1b\r\x9b") & set(out)
    error = error_of(capsys, ["eval", str(tmp_path / name / "gone")], 1)
    assert "a\\x1b[2J\\r[bold]:smile:\\n\\x9b/gone does not exist" in error


@pytest.mark.fault(
    "G2",
    "a run on paper or a table of tokenizers names such a folder",
    "control characters are shown as their escapes, markup as it is spelled",
)
def test_tables_do_not_command_the_terminal(tmp_path, capsys):
    name, shown = "a\x1b[2J[/b]", "a\\x1b[2J[/b]"
    folder = tmp_path / name
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_text(tokenizer_json(CharTokenizer("ab\n")), "utf-8")
    for words in (
        ["train", "shakespeare", "--dry-run", "--out-dir", str(folder)],
        ["plan", "shakespeare", "--hardware", "T4", "--out-dir", str(folder)],
        ["tokenizer", "show", "ab", "--tokenizer", str(folder), "--tokenizer", str(folder / "tokenizer.json")],
    ):
        assert main(words) == 0
        out = capsys.readouterr().out
        assert "\x1b" not in out
        assert shown in "".join(out.split())  # a table breaks lines where a path is long, and indents what follows


@pytest.mark.fault(
    "B4",
    "a link that leads back to itself stands for a run, a model, a text, a tokenizer or an output folder",
    "one line that names it; the link stays",
)
@pytest.mark.parametrize(
    "words",
    [
        ["generate", "LINK"],
        ["eval", "LINK"],
        ["export", "LINK", "out"],
        ["import", "LINK"],
        ["serve", "LINK"],
        ["report", "LINK"],
        ["runs", "list", "LINK"],
        ["runs", "compare", "LINK"],
        ["data", "info", "LINK"],
        ["prepare", "LINK", "out"],
        ["tokenizer", "encode", "a", "--tokenizer", "LINK"],
        ["train", "--resume", "LINK"],
        ["train", "--config", "LINK"],
        ["train", "shakespeare", "--data.source", "text", "--data.path", "LINK"],
        ["train", "shakespeare", "--init-from", "LINK"],
        ["train", "shakespeare", "--out-dir", "LINK"],
        ["finetune", "LINK", "LINK"],
    ],
    ids=" ".join,
)
def test_a_link_to_itself_is_one_line(words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    link = Path("around")
    link.symlink_to(link)
    assert main([str(link) if word == "LINK" else word for word in words]) in (1, 2)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "around" in said
    assert [path.name for path in tmp_path.iterdir()] == ["around"]


@pytest.mark.fault(
    "G2", "a run lies in a folder whose name is an escape or no text", "its picture and its page are drawn, as spelled"
)
@pytest.mark.parametrize("name", ["a\x1b[2J", os.fsdecode(b"\xff\xfe"), "$x$", "[b]<i>"])
@pytest.mark.filterwarnings("error")
def test_a_report_of_a_run_of_any_name(tmp_path, capsys, name):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "config.json").write_text(dump_json(to_dict(RECIPES["shakespeare"])))
    (folder / "run.json").write_text("{}")
    rows = ['{"step": 0, "tokens": 0, "val/loss": 4.0}', '{"step": 9, "tokens": 90, "val/loss": 2.0}']
    (folder / "metrics.jsonl").write_text("\n".join(rows) + "\n")
    assert main(["report", str(folder)]) == 0
    assert "\x1b" not in (folder / "report.html").read_text(encoding="utf-8")
    assert main(["runs", "plot", str(folder), "--out", str(tmp_path / "a.png")]) == 0
    assert not set("\x1b\udcff") & set("".join(capsys.readouterr()))


def test_names_that_an_encoding_lacks_are_printed_all_the_same(tmp_path):
    (tmp_path / "é").mkdir()
    (tmp_path / "é" / "run.json").write_text("{}")
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))).mkdir()
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")) / "run.json").write_text("{}")
    for encoding in ("ascii", "utf-8", "cp1252"):
        env = os.environ | {"PYTHONIOENCODING": f"{encoding}:strict"}
        done = subprocess.run([*ENTRY, "runs", "list", str(tmp_path)], capture_output=True, env=env, check=False)
        assert (done.returncode, done.stderr) == (0, b"")


def test_several_files_that_cannot_be_read_are_a_line_each(tmp_path, capsys):
    for name in "abc":
        (tmp_path / f"{name}.txt").write_bytes(b"\xff\xfea\0")
    (tmp_path / "good.txt").write_text("text")
    assert main(["prepare", str(tmp_path), str(tmp_path / "set"), "--workers=1"]) == 1
    said = capsys.readouterr().err.splitlines()  # on a slow machine, how far it is as well
    first, *others = [line for line in said if line.startswith("groundup: ")]
    assert first == "groundup: 3 files cannot be read; --bad-files skip leaves them out:"
    for name, line in zip("abc", others, strict=True):
        assert line.startswith(f"groundup:   {tmp_path / name}.txt is UTF-16")
