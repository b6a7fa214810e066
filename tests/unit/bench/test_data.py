import json

from groundup.cli.main import main


def test_the_loader_is_measured_in_three_places(tmp_path, capsys):
    words = ["--tokens=100000", "--block-size=64", "--batches=5", f"--folder={tmp_path}", "--no-step"]
    assert main(["bench", "data", *words]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(result["places"]) == ["memory", "disk, cached", "disk, cold"]
    for row in result["places"].values():
        assert row["tokens_per_sec"] > 0
        assert row["us_longest"] >= row["us_median"] > 0
    assert not list(tmp_path.iterdir())
