import pytest

from groundup.config.errors import UserError
from groundup.distributed.ranks import World
from groundup.training import build
from groundup.training.build import _refuse_different_inputs as refuse


class Two(World):
    """A second rank that has other texts for what is named."""

    def require_same(self, digest):
        self.compared.append(digest)
        return [1] if digest in self.other else []


@pytest.mark.fault("E15", "a rank has other data, another tokenizer or other code", "refused at the start, with what")
@pytest.mark.parametrize("what", ["data", "tokenizer", "code"])
def test_ranks_that_would_learn_from_something_else_are_refused(monkeypatch, what):
    monkeypatch.setattr(build, "code_fingerprint", lambda: "code")
    Two.compared, Two.other = [], {what}
    with pytest.raises(UserError, match=rf"^rank 1 has other {what} than rank 0"):
        refuse(Two(size=2), data="data", tokenizer="tokenizer")
    Two.other = set()
    Two.compared.clear()
    refuse(Two(size=2), data="data", tokenizer="tokenizer")
    assert Two.compared == ["data", "tokenizer", "code"]
    refuse(World(), data="data", tokenizer="tokenizer")
