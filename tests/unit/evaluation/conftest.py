from pathlib import Path

import pytest
import torch

from groundup.config.model import GPTConfig, ModernConfig
from groundup.model.build import Transformer, build_model
from groundup.model.init import init_weights
from groundup.tokenizer.char import CharTokenizer


@pytest.fixture
def letters() -> CharTokenizer:
    return CharTokenizer("\n ,abcdefghijklmnopqrstuvwxyz")


@pytest.fixture
def make_model():
    def make(**options) -> Transformer:
        cls = ModernConfig if "position" in options else GPTConfig
        config = cls(**{"n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 64, "vocab_size": 29, **options})
        model = init_weights(build_model(config), seed=3)
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():  # large enough that tokens differ clearly
            for p in model.parameters():
                p.add_(0.2 * torch.randn(p.shape, generator=generator))
        return model

    return make


@pytest.fixture
def choices() -> Path:
    return Path(__file__).with_name("choices.jsonl")


@pytest.fixture
def completions() -> Path:
    return Path(__file__).with_name("completions.jsonl")
