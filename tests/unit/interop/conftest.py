"""A small Hugging Face hub on this machine."""

import base64
import contextlib
import hashlib
import http.server
import json
import threading
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import pytest

from groundup.tokenizer.io import tokenizer_json


class _Handler(http.server.BaseHTTPRequestHandler):
    """The few answers of the Hugging Face hub that downloads and uploads ask for."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    @property
    def hub(self):
        return self.server.hub

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        self.hub.seen.append((self.command, path, self.headers.get("Range")))
        if path.startswith("/api/models/"):
            if not self.hub.files:
                return self.answer({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
            listed = [
                {"rfilename": name, "size": len(data), "blobId": blob(data), **lfs(name, data)}
                for name, data in self.hub.files.items()
            ]
            if self.hub.endless:
                return self.never_end()
            return self.answer({"id": "o/m", "modelId": "o/m", "sha": self.hub.sha, "siblings": listed})
        return self.file(path.rpartition("/")[2])

    def never_end(self):
        """A list of files without an end, as far as anybody reads it."""
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.wfile.write(b'{"id": "o/m", "sha": "0", "siblings": [')
            while True:
                self.wfile.write(b'{"rfilename": "a"},' * 50_000)

    def file(self, name):
        data = self.hub.served.get(name, self.hub.files[name])
        tag = self.hub.tags.get(name) or (hashlib.sha256(data).hexdigest() if lfs(name, data) else blob(data))
        start = int((self.headers.get("Range") or "bytes=0-")[6:].split("-")[0])
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        for key, value in {"ETag": f'"{tag}"', "X-Repo-Commit": self.hub.sha, "Accept-Ranges": "bytes"}.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        if self.command == "HEAD":
            return
        if name in self.hub.cut:
            # Once: half of the file, and the line goes dead.
            self.hub.cut.remove(name)
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(2)
            return
        self.wfile.write(data[start:])

    def do_POST(self):
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.hub.seen.append(("POST", path, self.headers.get("Authorization")))
        if self.hub.refuse:
            return self.answer({"error": "Invalid username or password."}, 401)
        if path == "/api/repos/create":
            asked = json.loads(body)
            return self.answer({"url": f"{self.hub.url}/{asked['organization']}/{asked['name']}"})
        if "/preupload/" in path:
            files = [
                {"path": f["path"], "uploadMode": "lfs" if lfs(f["path"], b"") else "regular", "shouldIgnore": False}
                for f in json.loads(body)["files"]
            ]
            return self.answer({"files": files})
        if path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**o, "actions": {"upload": {"href": f"{self.hub.url}/large/{o['oid']}"}}}
                for o in json.loads(body)["objects"]
            ]
            return self.answer({"transfer": "basic", "objects": objects})
        if "/commit/" in path:
            for row in map(json.loads, body.splitlines()):
                value = row["value"]
                if row["key"] == "file":
                    self.hub.pushed[value["path"]] = base64.b64decode(value["content"])
                elif row["key"] == "lfsFile":
                    self.hub.pushed[value["path"]] = self.hub.large[value["oid"]]
            return self.answer(
                {"success": True, "commitOid": self.hub.sha, "commitUrl": f"{self.hub.url}/o/m/commit/1"}
            )
        return self.answer({"warnings": [], "errors": []})  # /api/validate-yaml

    def do_PUT(self):
        """A large file, which the commit then names by its hash."""
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.hub.large[hashlib.sha256(data).hexdigest()] = data
        self.answer({})

    def answer(self, values, status=200, headers=()):
        data = json.dumps(values).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for key, value in dict(headers).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def blob(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def lfs(name, data):
    if not name.endswith((".safetensors", ".bin")):
        return {}
    return {"lfs": {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}}


@pytest.fixture
def fake_hub(monkeypatch, tmp_path):
    """A hub of one repository. `files` is what it lists, `served` what it sends instead, `cut` what breaks off once."""
    pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    hub = SimpleNamespace(
        tags={},
        endless=False,
        files={},
        served={},
        cut=set(),
        seen=[],
        pushed={},
        large={},
        refuse=False,
        sha="0123456789abcdef0123456789abcdef01234567",
    )
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    hub.cache = tmp_path / "hub-cache"
    server.hub = hub
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield hub
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def place(tmp_path, monkeypatch, letters):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "letters.json").write_text(tokenizer_json(letters), "utf-8")
    return tmp_path
