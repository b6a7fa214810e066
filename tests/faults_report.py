"""Write docs/faults.md from the tests that pass: `make faults`.

A plugin of pytest. Tests say which row they prove with `@pytest.mark.fault(id, fault, promise)`, and may tell a figure
with `record_property("figure", "20 of 20 kills")`. A row is printed only if every case of its test has run and passed.
"""

import re
from pathlib import Path

import pytest

LETTERS = {
    "A": "what a run saves",
    "B": "files from elsewhere",
    "C": "data",
    "D": "resuming",
    "E": "training",
    "F": "serving",
    "G": "the command line",
}
FAMILIES = {
    "A1": "a kill or crash while a checkpoint or a model is saved",
    "A2": "a kill while an old checkpoint is removed",
    "A3": "a power cut during a save",
    "A4": "a checkpoint that is damaged or cannot be read, with others beside it",
    "A5": "flipped bits of a checkpoint",
    "A6": "files that are cut, empty or missing",
    "A7": "a disk that is full or refuses",
    "A8": "a save in the background that fails",
    "A10": "weights or a tokenizer that do not fit the model",
    "A11": "a model folder of another format",
    "A12": "two runs in one folder",
    "A13": "names and numbers of checkpoints",
    "A14": "a checkpoint that goes while it is read",
    "A15": "what killed commands leave behind",
    "A16": "a run folder that is no plain folder",
    "A17": "a training state that cannot be",
    "B1": "a pickle that would run",
    "B2": "headers that lie",
    "B3": "sizes that no memory holds",
    "B4": "names and links that lead elsewhere",
    "B5": "files that nobody vouches for",
    "B6": "input without end, and what is no file",
    "B7": "a library that ends the process",
    "B8": "small files that unpack to large ones",
    "B9": "files of every kind, mutated",
    "C1": "a shard of the wrong size",
    "C2": "flipped bits of a dataset",
    "C3": "ids and tokenizers that do not fit the data",
    "C4": "a preparation that is killed or refused by the disk",
    "C5": "the number and order of workers",
    "C6": "the same work twice at once",
    "C7": "downloads that are cut, changed or false",
    "C8": "a shard that shrinks while it is read",
    "C9": "other data than the run began with",
    "C11": "too little text",
    "C12": "a worker that dies",
    "D1": "stopped and gone on with",
    "D2": "another number of ranks",
    "D3": "many ranks against one process",
    "D4": "the same run twice",
    "D5": "settings that a run cannot change",
    "D6": "files that are gone, or in another place",
    "E1": "a signal asks a run to end",
    "E2": "a signal at a bad moment",
    "E3": "a loss or gradient that is not finite",
    "E4": "spikes of the loss",
    "E5": "overflow of fp16",
    "E6": "memory that does not suffice",
    "E7": "a rank or host that dies or hangs",
    "E8": "a job that is started again and always fails alike",
    "E9": "a disk that is full while a run goes on",
    "E11": "processes that outlive their parents",
    "E12": "results that are noted at once",
    "E13": "output that nobody takes",
    "E14": "training that makes the model worse",
    "E15": "ranks that were started with different things",
    "F1": "more requests than the server can hold",
    "F2": "a client that goes away",
    "F3": "a prompt longer than the context",
    "F4": "fields with any values",
    "F5": "bodies of any bytes",
    "F6": "heads and bodies that are slow or large",
    "F7": "tokens that cut characters and stops",
    "F8": "a stream of events",
    "F9": "questions for health under load",
    "F10": "a server that ends while runs go on",
    "F11": "a model that fails",
    "F12": "requests that share the engine",
    "F13": "a host that somebody else could own",
    "F14": "a page of another origin",
    "F16": "requests without the key",
    "F17": "secrets and control characters in logs",
    "F18": "what grows while a server runs",
    "F19": "a model and names that would command the page",
    "G1": "a process with odd surroundings",
    "G2": "names that command a terminal",
}
"""What each id stands for: one family of faults, of which each row is a member."""
HEADER = f"""# What can go wrong, and what happens then

Written by `make faults` from the tests that passed: a row whose test failed, was skipped or did not run is not here.
Each row is a fault, what is promised, the test that proves it, and what it counted. The letters group them:
{", ".join(f"{letter} {what}" for letter, what in LETTERS.items())}.

{{families}}
| id | fault | promise | test | figure |
|---|---|---|---|---|
"""


def pytest_addoption(parser):
    parser.addoption("--faults", type=Path, metavar="FILE", help="run the tests of faults alone, and write their table")
    parser.addoption("--faults-keep", action="store_true", help="keep the rows of tests that are not run")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--faults") is None:
        return
    rest = [item for item in items if item.get_closest_marker("fault") is None]
    config.hook.pytest_deselected(items=rest)
    items[:] = [item for item in items if item.get_closest_marker("fault") is not None]
    for item in items:
        marks = [list(marker.args) for marker in item.iter_markers("fault")]
        if unknown := [mark[0] for mark in marks if mark[0] not in FAMILIES]:
            raise pytest.UsageError(f"{item.nodeid}: {unknown[0]} is no id of tests/faults_report.py")
        item.user_properties += [("fault", mark) for mark in marks]


def pytest_configure(config):
    if config.getoption("--faults") is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Table(config.getoption("--faults"), keep=config.getoption("--faults-keep")))


class Table:
    """Collects what tests report; in the controller, where tests run in several processes."""

    def __init__(self, path, *, keep=False):
        self.path, self.rows, self.bad = path, {}, {}
        self.kept = rows_of(path.read_text(encoding="utf-8")) if keep and path.exists() else {}

    def pytest_runtest_logreport(self, report):
        test = report.nodeid.split("[")[0]
        if not report.passed:
            self.bad[test] = report.outcome
        if report.when != "call":
            return
        figures = [str(value) for name, value in report.user_properties if name == "figure"]
        for name, value in report.user_properties:
            if name == "fault":
                self.rows.setdefault((*value, test), []).extend(figures)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session):
        good = {key: figures for key, figures in self.rows.items() if key[-1] not in self.bad}
        ran = {key[-1] for key in self.rows} | set(self.bad)
        good |= {key: figures for key, figures in self.kept.items() if key[-1] not in ran}
        self.path.write_text(table(good), encoding="utf-8")

    def pytest_terminal_summary(self, terminalreporter):
        terminalreporter.line(f"{self.path} has {len([key for key in self.rows if key[-1] not in self.bad])} rows")
        for test, outcome in sorted(self.bad.items()):
            terminalreporter.line(f"not printed: {test} ({outcome})")


def table(rows):
    """The page: what the ids of its rows stand for, then the rows."""
    ids = sorted({key[0] for key in rows}, key=lambda name: order((name,)))
    families = "".join(f"- {name}: {FAMILIES[name]}\n" for name in ids)
    lines = [line(key, figures) for key, figures in sorted(rows.items(), key=lambda entry: order(entry[0]))]
    return HEADER.format(families=families) + "".join(lines)


def rows_of(page):
    """The rows of a page whose ids still stand for something, as `table` takes them."""
    found = {}
    for row in re.findall(r"^\| [A-Z]\d+ \|.*$", page, re.MULTILINE):
        *key, test, figures = (plain(cell) for cell in re.split(r"(?<!\\)\|", row)[1:-1])
        if key[0] in FAMILIES:
            found[(*key, test.strip("`"))] = figures.split("; ") if figures else []
    return found


def plain(cell):
    """What a cell says; a tag in it would be one of the site's page, and a bar would end it."""
    return cell.strip().replace("\\|", "|").replace("&lt;", "<")


def order(key):
    """A2 before A10."""
    letters, digits = re.fullmatch(r"([A-Z]+)(\d*)", key[0]).groups()
    return letters, int(digits or 0), key[1:]


def line(key, figures):
    """A row; several cases of a test may have counted the same."""
    cells = [*key[:-1], f"`{key[-1]}`", "; ".join(sorted(set(figures), key=natural))]
    return "| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |\n"


def natural(text):
    """20 before 200."""
    return [int(part.replace(",", "")) if part[0].isdigit() else 0 for part in re.findall(r"[\d,]+|\D+", text)], text
