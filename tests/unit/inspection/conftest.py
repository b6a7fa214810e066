from dataclasses import replace

import pytest
import torch

from groundup.model.gpt import GPT
from groundup.model.init import init_weights


@pytest.fixture
def sharp(tiny_config):
    """A GPT-2 in float64 whose heads look at something: weights as drawn leave their patterns nearly flat."""
    model = init_weights(GPT(replace(tiny_config, dropout=0.3)), seed=3).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "c_attn.weight" in name:
                parameter.mul_(20)
            if name.endswith("bias"):
                parameter.normal_(generator=generator)
    return model


@pytest.fixture
def text(tiny_config):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(tiny_config.vocab_size, (tiny_config.block_size,), generator=generator)
