"""A server of our own that misbehaves in every way that is known."""

import errno
import hashlib
import http.server
import threading

import numpy as np
import pytest

from groundup.config.errors import UserError
from groundup.files import download as module
from groundup.files.download import download

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as the script of its server says: a list of moods, the last of which stays."""

    def do_GET(self):
        script, log = self.server.script, self.server.log
        mood = script.pop(0) if len(script) > 1 else script[0]
        wanted = self.headers.get("Range", "")
        log.append((mood, wanted))
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        content = self.server.content
        if mood in (403, 404, 500, 503):
            self.send_error(mood)
            return
        if mood == "shorter":
            content = content[:1000]
        if mood == "wrong":
            content = bytes(reversed(content))
        if start >= len(content):
            self.send_error(416)
            return
        if mood == "ignore range":
            start = 0
        self.send_response(206 if start else 200)
        if start:
            at = 0 if mood == "other range" else start
            self.send_header("Content-Range", f"bytes {at}-{len(content) - 1}/{len(content)}")
        if mood == "other range":
            start = 0
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if mood == "silent":
            return
        if mood == "cut":
            content = content[: start + 70_000]
        if mood == "longer":
            content += b"more"
        self.wfile.write(content[start:])
        if mood == "reset":
            self.connection.close()

    def log_message(self, *words):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(module, "WAIT", 0.0)
    monkeypatch.setattr(module, "TIMEOUT", 5.0)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.script, running.log, running.content = ["good"], [], CONTENT
        running.url = f"http://127.0.0.1:{running.server_port}/file"
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def fetch(server, tmp_path):
    path = tmp_path / "cache" / "file.txt"

    def run(*script):
        server.script = list(script)
        server.log.clear()
        return download(server.url, path, size=len(CONTENT), sha256=SHA256)

    run.path, run.part = path, path.with_name("file.txt.part")
    return run


def test_fetched_once(fetch, server):
    assert fetch("good").read_bytes() == CONTENT
    assert not fetch.part.exists()
    fetch(500)
    assert server.log == []


def test_a_damaged_copy_is_fetched_again(fetch, server):
    fetch("good")
    for damaged in (CONTENT[:-1], CONTENT + b"x", bytes(len(CONTENT)), b""):
        fetch.path.write_bytes(damaged)
        assert fetch("good").read_bytes() == CONTENT


@pytest.mark.fault(
    "C7",
    "a download is cut again and again",
    "it goes on where it was cut; the SHA-256 is that of the whole",
)
def test_cut_connections_are_resumed_where_they_were_cut(fetch, server):
    assert fetch("cut").read_bytes() == CONTENT
    assert [wanted for _, wanted in server.log] == ["", *(f"bytes={k * 70_000}-" for k in range(1, 5))]


def test_a_later_call_goes_on(fetch, server):
    with pytest.raises(UserError, match=r"the connection ended early|IncompleteRead"):
        fetch("cut", "silent")
    assert fetch.part.stat().st_size == 70_000
    assert not fetch.path.exists()
    assert fetch("good").read_bytes() == CONTENT
    assert server.log == [("good", "bytes=70000-")]


@pytest.mark.parametrize("mood", ["ignore range", "other range"])
def test_a_server_without_ranges_starts_again(fetch, server, mood):
    assert fetch("cut", mood).read_bytes() == CONTENT
    assert len(server.log) == 2


@pytest.mark.parametrize("script", [["cut", 503, "good"], [500, 500, 503, 500, "good"], ["silent", "cut", 500, "good"]])
def test_passing_trouble_passes(fetch, script):
    assert fetch(*script).read_bytes() == CONTENT


def test_lasting_trouble_is_told(fetch, server):
    with pytest.raises(UserError, match=r"cannot download http://127.*: HTTP status 503; offline, give a local copy"):
        fetch(503)
    assert len(server.log) == module.TRIES
    assert not fetch.path.exists()


@pytest.mark.parametrize("status", [403, 404])
def test_a_refusal_is_not_asked_again(fetch, server, status):
    with pytest.raises(UserError, match=f"HTTP status {status}"):
        fetch(status)
    assert len(server.log) == 1


def test_waits_grow(fetch, monkeypatch):
    waits = []
    monkeypatch.setattr(module, "WAIT", 1.0)
    monkeypatch.setattr(module.time, "sleep", waits.append)
    with pytest.raises(UserError):
        fetch(503)
    assert waits == [1, 2, 4, 8]


@pytest.mark.fault(
    "C7",
    "a server sends other bytes than the pinned SHA-256",
    "thrown away, one line of error",
)
def test_wrong_bytes_are_thrown_away(fetch):
    with pytest.raises(UserError, match="is not the expected file: its SHA-256 differs; nothing was kept"):
        fetch("wrong")
    assert not fetch.path.exists()
    assert not fetch.part.exists()
    assert fetch("good").read_bytes() == CONTENT


@pytest.mark.fault(
    "C7",
    "a file changes between two connections",
    "the mixture of both is refused by its SHA-256; the next call fetches the file",
)
def test_a_file_that_changed_between_two_connections(fetch):
    """The beginning of one and the end of another are no file."""
    with pytest.raises(UserError, match="SHA-256 differs"):
        fetch("cut", "wrong")
    assert fetch("good").read_bytes() == CONTENT


def test_more_bytes_than_promised_are_not_taken(fetch):
    assert fetch("longer").read_bytes() == CONTENT


def test_the_end_of_a_file_that_became_shorter(fetch, server):
    """416: what we have reaches beyond it. Nothing can come of this but a clear end."""
    with pytest.raises(UserError, match="cannot download"):
        fetch("cut", "shorter")
    assert ("shorter", "") in server.log
    assert len(server.log) < 20
    assert fetch("good").read_bytes() == CONTENT


def test_a_part_that_is_too_long_is_dropped(fetch, server):
    fetch.path.parent.mkdir()
    fetch.part.write_bytes(CONTENT + b"more")
    assert fetch("good").read_bytes() == CONTENT
    assert server.log == [("good", "")]


def test_nobody_answers(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "WAIT", 0.0)
    with pytest.raises(UserError, match=r"cannot download http://127\.0\.0\.1:9/f: .*refused"):
        download("http://127.0.0.1:9/f", tmp_path / "f", size=1, sha256=SHA256)
    with pytest.raises(UserError, match="cannot download http://no-such-host"):
        download("http://no-such-host.invalid/f", tmp_path / "f", size=1, sha256=SHA256)


def test_the_disk_refuses(fetch, monkeypatch, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(UserError, match="cannot write"):
        fetch("good")
    (tmp_path / "cache").unlink()
    monkeypatch.setattr(module, "_read_from", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
    with pytest.raises(UserError, match=r"cannot write .*No space left"):
        fetch("good")


@pytest.mark.fault(
    "C6",
    "four downloads of a file at once",
    "all end with the right bytes; the file is fetched once",
)
def test_two_at_once_do_not_mix_their_bytes(fetch, server):
    results = []
    threads = [threading.Thread(target=lambda: results.append(fetch("cut").read_bytes())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [CONTENT] * 4
    assert sum(wanted == "" for _, wanted in server.log) <= 1
    assert {p.name for p in fetch.path.parent.iterdir()} <= {"file.txt", "file.txt.lock"}
