"""The Dockerfile without Docker: its files are there, its words are understood, its health check tells health."""

import json
import re
import shlex
import socket
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import pytest

from groundup.cli.serve import Options
from groundup.config.errors import UsageError
from groundup.kernels.library import COMPILERS
from groundup.playground.start import http_server
from groundup.serving.access import Access
from groundup.serving.app import Server, build_app
from groundup.terminal.parse import parse

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LINES = [
    line.split(maxsplit=1)
    for line in (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    if line.strip() and not line.startswith("#")
]


def words(instruction):
    return [text for name, text in LINES if name == instruction]


def test_it_is_made_of_known_instructions_and_runs_as_nobody_special():
    names = [name for name, _ in LINES]
    assert set(names) == {"FROM", "RUN", "WORKDIR", "COPY", "USER", "EXPOSE", "HEALTHCHECK", "CMD", "ENV"}
    assert names[0] == "FROM"
    assert names.index("USER") < names.index("HEALTHCHECK") < names.index("CMD") == len(names) - 1
    (user,) = words("USER")
    assert int(user) > 0
    assert f"useradd --create-home --uid {user} groundup" in words("RUN")
    version = re.fullmatch(r"python:(\d+)\.(\d+)-slim", words("FROM")[0])
    assert (int(version[1]), int(version[2])) >= (3, 11)


def test_what_is_copied_is_there_and_not_ignored():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "*"
    for text in words("COPY"):
        *sources, target = text.split()
        assert target.startswith("./")
        for source in sources:
            assert (ROOT / source).exists(), source
            assert f"!{source}" in ignored


def test_what_is_installed_exists():
    (command,) = [shlex.split(text) for text in words("RUN") if text.startswith("pip ")]
    assert command[:2] == ["pip", "install"]
    assert (ROOT / command[command.index("--constraint") + 1]).exists()
    extras = re.fullmatch(r"\.\[([\w,-]+)\]", command[-1])[1].split(",")
    assert set(extras) <= set(PROJECT["optional-dependencies"])
    assert "offline" in extras  # else a container that serves a GPT-2 fetches its vocabulary at each start


def test_it_can_compile_the_kernels():
    """As root, and before all that changes with the repository."""
    (at,) = [i for i, (name, text) in enumerate(LINES) if name == "RUN" and text.startswith("apt-get ")]
    assert set(shlex.split(LINES[at][1])) & set(COMPILERS)
    assert at < min(i for i, (name, _) in enumerate(LINES) if name in ("USER", "COPY"))


def test_what_is_run_is_understood_and_asks_for_a_key(monkeypatch):
    program, command, *rest = json.loads(words("CMD")[0])
    assert program in PROJECT["scripts"]
    assert command == "serve"
    monkeypatch.delenv("GROUNDUP_API_KEY", raising=False)
    with pytest.raises(UsageError, match="GROUNDUP_API_KEY"):
        parse(Options, rest, prog="groundup serve")
    monkeypatch.setenv("GROUNDUP_API_KEY", "secret")
    options = parse(Options, rest, prog="groundup serve")
    assert (options.key, options.open, [str(options.port)]) == ("secret", False, words("EXPOSE"))


def test_the_health_check_is_answered_without_the_key(models, loop):
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    server = http_server(build_app(Server(models, loop), Access(hosts=None, key="k", page_paths=frozenset())))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    program, flag, code = json.loads(words("HEALTHCHECK")[0].split("CMD ")[1])
    assert (program, flag) == ("python", "-c")
    assert f":{words('EXPOSE')[0]}/livez" in code

    def check():
        there = code.replace(f":{words('EXPOSE')[0]}/", f":{port}/")
        return subprocess.run([sys.executable, "-c", there], capture_output=True).returncode

    thread.start()
    try:
        assert check() == 0
    finally:
        server.should_exit = True
        thread.join()
    assert check() != 0
