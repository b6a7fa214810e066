"""What the documents tell people to type, and where they point, must be there."""

import dataclasses
import importlib
import re
import shlex
import shutil
import tomllib
from pathlib import Path
from urllib.parse import urlparse

import pytest

from groundup.cli.main import COMMANDS, main
from groundup.config.io import dump_json, load_json, to_dict
from groundup.config.presets import RECIPES

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

PLACEHOLDERS = {"COMMAND", "PRESET", "FILE", "DIR", "NAME", "WHAT", "...", "…"}
"""What stands for the reader's own words."""


def commands():
    """Every `groundup ...` in backticks and every line of a code block that is one, with the document's name."""
    found = {}
    for document in DOCUMENTS:
        if document.name == "log.md" or "adr" in document.parts:
            continue  # records of what was, not instructions
        text = document.read_text(encoding="utf-8")
        # What a `console` block shows may be a mistake and its answer; test_commands.py runs those.
        blocks = re.findall(r"^```(?!console)\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
        inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
        for line in [*lines, *inline]:
            if match := re.match(r"(?:\$ )?(groundup [^|#]+)", line.strip()):
                found.setdefault(match[1].strip(), document.name)
    return found


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_the_way_without_make_installs_what_make_installs(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    by_make = re.search(r"\.demo: .*\n\t\$\(PIP\) --editable '(.*)'", (ROOT / "Makefile").read_text(encoding="utf-8"))[
        1
    ]
    wanted = [
        "python -m venv .venv",
        "source .venv/bin/activate",
        f'pip install -c constraints.txt -e "{by_make}"',
        "groundup train shakespeare",
    ]
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert wanted in [block.splitlines() for block in blocks]


COMMAND_LINES = commands()


class Parsed(Exception):
    """The command line was read to its end, and nothing was done."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, furnished):
    """A folder with the runs that the documents speak of. Nobody writes there: commands are only read, or dry runs."""
    tmp_path = tmp_path_factory.mktemp("readme")
    shutil.copytree(furnished, tmp_path, dirs_exist_ok=True)
    for folder in ("runs/shakespeare", "their-run"):
        path = tmp_path / folder / "config.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        config = to_dict(dataclasses.replace(RECIPES["shakespeare"], name=path.parent.name))
        path.write_text(dump_json(config))
        if (run := path.with_name("run.json")).exists():
            run.write_text(dump_json(load_json(run) | {"config": config}))
    return tmp_path


@pytest.fixture
def place(folder, monkeypatch):
    """The working folder is that folder."""
    monkeypatch.chdir(folder)


def read(words, monkeypatch):
    """Run a command up to the point where its flags are typed values."""
    command = words[0]
    file = next(name for name in (command, f"{command}_") if (ROOT / f"src/groundup/cli/{name}.py").is_file())
    module = importlib.import_module(f"groundup.cli.{'train' if command == 'finetune' else file}")
    main_of = importlib.import_module(f"groundup.cli.{file}").main

    def until_parsed(reader):
        def stop(*args, **options):
            reader(*args, **options)
            raise Parsed

        return stop

    # Some parse in several steps.
    readers = {"train": "read_request", "finetune": "read_request", "plan": "read_request", "sweep": "plan_runs"}
    name = readers.get(command, "parse")
    monkeypatch.setattr(module, name, until_parsed(getattr(module, name)))
    with pytest.raises((Parsed, SystemExit)) as stopped:
        raise SystemExit(main_of(words[1:]))
    assert getattr(stopped.value, "code", 0) in (0, None)


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_every_command_line_is_understood(line, place, monkeypatch, capsys):
    words = shlex.split(line)[1:]
    if words[0].startswith("-"):
        return
    assert {words[0]} & {*COMMANDS, *PLACEHOLDERS}, f"{COMMAND_LINES[line]}: there is no groundup {words[0]}"
    if not set(words) & PLACEHOLDERS:
        read(words, monkeypatch)


def test_the_readme_has_the_commands_that_matter():
    told = {shlex.split(line)[1] for line, document in COMMAND_LINES.items() if document == "README.md"}
    assert set(COMMANDS) <= told


@pytest.mark.parametrize("line", [line for line in COMMAND_LINES if "--dry-run" in line or "--help" in line])
def test_what_costs_nothing_is_run(line, place, capsys):
    words = shlex.split(line)[1:]
    status = 0
    try:
        status = main(words)
    except SystemExit as stop:
        status = stop.code or 0
    assert status == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_point_at_something(document):
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if urlparse(target).scheme or target.startswith("#"):
            continue
        assert (document.parent / target.split("#")[0]).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_that_are_named_exist(document):
    """Paths from the root of the checkout, in backticks or plain, as in (tests/unit/model/test_gpt.py)."""
    text = document.read_text(encoding="utf-8")
    for target in re.findall(r"\b((?:src|tests|docs|benchmarks)/[\w./-]*\w\.(?:py|md|png|json))", text):
        assert (ROOT / target).exists() or (document.parent / target).exists(), target


def test_make_targets_that_are_named_exist():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for target in re.findall(r"(?:^|`)make ([\w-]+)", text, re.MULTILINE):
            assert target in targets, f"{document.name}: make {target}"


def test_extras_that_are_named_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for path in [*DOCUMENTS, *sorted((ROOT / "src").rglob("*.py"))]:
        for names in re.findall(r"groundup\[([\w,-]+)\]", path.read_text(encoding="utf-8")):
            assert set(names.split(",")) <= set(extras), f"{path.name}: {names}"
