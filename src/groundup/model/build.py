"""From a config to a model."""

from collections.abc import Callable
from typing import Any, overload

import torch
from torch.overrides import TorchFunctionMode

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
    """The model of a config, with the GELU that is faster on CPUs. Its weights are still to be drawn or loaded."""
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


@overload
def empty_model(config: GPTConfig | ModernConfig) -> Transformer: ...
@overload
def empty_model(config: ModelConfig) -> Transformer | Bigram: ...
def empty_model(config: ModelConfig) -> Transformer | Bigram:
    """The model a config describes without any data (device "meta"), for weights that are at hand.

    No initial weights are drawn: on that device PyTorch would import its compiler for it, which takes two seconds.
    """
    with torch.device("meta"), _NoInit():
        return build_model(config)


class _NoInit(TorchFunctionMode):
    """In this context the functions of torch.nn.init leave their tensor as it is."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)
