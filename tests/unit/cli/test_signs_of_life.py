"""Commands that load PyTorch show that they do, on standard error, until there is something to see."""

import pytest

from groundup.checkpoint.model_folder import save_model
from groundup.cli.main import main
from groundup.terminal.working import Working


@pytest.fixture
def seen(monkeypatch):
    """What was shown, in order, and when it ended."""
    told = []
    doing, end = Working.doing, Working.end
    monkeypatch.setattr(Working, "doing", lambda self, what, **more: (told.append(what), doing(self, what, **more))[1])
    monkeypatch.setattr(Working, "end", lambda self: (told.append("end"), end(self))[1])
    return told


@pytest.fixture
def place(tmp_path, monkeypatch, tiny_model, alphabet):
    monkeypatch.chdir(tmp_path)
    save_model(tmp_path / "poet", tiny_model, alphabet, {})
    return tmp_path


def test_generate_export_and_import(place, seen):
    assert main(["generate", "poet", "--prompt=ab", "--max-new-tokens=2"]) == 0
    assert seen == ["loading PyTorch", "loading poet", "end"]
    seen.clear()
    assert main(["export", "poet", "out"]) == 0
    assert seen == ["loading PyTorch", "writing out", "end"]
    seen.clear()
    assert main(["import", "out", "back"]) == 0
    assert seen == ["loading PyTorch", "end", "reading out", "end"]


def test_a_text_for_train(place, seen, capsys):
    (place / "notes.txt").write_text("abc " * 5000)
    assert main(["train", "notes.txt", "--dry-run"]) == 0
    assert seen == ["loading PyTorch", "end"]
    assert "notes" in capsys.readouterr().out


def test_serve_shows_no_more_once_it_answers(place, seen, capsys, monkeypatch):
    start = pytest.importorskip("groundup.playground.start", reason="the extra serve")

    def serve(paths, listener, *, started, **settings):
        assert seen == ["loading PyTorch", "loading poet"]
        started(["poet"])
        assert seen[-1] == "end"
        assert "serving poet at http://" in capsys.readouterr().out
        listener.close()
        return 0

    monkeypatch.setattr(start, "serve", serve)
    assert main(["serve", "poet", "--port=0", "--no-open"]) == 0
