import pytest
import torch

from groundup.checkpoint.init_from import init_from
from groundup.checkpoint.model_folder import save_model
from groundup.config.errors import UsageError, UserError
from groundup.config.model import GPTConfig, ModernConfig
from groundup.model.build import build_model
from groundup.model.init import init_weights
from groundup.tokenizer.char import CharTokenizer

LETTERS = CharTokenizer("abcdefgh")


def model_of(kind, block_size, seed):
    config = kind(n_layer=1, n_head=2, n_embd=16, block_size=block_size, vocab_size=8)
    return init_weights(build_model(config), seed=seed).eval()


@pytest.mark.parametrize(
    ("kind", "block_size"), [(GPTConfig, 5), (GPTConfig, 16), (ModernConfig, 5), (ModernConfig, 32)]
)
def test_a_shorter_context_is_the_same_function_of_its_tokens(tmp_path, kind, block_size):
    there = model_of(kind, 16, seed=1)
    save_model(tmp_path / "m", there, LETTERS, {})
    mine = model_of(kind, block_size, seed=2)
    init_from(mine, LETTERS, tmp_path / "m")
    idx = torch.tensor([[1, 2, 3, 4, 5]])
    with torch.no_grad():
        torch.testing.assert_close(mine(idx), there(idx))


def test_learned_positions_cannot_grow(tmp_path):
    save_model(tmp_path / "m", model_of(GPTConfig, 16, seed=1), LETTERS, {})
    with pytest.raises(UsageError, match=r"model.block_size is 32 and its 16"):
        init_from(model_of(GPTConfig, 32, seed=2), LETTERS, tmp_path / "m")


def test_a_folder_of_transformers_is_named_for_what_it_is(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="is a model of transformers; bring it in first: groundup import"):
        init_from(model_of(GPTConfig, 16, seed=2), LETTERS, tmp_path)
