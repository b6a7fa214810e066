"""From a config to a model."""

from typing import overload

from groundup.config.model import BigramConfig, GPTConfig, ModelConfig
from groundup.model.bigram import Bigram
from groundup.model.gpt import GPT
from groundup.model.swap import use_sigmoid_gelu


@overload
def build_model(config: GPTConfig) -> GPT: ...
@overload
def build_model(config: ModelConfig) -> GPT | Bigram: ...
def build_model(config: ModelConfig) -> GPT | Bigram:
    """The model a config describes, on the default device, its weights still to be drawn or loaded.

    It is the model of the page, with the GELU that is faster on CPUs.
    """
    model = Bigram(config) if isinstance(config, BigramConfig) else GPT(config)
    use_sigmoid_gelu(model)
    return model
