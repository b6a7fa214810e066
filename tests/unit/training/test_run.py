import pytest

from groundup.config.errors import UserError
from groundup.training.run_folder import fresh_folder, set_aside


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
    (tmp_path / "run" / "which").touch()
    assert set_aside(tmp_path / "run") == tmp_path / "run.3"
    assert (tmp_path / "run.2" / "which").read_text() == "run.2"


def test_dots_in_the_name_stay(tmp_path):
    (tmp_path / "lr0.1").mkdir()
    (tmp_path / "lr0.1" / "config.json").touch()
    assert set_aside(tmp_path / "lr0.1") == tmp_path / "lr0.1.1"


def test_an_empty_folder_or_a_link_to_one_is_no_run(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    for name in ("disk", "run"):
        assert set_aside(tmp_path / name) is None
    assert (tmp_path / "run").is_symlink()
    (tmp_path / "disk" / "config.json").touch()
    assert set_aside(tmp_path / "run") == tmp_path / "run.1"


@pytest.mark.fault(
    "A16",
    "the run folder is a link to nothing, or the root of a disk that is not empty",
    "one line that says so; nothing is made or moved",
)
def test_what_cannot_be_set_aside_is_told(tmp_path, monkeypatch):
    (tmp_path / "run").symlink_to(tmp_path / "gone")
    with pytest.raises(UserError, match=r"run is a link to .*gone, which does not exist"):
        set_aside(tmp_path / "run")
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "config.json").touch()
    monkeypatch.setattr("os.path.ismount", lambda path: path.name == "disk")
    with pytest.raises(UserError, match=r"disk is the root of a disk and not empty"):
        set_aside(tmp_path / "disk")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "run"]


def test_an_earlier_run_comes_back_where_the_new_one_cannot_begin(tmp_path):
    run, said = tmp_path / "run", []
    run.mkdir()
    (run / "config.json").write_text("earlier")
    (run / "metrics.jsonl").write_text('{"step": 1, "train/loss": 4.0}\n')

    def begin(error):
        with fresh_folder(run, said.append):
            assert not (run / "config.json").exists()
            (run / "config.json").write_text("new")
            if error:
                raise error

    with pytest.raises(UserError, match="the service refuses"):
        begin(UserError("the service refuses"))
    assert (run / "config.json").read_text() == "earlier"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert said == []

    begin(None)
    assert (run / "config.json").read_text() == "new"
    assert (tmp_path / "run.1" / "config.json").read_text() == "earlier"
    assert said == [f"an earlier run was here; it is in {tmp_path / 'run.1'} now"]


def test_nothing_is_left_of_a_first_run_that_cannot_begin(tmp_path):
    def begin():
        with fresh_folder(tmp_path / "run", print):
            (tmp_path / "run" / "tensorboard").mkdir()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        begin()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("metrics", "beside", "stays"),
    [
        (None, None, False),
        ('{"step": 0, "val/loss": 4.1}\n', None, False),
        ('{"step": 0, "val/loss": 4.1}\n{"step": 1, "train/loss": 4.0}\n', None, True),
        (None, "checkpoints/step-0000001/training.json", True),
        (None, "growth/0000000/config.json", False),
        (None, "notes.txt", True),
        (None, "model/config.json", True),
    ],
)
def test_of_a_run_that_made_no_step_nothing_stays(tmp_path, metrics, beside, stays):
    run, said = tmp_path / "run", []
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.json").write_text("earlier")
    if metrics:
        (run / "metrics.jsonl").write_text(metrics)
    if beside:
        (run / beside).parent.mkdir(parents=True, exist_ok=True)
        (run / beside).touch()
    with fresh_folder(run, said.append):
        assert (tmp_path / "run.1" / "config.json").read_text() == "earlier"  # until the new one has begun
    assert (tmp_path / "run.1").exists() == stays
    assert said == [
        f"an earlier run was here; it is in {tmp_path / 'run.1'} now"
        if stays
        else "an earlier run was here that made no step; it is removed"
    ]
