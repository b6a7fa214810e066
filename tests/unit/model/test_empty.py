"""A model without data, for weights that are at hand."""

import subprocess
import sys

import torch

from groundup.config.model import BigramConfig
from groundup.model.build import build_model, empty_model


def test_names_shapes_and_types_are_those_of_the_model(tiny_config):
    for config in (tiny_config, BigramConfig(vocab_size=7)):
        whole, empty = build_model(config).state_dict(), empty_model(config).state_dict()
        assert {name: (t.shape, t.dtype) for name, t in whole.items()} == {
            name: (t.shape, t.dtype) for name, t in empty.items()
        }
        assert {t.device.type for t in empty.values()} == {"meta"}


def test_initialization_is_as_ever_afterwards():
    with torch.no_grad():
        drawn = torch.nn.init.normal_(torch.zeros(9))
    assert drawn.abs().min() > 0


def test_the_compiler_is_not_imported_for_it():
    code = (
        "import sys\nfrom groundup.config.model import GPTConfig\nfrom groundup.model.build import empty_model\n"
        "empty_model(GPTConfig(vocab_size=65))\nsys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
