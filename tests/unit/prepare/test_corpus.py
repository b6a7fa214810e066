import re
from pathlib import Path

import pytest

from groundup.config.data import DataConfig, ShardConfig
from groundup.config.errors import UserError
from groundup.corpora.local_files import LocalFiles
from groundup.prepare.corpus import HELD_OUT_BEFORE, open_corpus, prepared_folder, refuse_moved
from groundup.prepare.prepare import prepare
from groundup.tokenizer.char import CharTokenizer


def test_a_text_that_has_moved_is_named_with_what_helps(tmp_path):
    gone = tmp_path / "gone.txt"
    with pytest.raises(UserError, match=r"gone\.txt, the text that the run learns, is not there any more; look about$"):
        refuse_moved(DataConfig(source="text", path=gone), "look about")
    gone.touch()
    refuse_moved(DataConfig(source="text", path=gone), "look about")


def test_a_text_may_lie_where_the_run_began_and_not_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = (
        f"notes/t.txt, the text that the run learns, is not in {tmp_path}; go to where the run began, or look about"
    )
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        refuse_moved(DataConfig(source="text", path=Path("notes/t.txt")), "look about")


@pytest.mark.parametrize(("source", "path"), [("text", "notes/*.txt"), ("shakespeare", None), ("shards", "data/gone")])
def test_what_is_no_file_is_not_looked_for(source, path):
    refuse_moved(DataConfig(source=source, path=path and Path(path)), "look about")


def test_a_run_goes_on_with_data_of_the_rules_it_began_with(tmp_path):
    text = "".join(f"line {i}\n" for i in range(300))
    (tmp_path / "a.txt").write_text(text)
    config = DataConfig(source="text", path=tmp_path / "a.txt", cache_dir=tmp_path / "data")
    source = LocalFiles(str(config.path), config)
    older = prepared_folder(config, source, hold_out=HELD_OUT_BEFORE)
    learned = prepare(source, CharTokenizer.from_text([text]), older, ShardConfig(val_fraction=0.3)).fingerprint
    now = open_corpus(config).index.fingerprint
    assert now != learned
    assert open_corpus(config, learned=learned).dir == older
    assert open_corpus(config, learned="0" * 64).index.fingerprint == now
    assert open_corpus(config, learned=now).index.fingerprint == now
