import pytest

from groundup.config.errors import UsageError, UserError
from groundup.interop import hub as hub_module
from groundup.interop.hub import fetch, push

WEIGHTS = bytes(range(256)) * 4096


@pytest.fixture
def hub(fake_hub):
    fake_hub.files = {"config.json": b'{"model_type": "gpt2"}', "model.safetensors": WEIGHTS, "README.md": b"words"}
    return fake_hub


def get(hub, name="o/m"):
    return fetch(name, endpoint=hub.url, cache_dir=hub.cache)


def test_brings_what_an_import_needs_and_nothing_else(hub):
    hub.files |= {"pytorch_model.bin": b"x", "tf_model.h5": b"x", "merges.txt": b"#version: 0.2\n"}
    folder, sha = get(hub)
    assert {p.name for p in folder.iterdir()} == {"config.json", "model.safetensors", "merges.txt"}
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert sha == hub.sha


def test_shards_come_with_their_index(hub):
    del hub.files["model.safetensors"]
    hub.files |= {"model.safetensors.index.json": b"{}", "model-00001-of-00002.safetensors": b"a"}
    hub.files |= {"model-00002-of-00002.safetensors": b"b", "pytorch_model.bin": b"x"}
    folder, _ = get(hub)
    assert {p.name for p in folder.iterdir()} == hub.files.keys() - {"README.md", "pytorch_model.bin"}


def test_short_names_are_the_published_repositories(hub):
    get(hub, "distilgpt2")
    assert any("/distilbert/distilgpt2/resolve/" in path for _, path, _ in hub.seen)


def test_what_is_there_is_not_fetched_again(hub):
    get(hub)
    hub.seen.clear()
    get(hub)
    assert not [row for row in hub.seen if row[0] == "GET" and "/resolve/" in row[1]]


def test_a_cut_download_goes_on_where_it_ended(hub, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1 << 16)
    hub.cut.add("model.safetensors")
    folder, _ = get(hub)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    ranges = [where for method, path, where in hub.seen if method == "GET" and path.endswith("model.safetensors")]
    assert len(ranges) == 2
    assert ranges[1].startswith("bytes=")
    assert int(ranges[1][6:].split("-")[0]) > 0


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_another_file_than_the_listed_one_is_refused_and_forgotten(hub, name):
    hub.served[name] = bytes(len(hub.files[name]))
    with pytest.raises(UserError, match=f"{name} is not the file the hub lists: its hash differs"):
        get(hub)
    hub.served.clear()
    folder, _ = get(hub)
    assert (folder / name).read_bytes() == hub.files[name]


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_repository_without_a_model(hub, missing):
    del hub.files[missing]
    with pytest.raises(UserError, match="o/m holds no model"):
        get(hub)


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


def test_no_such_model(fake_hub):
    with pytest.raises(UserError, match="cannot fetch o/m from the Hugging Face hub") as error:
        get(fake_hub)
    one_line(error)


def test_offline_is_one_line():
    pytest.importorskip("huggingface_hub")
    with pytest.raises(UserError) as error:
        fetch("gpt2", endpoint="http://127.0.0.1:9")
    assert "cannot fetch openai-community/gpt2 from the Hugging Face hub" in one_line(error)
    assert "offline, give a folder" in one_line(error)


def test_an_unknown_short_name():
    with pytest.raises(UsageError, match="hf:gpt3 is not known; the names are gpt2, gpt2-medium"):
        fetch("gpt3")


def test_a_pushed_folder_arrives_whole(fake_hub, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    contents = {"README.md": b"---\nlicense: unknown\n---\n", "model.safetensors": WEIGHTS, "config.json": b"{}"}
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    assert push(folder, "o/m", endpoint=fake_hub.url).endswith("/o/m")
    assert fake_hub.pushed == contents
    assert list(fake_hub.large.values()) == [WEIGHTS]  # by way of large files, as the hub asks for weights
    assert ("POST", "/api/repos/create", "Bearer hf_of_nobody") in fake_hub.seen


def test_a_push_that_is_refused_is_one_line(fake_hub, tmp_path):
    fake_hub.refuse = True
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="cannot push to o/m: ") as error:
        push(tmp_path / "out", "o/m", endpoint=fake_hub.url)
    assert "hf auth login" in one_line(error)


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"pip install 'groundup\[hub\]'"):
        hub_module.fetch("gpt2")


@pytest.mark.fault(
    "B4",
    "a hub calls a file by a path out of the cache (ETag)",
    "refused by name; nothing outside is touched",
)
@pytest.mark.parametrize("tag", ["../../../../victim", "/etc/victim", "a/../b", "..", "con\\victim"])
def test_an_etag_that_is_a_path_is_refused(hub, tmp_path, tag):
    """huggingface_hub names files after it, and what is named so was once deleted as damaged."""
    victim = tmp_path / "victim"
    victim.write_text("my only copy")
    hub.tags["model.safetensors"] = tag
    with pytest.raises(UserError, match="which is no hash"):
        fetch("o/m", endpoint=hub.url, cache_dir=tmp_path / "cache" / "hub")
    assert victim.read_text() == "my only copy"


@pytest.mark.fault("B6", "a hub whose list of files has no end", "refused when it is longer than an honest one")
def test_an_endless_list_of_files_is_refused(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("GROUNDUP_MAX_JSON_BYTES", str(4 << 20))
    hub.endless = True
    with pytest.raises(UserError, match=r"the list of files of o/m takes more than 4,194,304 bytes; .* trust it"):
        fetch("o/m", endpoint=hub.url, cache_dir=tmp_path)
