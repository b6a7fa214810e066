import os

import pytest

from groundup.cli.main import main
from groundup.terminal.waiting import SPIN, SPIN_ROUNDS, describe_waiting, wait_less


@pytest.mark.parametrize("said", [{SPIN: "7"}, {"OMP_WAIT_POLICY": "ACTIVE"}])
def test_what_a_person_says_stays(said):
    environ = dict(said)
    wait_less(environ)
    assert environ == said


def test_every_command_begins_with_it(monkeypatch, capsys):
    for name in (SPIN, "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    assert "default" in describe_waiting()
    assert main(["bench", "--help"]) == 0
    assert os.environ.pop(SPIN) == str(SPIN_ROUNDS)
    monkeypatch.setenv(SPIN, "55")
    assert describe_waiting() == f"55 rounds, then asleep ({SPIN})"
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    assert "OMP_WAIT_POLICY=PASSIVE" in describe_waiting()
