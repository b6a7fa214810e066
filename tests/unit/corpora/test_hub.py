"""The Hub's part is played by a small server that answers as huggingface.co does; nothing leaves the machine."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from groundup.cli.main import main
from groundup.config.errors import UsageError, UserError
from groundup.corpora.hub import HubDataset, choose_files
from groundup.data.dataset import TokenDataset
from groundup.prepare.corpus import find_source
from groundup.tokenizer.base import END_OF_TEXT

constants = pytest.importorskip("huggingface_hub.constants")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONFIGS = [
    {"config_name": "default", "data_files": [{"split": "train", "path": "data/*/*"}]},
    {"config_name": "sample-10BT", "data_files": [{"split": "train", "path": "sample/10BT/*"}]},
]


class StandIn(ThreadingHTTPServer):
    """A Hub with one dataset, `org/set`."""

    def __init__(self, files, configs):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.configs = files, configs
        self.requests = []
        self.cut_after = None  # bytes after which the next connections end, each once
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, *, body):
        path = self.path.split("?")[0]
        self.server.requests.append((self.command, path, self.headers.get("Range")))
        if path.startswith("/api/datasets/org/set"):
            siblings = [{"rfilename": name, "size": len(data)} for name, data in self.server.files.items()]
            facts = {"id": "org/set", "sha": COMMIT, "siblings": siblings, "cardData": {"configs": self.server.configs}}
            return self.send(200, json.dumps(facts).encode(), body, {"Content-Type": "application/json"})
        name = path.removeprefix(f"/datasets/org/set/resolve/{COMMIT}/").removeprefix("/cdn/")
        if name not in self.server.files:
            return self.send(404, b"", body, {"X-Error-Code": "RepoNotFound"})
        data = self.server.files[name]
        headers = {"ETag": f'"{hash(name) & 0xFFFFFFFF:x}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if not path.startswith("/cdn/"):  # large files lie elsewhere
            linked = {"X-Linked-Size": str(len(data)), "X-Linked-ETag": headers["ETag"]}
            return self.send(302, b"", body, {**headers, **linked, "Location": f"{self.server.url}/cdn/{name}"})
        if wanted := self.headers.get("Range"):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, stop = int(first), int(last) + 1 if last else len(data)
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
            return self.send(206, data[start:stop], body, headers)
        return self.send(200, data, body, headers)

    def send(self, status, data, body, headers):
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            cut = self.server.cut_after if self.path.startswith("/cdn") else None
            if cut is not None and len(data) > cut:
                self.server.cut_after = None
                self.wfile.write(data[:cut])
                self.close_connection = True
                return
            self.wfile.write(data)


def parquet(texts, **options):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"id": list(range(len(texts))), "text": texts}), sink, **options)
    return sink.getvalue().to_pybytes()


TEXTS = [f"document {k}: " + "words and more words " * 200 for k in range(40)]


def point_to(url, monkeypatch):
    """What HF_ENDPOINT does where the library is not yet imported."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setenv("HF_ENDPOINT", url)


@pytest.fixture
def hub(monkeypatch):
    files = {
        "README.md": b"# a dataset",
        "data/x/other.parquet": parquet(["other"]),
        "sample/10BT/000.parquet": parquet(TEXTS[:25], row_group_size=10, compression="none"),
        "sample/10BT/001.parquet": parquet(TEXTS[25:], row_group_size=10),
        "sample/10BT/notes.bin": b"\0",
    }
    server = StandIn(files, CONFIGS)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    point_to(server.url, monkeypatch)
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def texts_of(source):
    return [document.text for part in source.parts() for document in source.read(part, {})]


@pytest.mark.parametrize("stream", [False, True])
def test_reads_the_subset_in_order(hub, tmp_path, stream):
    source = HubDataset("org/set", subset="sample-10BT", cache=tmp_path, stream=stream)
    assert texts_of(source) == TEXTS
    assert source.describe()["revision"] == COMMIT
    assert (tmp_path / "hub/org--set/sample/10BT/000.parquet").exists() is not stream


def test_a_second_call_downloads_nothing(hub, tmp_path):
    texts_of(HubDataset("org/set", subset="sample-10BT", cache=tmp_path))
    hub.requests.clear()
    assert texts_of(HubDataset("org/set", subset="sample-10BT", cache=tmp_path)) == TEXTS
    assert hub.requests == []


def test_streaming_reads_ranges_and_asks_once_for_the_listing(hub, tmp_path):
    source = HubDataset("org/set", subset="sample-10BT", cache=tmp_path, stream=True)
    texts_of(source)
    assert all(wanted for _, path, wanted in hub.requests if path.startswith("/datasets"))
    assert sum(path.startswith("/api/datasets/") for _, path, _ in hub.requests) == 1


def test_a_cut_download_goes_on_where_it_stopped(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 4096)
    hub.cut_after = 30_000
    source = HubDataset("org/set", subset="sample-10BT", cache=tmp_path)
    try:
        got = texts_of(source)
    except UserError as error:
        assert "run the command again" in str(error)  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017
        got = texts_of(source)
    assert got == TEXTS
    ranges = [
        wanted for command, path, wanted in hub.requests if command == "GET" and path == "/cdn/sample/10BT/000.parquet"
    ]
    assert ranges == [None, "bytes=28672-"]


def test_a_cut_stream_is_asked_again(hub, tmp_path):
    source = HubDataset("org/set", subset="sample-10BT", cache=tmp_path, stream=True)
    part = source.parts()[0]
    hub.cut_after = 1000
    try:
        got = [document.text for document in source.read(part, {})]
    except UserError as error:
        assert "\n" not in str(error)  # noqa: PT017
        got = [document.text for document in source.read(part, {})]
    assert got == TEXTS


def test_without_a_hub_one_line_says_so(tmp_path, monkeypatch):
    point_to("http://127.0.0.1:9", monkeypatch)
    with pytest.raises(UserError, match=r"cannot reach org/set at http://127.0.0.1:9 .*local files") as caught:
        HubDataset("org/set", cache=tmp_path).parts()
    assert "\n" not in str(caught.value)


def test_an_unknown_dataset_is_named(hub, tmp_path):
    with pytest.raises(UserError, match="there is no dataset org/none"):
        HubDataset("org/none", cache=tmp_path).parts()
    with pytest.raises(UsageError, match="OWNER/NAME"):
        HubDataset("none", cache=tmp_path)


def test_a_file_that_is_not_parquet_is_named(hub, tmp_path):
    hub.files["sample/10BT/001.parquet"] = b"PAR1 nonsense" * 100
    with pytest.raises(UserError, match=r"001\.parquet is not a whole parquet file"):
        HubDataset("org/set", subset="sample-10BT", cache=tmp_path).parts()


@pytest.mark.parametrize("stream", [False, True])
def test_processes_read_the_hub_too(hub, tmp_path, monkeypatch, capsys, stream):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("groundup.formats.spans.PART_BYTES", 30_000)
    words = [
        "prepare",
        "hf:org/set",
        "out",
        "--subset=sample-10BT",
        "--tokenizer=char",
        "--workers=2",
        "--val-rule=head",
    ]
    assert main([*words, "--val-rule=head", *(["--stream"] if stream else [])]) == 0, capsys.readouterr().err
    dataset = TokenDataset(tmp_path / "out")
    ids = [*dataset.split("val").read_all().tolist(), *dataset.split("train").read_all().tolist()]
    assert dataset.tokenizer().decode(ids) == "".join(f"{text}{END_OF_TEXT}" for text in TEXTS)
    assert dataset.index.settings["hub.revision"] == COMMIT


def test_fineweb_edu_is_a_name(tmp_path):
    source = find_source("fineweb-edu", cache_dir=tmp_path)
    assert isinstance(source, HubDataset)
    assert (source.dataset, source.subset, source.split) == ("HuggingFaceFW/fineweb-edu", "sample-10BT", "train")


NAMES = ["data/train-0.parquet", "data/train-1.parquet", "data/test-0.parquet", "en/a.jsonl", "en/b/c.jsonl"]


@pytest.mark.parametrize(
    ("configs", "subset", "split", "expected"),
    [
        ([], None, "train", ["data/train-0.parquet", "data/train-1.parquet"]),
        ([], None, "test", ["data/test-0.parquet"]),
        ([], "en", "train", ["en/a.jsonl", "en/b/c.jsonl"]),
        ([{"config_name": "a", "data_files": "en/*"}], None, "train", ["en/a.jsonl"]),
        ([{"config_name": "a", "data_files": ["en/**"]}], "a", "train", ["en/a.jsonl", "en/b/c.jsonl"]),
        ([{"config_name": "a", "data_dir": "en"}], "a", "train", ["en/a.jsonl", "en/b/c.jsonl"]),
        (
            [{"config_name": "a", "data_files": []}, {"config_name": "b", "default": True, "data_files": [
                {"split": "test", "path": ["data/te?t-*", "**/c.jsonl"]}]}],
            None, "test", ["data/test-0.parquet", "en/b/c.jsonl"],
        ),
    ],
)  # fmt: skip
def test_files_are_chosen_as_the_card_says(configs, subset, split, expected):
    assert choose_files(NAMES, configs, "org/set", subset, split) == expected


@pytest.mark.parametrize(
    ("configs", "subset", "split", "message"),
    [
        (CONFIGS, "sample-11BT", "train", "has no subset 'sample-11BT'; it has default, sample-10BT"),
        (CONFIGS, "default", "test", "has no split 'test'; it has train"),
        (CONFIGS, None, "train", "no parquet, JSON lines or text files for split 'train'"),
        ([], "fr", "train", "no parquet, JSON lines or text files for subset 'fr', split 'train'"),
    ],
)
def test_what_is_not_there_is_named(configs, subset, split, message):
    with pytest.raises(UsageError, match=message):
        choose_files(NAMES, configs, "org/set", subset, split)
