from groundup.training.run import set_aside


def test_nothing_there_is_nothing_done(tmp_path):
    assert set_aside(tmp_path / "run") is None
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_run_gets_the_next_free_number(tmp_path):
    run = tmp_path / "run"
    for number in (1, 2, 3):
        run.mkdir()
        (run / "which").write_text(str(number))
        assert set_aside(run) == tmp_path / f"run.{number}"
        assert not run.exists()
    assert [(tmp_path / f"run.{n}" / "which").read_text() for n in (1, 2, 3)] == ["1", "2", "3"]


def test_a_hole_in_the_numbers_is_filled_and_nothing_overwritten(tmp_path):
    for name in ("run", "run.2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "which").write_text(name)
    assert set_aside(tmp_path / "run") == tmp_path / "run.1"
    (tmp_path / "run").mkdir()
    assert set_aside(tmp_path / "run") == tmp_path / "run.3"
    assert (tmp_path / "run.2" / "which").read_text() == "run.2"


def test_dots_in_the_name_stay(tmp_path):
    (tmp_path / "lr0.1").mkdir()
    assert set_aside(tmp_path / "lr0.1") == tmp_path / "lr0.1.1"
