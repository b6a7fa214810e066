import json

import pytest

import needs
from groundup.cli.main import main


@pytest.mark.slow
def test_all_contestants_make_the_same_number_of_tokens(tmp_path, capsys):
    needs.gpt2_vocabulary()
    for part in range(2):
        lines = [json.dumps({"text": f"document {part} {k} " * 20}) for k in range(20)]
        (tmp_path / f"{part}.jsonl").write_text("\n".join(lines))
    words = [f"--path={tmp_path}", "--workers=1", "--rounds=1", "--no-gigatoken"]
    assert main(["bench", "prepare", *words]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(result["contestants"]) == {"groundup", "pool, half the workers", "pool, all workers"}
    assert result["contestants"]["groundup"]["times_our_time"] == 1
    assert result["tokens"] > 40 * 20 * 3
