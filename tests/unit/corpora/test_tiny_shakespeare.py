import pytest

from groundup.cli.main import main
from groundup.config.data import DataConfig
from groundup.config.errors import UserError
from groundup.config.io import dump_json, to_dict
from groundup.config.presets import RECIPES
from groundup.corpora import tiny_shakespeare as module
from groundup.corpora.tiny_shakespeare import SHA256, SIZE, URL, TinyShakespeare
from groundup.evaluation import tasks
from groundup.prepare.corpus import find_source, open_corpus
from groundup.tokenizer.char import CharTokenizer


def test_the_split_is_nanogpts(tiny_shakespeare, tmp_path):
    data = tiny_shakespeare.read_text()
    dataset = open_corpus(DataConfig(source="tiny-shakespeare", path=tiny_shakespeare, cache_dir=tmp_path))
    train, val = dataset.split("train"), dataset.split("val")
    assert (train.n_tokens, val.n_tokens) == (1_003_854, 111_540)
    assert (train.n_bytes, val.n_bytes) == (1_003_854, 111_540)
    tokenizer = dataset.tokenizer()
    assert tokenizer.vocab_size == 65
    # nanoGPT's own lines, data/shakespeare_char/prepare.py: sorted symbols, cut at 90 %.
    stoi = {ch: i for i, ch in enumerate(sorted(set(data)))}
    assert train.read_all().tolist() == [stoi[c] for c in data[: int(len(data) * 0.9)]]
    assert val.read_all().tolist() == [stoi[c] for c in data[int(len(data) * 0.9) :]]


def test_another_file_is_refused(tmp_path):
    path = tmp_path / "input.txt"
    with pytest.raises(UserError, match="does not exist"):
        TinyShakespeare(path, tmp_path).parts()
    path.write_text("First Citizen:\n")
    with pytest.raises(UserError, match=r"is not Tiny Shakespeare \(1,115,394 bytes.*is learned by groundup train"):
        TinyShakespeare(path, tmp_path).parts()


def test_without_a_copy_it_is_downloaded_to_the_cache(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(module, "download", lambda url, path, **facts: asked.append((url, path, facts)) or path)
    assert TinyShakespeare(None, tmp_path).parts() == [tmp_path / "tinyshakespeare.txt"]
    facts = {"size": SIZE, "sha256": SHA256, "instead": "--data.path"}
    assert asked == [(URL, tmp_path / "tinyshakespeare.txt", facts)]
    find_source("tiny-shakespeare", cache_dir=tmp_path).parts()  # for commands that have no such flag
    assert asked[-1][-1]["instead"] == "its path in place of the word"


@pytest.fixture
def offline(monkeypatch, tmp_path):
    def download(url, path, *, instead, **facts):
        raise UserError(f"offline, give a local copy with {instead}")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "download", download)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("command", "instead"),
    [
        ("train tiny-shakespeare --runtime.device cpu", "--data.path"),
        ("scaling --preset tiny-shakespeare --device cpu", "--text"),
        ("bench ablation --device cpu", "--tiny-shakespeare"),
        ("tokenizer train --source tiny-shakespeare", "its path in place of the word"),
        ("prepare tiny-shakespeare out", "its path in place of the word"),
    ],
)
def test_each_command_names_its_own_way_to_a_local_copy(command, instead, capsys):
    assert main(command.split()) == 1
    assert f"offline, give a local copy with {instead}\n" in capsys.readouterr().err


@pytest.mark.usefixtures("offline")
def test_eval_of_a_run_whose_text_is_gone_names_its_own(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "config.json").write_text(dump_json(to_dict(RECIPES["tiny-shakespeare"])))
    with pytest.raises(UserError, match=r"with --data, as a prepared folder$"):
        tasks._own_data(tmp_path, CharTokenizer.from_text("ab"))
