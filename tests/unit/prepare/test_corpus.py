from pathlib import Path

import pytest

from groundup.config.data import DataConfig
from groundup.config.errors import UserError
from groundup.prepare.corpus import refuse_moved


def test_a_text_that_has_moved_is_named_with_what_helps(tmp_path):
    gone = tmp_path / "gone.txt"
    with pytest.raises(UserError, match=r"gone\.txt, the text that the run learns, is not there any more; look about$"):
        refuse_moved(DataConfig(source="text", path=gone), "look about")
    gone.touch()
    refuse_moved(DataConfig(source="text", path=gone), "look about")


@pytest.mark.parametrize(("source", "path"), [("text", "notes/*.txt"), ("shakespeare", None), ("shards", "data/gone")])
def test_what_is_no_file_is_not_looked_for(source, path):
    refuse_moved(DataConfig(source=source, path=path and Path(path)), "look about")
