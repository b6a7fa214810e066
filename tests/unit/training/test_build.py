import pytest

from groundup.config.errors import UserError
from groundup.config.model import GPTConfig, ModernConfig
from groundup.distributed.ranks import World
from groundup.training import build
from groundup.training.build import _refuse_different_inputs as refuse
from groundup.training.build import refuse_beyond_memory


class Two(World):
    """A second rank that has other texts for what is named."""

    def ranks_that_differ(self, text):
        self.compared.append(text)
        return [1] if text in self.other else []


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


@pytest.mark.fault("B3", "a model of our own flags that no memory holds", "one line before the first weight is made")
def test_a_model_beyond_the_memory_is_refused_before_it_is_built(monkeypatch):
    monkeypatch.setattr(build, "free_memory", lambda device: 10**6)
    refuse_beyond_memory(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=8, vocab_size=27))
    with pytest.raises(UserError, match=r"takes 0\.5 GB for its weights alone, and 0\.0 GB of memory are free; take a"):
        refuse_beyond_memory(GPTConfig(vocab_size=50257))
    with pytest.raises(UserError, match=r"take a smaller model\.ngram_rows$"):
        refuse_beyond_memory(ModernConfig(n_layer=1, ngram=4, ngram_rows=2**20, vocab_size=27))
