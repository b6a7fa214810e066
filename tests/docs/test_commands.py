"""Every block of the site is what it says: commands are run where that is cheap, else read; outputs are those shown.

A fenced block names its kind. `bash` holds commands: each is understood by the program it calls, and run, in small, if
it needs neither network nor GPU. `console` holds commands after `$` and what they print, `...` standing for anything:
all of them are run and compared. `python` is run. `text` holds no command. There is no other kind.
"""

import contextlib
import io
import re
import runpy
import shlex
import shutil
from pathlib import Path

import pytest

from groundup.cli.main import main

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
RECORDS = {DOCS / "log.md", DOCS / "faults.md", *(DOCS / "adr").glob("*.md")}
"""What was, not what to type."""
PAGES = sorted({*DOCS.rglob("*.md")} - RECORDS)
FENCE = re.compile(r"^( *)(`{3,})([^\n]*)\n(.*?)^\1\2$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"(\$ )?(groundup|torchrun|make|pip|bash|sbatch|python3?|source|hf|git|curl) ")


def name_of(page):
    return page.relative_to(DOCS).with_suffix("").as_posix()


def blocks(page):
    """(kind, lines) of every fenced block."""
    for indent, _, kind, text in FENCE.findall(page.read_text(encoding="utf-8")):
        yield kind.strip(), [line.removeprefix(indent) for line in text.splitlines()]


def commands(lines):
    """The lines of a shell, continued ones joined."""
    joined = "\n".join(lines).replace("\\\n", " ")
    return [line for line in joined.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def in_small(line):
    """The words to run in place of a command, or None where it needs a network, a GPU, minutes, or another program."""
    words = shlex.split(line, comments=True)
    if words[0] != "groundup":
        return None
    command, rest = words[1], words[2:]
    if command in ("train", "finetune") and rest:
        return [command, *rest, *([] if "--dry-run" in rest else ["--dry-run"])]
    if command == "generate":
        return ["generate", *rest, "--max-new-tokens", "4"]
    if command == "prepare":
        return ["prepare", *rest, "--workers", "1"] if Path(rest[0]).exists() else None
    if command == "eval":
        tasks = rest[rest.index("--tasks") + 1].split(",") if "--tasks" in rest else ["val"]
        return words[1:] if all(task == "val" or task.endswith(".jsonl") for task in tasks) else None
    if command == "import":
        return None if rest[0].startswith("hf:") else words[1:]
    return words[1:] if command in ("runs", "data", "tokenizer", "export", "train") else None


def run(words):
    """Exit code of a command in this process, and what it printed: its result, or what went wrong."""
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            code = main(words)
        except SystemExit as stop:
            code = stop.code or 0
    return code, (errors if code else output).getvalue()


@pytest.fixture
def place(furnished, tmp_path, monkeypatch, no_signs_of_life):
    """A copy of the furnished folder for one page, and a terminal of one width."""
    shutil.copytree(furnished, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("sys.stdin", io.StringIO("To be\n"))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_blocks_are_of_a_known_kind(page):
    for kind, lines in blocks(page):
        assert kind in ("bash", "console", "python", "text"), f"a block of kind {kind!r} begins with {lines[0]!r}"
        if kind == "text":
            assert not [line for line in lines if COMMAND.match(line)], "commands go into a bash block"
    # Every fence is one of a pair that the other tests see.
    text = page.read_text(encoding="utf-8")
    assert len(re.findall(r"^ *`{3,}", text, re.MULTILINE)) == 2 * len(list(blocks(page)))


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(kind == "bash" for kind, _ in blocks(page))], ids=name_of
)
def test_commands_are_understood_and_run(page, place, understand):
    for line in [line for kind, lines in blocks(page) if kind == "bash" for line in commands(lines)]:
        understand(line)
        words = in_small(line)
        if words is not None:
            code, output = run(words)
            assert code == 0, f"{line}\n{output}"


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(kind == "console" for kind, _ in blocks(page))], ids=name_of
)
def test_outputs_are_those_shown(page, place):
    for lines in [lines for kind, lines in blocks(page) if kind == "console"]:
        assert lines[0].startswith("$ groundup "), lines[0]
        for command, *shown in split_at(lines, "$ "):
            code, output = run(shlex.split(command)[2:])
            assert (code != 0) == shown[0].startswith("groundup: "), f"{command}\n{output}"
            got = "\n".join(line.rstrip() for line in output.strip("\n").splitlines())
            pattern = ".*".join(re.escape(part) for part in "\n".join(shown).split("..."))
            assert re.fullmatch(pattern, got, re.DOTALL), f"{command}\n{got}"


def split_at(lines, mark):
    """Groups of lines that begin with one that has the mark."""
    groups = []
    for line in lines:
        if line.startswith(mark):
            groups.append([])
        groups[-1].append(line)
    return groups


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(kind == "python" for kind, _ in blocks(page))], ids=name_of
)
def test_python_runs(page, place, tmp_path):
    for number, lines in enumerate(lines for kind, lines in blocks(page) if kind == "python"):
        script = tmp_path / f"block{number}.py"
        script.write_text("\n".join(lines) + "\n")
        runpy.run_path(str(script))
