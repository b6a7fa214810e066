"""From a config to a model."""

from groundup.config.model import BigramConfig, ModelConfig
from groundup.model.bigram import Bigram
from groundup.model.gpt import GPT


def build_model(config: ModelConfig) -> GPT | Bigram:
    """The model a config describes, on the default device, its weights still to be drawn or loaded."""
    return Bigram(config) if isinstance(config, BigramConfig) else GPT(config)
