"""From a config to a model."""

from typing import overload

from groundup.config.model import BigramConfig, GPTConfig, ModelConfig, ModernConfig
from groundup.model.bigram import Bigram
from groundup.model.gpt import GPT
from groundup.model.modern import Modern
from groundup.model.swap import use_sigmoid_gelu

Transformer = GPT | Modern


@overload
def build_model(config: GPTConfig | ModernConfig) -> Transformer: ...
@overload
def build_model(config: ModelConfig) -> Transformer | Bigram: ...
def build_model(config: ModelConfig) -> Transformer | Bigram:
    """The model a config describes, on the default device, its weights still to be drawn or loaded.

    It is the model of the page, with the GELU that is faster on CPUs.
    """
    model: Transformer | Bigram
    match config:
        case GPTConfig():
            model = GPT(config)
        case ModernConfig():
            model = Modern(config)
        case BigramConfig():
            model = Bigram(config)
    use_sigmoid_gelu(model)
    return model
