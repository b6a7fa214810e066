"""Write docs/faults.md from the tests that pass: `make faults`.

A plugin of pytest. Tests say which row they prove with `@pytest.mark.fault(id, fault, promise)`, and may tell a figure
with `record_property("figure", "20 of 20 kills")`. A row is printed only if every case of its test has run and passed.
"""

import re
from pathlib import Path

import pytest

HEADER = """# What can go wrong, and what happens then

Written by `make faults` from the tests that passed: a row whose test failed, was skipped or did not run is not here.
Each row is a fault, what is promised, the test that proves it, and what it counted. The letters group them:
A checkpoints, B the security of files, C data, D resuming, E training, F serving.

| id | fault | promise | test | figure |
|---|---|---|---|---|
"""


def pytest_addoption(parser):
    parser.addoption("--faults", type=Path, metavar="FILE", help="run the tests of faults alone, and write their table")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--faults") is None:
        return
    rest = [item for item in items if item.get_closest_marker("fault") is None]
    config.hook.pytest_deselected(items=rest)
    items[:] = [item for item in items if item.get_closest_marker("fault") is not None]
    for item in items:
        item.user_properties += [("fault", list(marker.args)) for marker in item.iter_markers("fault")]


def pytest_configure(config):
    if config.getoption("--faults") is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Table(config.getoption("--faults")))


class Table:
    """Collects what tests report; in the controller, where tests run in several processes."""

    def __init__(self, path):
        self.path, self.rows, self.bad = path, {}, {}

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
        lines = [line(key, figures) for key, figures in sorted(good.items(), key=lambda entry: order(entry[0]))]
        self.path.write_text(HEADER + "".join(lines), encoding="utf-8")

    def pytest_terminal_summary(self, terminalreporter):
        terminalreporter.line(f"{self.path} has {len([key for key in self.rows if key[-1] not in self.bad])} rows")
        for test, outcome in sorted(self.bad.items()):
            terminalreporter.line(f"not printed: {test} ({outcome})")


def order(key):
    """A2 before A10."""
    letters, digits = re.fullmatch(r"([A-Z]+)(\d*)", key[0]).groups()
    return letters, int(digits or 0), key[1:]


def line(key, figures):
    """A row; several cases of a test may have counted the same."""
    cells = [*key[:-1], f"`{key[-1]}`", "; ".join(sorted(set(figures), key=natural))]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def natural(text):
    """20 before 200."""
    return [int(part.replace(",", "")) if part[0].isdigit() else 0 for part in re.findall(r"[\d,]+|\D+", text)], text
