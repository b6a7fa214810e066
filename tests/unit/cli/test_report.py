"""groundup report."""

import json

from groundup.cli.main import main


def test_it_draws_the_report_of_a_run_that_goes_on_and_says_where(tmp_path, capsys, monkeypatch):
    run = tmp_path / "a run"
    run.mkdir()
    (run / "run.json").write_text(json.dumps({"command": "groundup train x"}))
    (run / "metrics.jsonl").write_text('{"step": 1, "tokens": 10, "seconds": 1.0, "train/loss": 2.0}\n')
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    assert main(["report", str(run)]) == 0
    assert capsys.readouterr().out == f"{(run / 'report.html').as_uri()}\n"
    assert opened == []
    assert main(["report", str(run), "--open"]) == 0
    assert opened == [(run / "report.html").as_uri()]
    assert "groundup train x" in (run / "report.html").read_text()


def test_a_run_without_its_run_json_has_a_report(tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"max_steps": 7}')
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "tokens": 10, "seconds": 1.0, "train/loss": 2.0}\n')
    assert main(["report", str(tmp_path)]) == 0
    assert capsys.readouterr().err == ""
    page = (tmp_path / "report.html").read_text()
    assert "How it learned" in page
    assert "&quot;max_steps&quot;: 7" in page


def test_a_folder_without_a_run_is_one_line(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "is not a run folder" in err
    assert list(tmp_path.iterdir()) == []


def test_a_name_or_a_folder_of_runs_is_answered_with_the_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "run.json").write_text("{}")
    for path, said in (
        ("mine", "mine does not exist; did you mean runs/mine?"),
        ("runs", "runs is no run but a folder of 1: runs/mine"),
    ):
        assert main(["report", path]) == 1
        assert capsys.readouterr().err == f"groundup: {said}\n"
