"""What training, evaluation and generation need from a model."""

import contextlib
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from groundup.config.model import ModelConfig
from groundup.model.kv_cache import KVCache


@runtime_checkable
class LanguageModel(Protocol):
    """One door: `hidden` reads tokens, `logits` is the head, and calling the module is the one after the other.

    Code that needs the logits of a few positions gives `logits` those rows of `hidden` and no others: in a small model
    the head is the largest product. GPT, Modern and Bigram are such modules.
    """

    training: bool
    """As in torch.nn.Module."""
    logit_softcap: float
    """The bound c, where logits are c tanh(hidden W^T / c); 0 is none."""

    @property
    def config(self) -> ModelConfig:
        """The shape of the model."""

    def __call__(self, idx: Int[Tensor, "B T"], *, cache: KVCache | None = None) -> Float[Tensor, "B T V"]:
        """Logits; with a cache, idx continues the tokens the cache holds and the cache advances by T."""

    def hidden(self, idx: Int[Tensor, "B T"], *, cache: KVCache | None = None) -> Float[Tensor, "B T C"]:
        """What the head reads, at every position."""

    def logits(self, hidden: Float[Tensor, "*B C"]) -> Float[Tensor, "*B V"]:
        """The head's scores at the given positions."""

    @property
    def head_weight(self) -> Float[Tensor, "V C"] | None:
        """W of the head's product hidden W^T, with which the loss computes logits in chunks; None if there is none."""

    def new_cache(self, batch_size: int, max_tokens: int, *, static: bool = False) -> KVCache:
        """An empty cache in the model's dtype and on its device; see KVCache for `static`."""

    def parameters(self) -> Any:
        """As in torch.nn.Module."""

    def state_dict(self) -> dict[str, Any]:
        """As in torch.nn.Module."""

    def eval(self) -> Any:
        """As in torch.nn.Module."""

    def train(self, mode: bool = True) -> Any:  # noqa: FBT001, FBT002
        """As in torch.nn.Module."""


@contextlib.contextmanager
def evaluating(model: nn.Module | LanguageModel) -> Iterator[None]:
    """Put a model in evaluation mode, without dropout, and back as it was."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def wide(logits: Float[Tensor, "*B V"]) -> Float[Tensor, "*B V"]:
    """Logits in float32 at least, whatever the model computes in."""
    return logits if logits.dtype == torch.float64 else logits.float()


def device_of(model: LanguageModel) -> torch.device:
    """The device a model lives on."""
    return next(model.parameters()).device
