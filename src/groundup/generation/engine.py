"""Decoding: ids in, ids out. The engine knows nothing of text.

The prompt is read once (prefill) and its keys and values shared by all samples; then each step feeds one new token
per sample. When the context is full, the last half of it is read again as a new prompt: positions start over, for
learned and rotary ones alike, and decoding goes on.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Int
from torch import Tensor

from groundup.config.errors import UsageError
from groundup.config.generate import SamplingConfig
from groundup.generation.sampling import sample
from groundup.model.kv_cache import KVCache
from groundup.model.types import LanguageModel, device_of


@torch.inference_mode()
def generate_ids(
    model: LanguageModel,
    prompt: Int[Tensor, " T"],
    *,
    max_new_tokens: int,
    sampling: SamplingConfig,
    num_samples: int = 1,
    seed: int = 0,
) -> Iterator[Int[Tensor, " B"]]:
    """Continue a prompt, one token of every sample at a time.

    Args:
        model: In evaluation mode.
        prompt: At least one id.
        max_new_tokens: How many to draw.
        sampling: How to draw them.
        num_samples: Continuations side by side (B).
        seed: Sample i is drawn with seed + i, so it is the same however many there are.

    Yields:
        The next id of every sample, on the CPU.

    Raises:
        UsageError: The prompt is empty or longer than the model's context.
    """
    block_size = getattr(model.config, "block_size", 1)
    if not len(prompt):
        raise UsageError("the prompt is empty: give at least one token")
    if len(prompt) > block_size > 1:
        raise UsageError(f"the prompt has {len(prompt)} tokens, the model's context is {block_size}; shorten it")
    device = device_of(model)
    generators = [torch.Generator().manual_seed(seed + i) for i in range(num_samples)]
    history = prompt.to(device).expand(num_samples, -1)

    room = max(block_size, len(prompt) + max_new_tokens) if block_size == 1 else block_size
    logits, cache = _prefill(model, history[:1], room)
    cache = cache.expand(num_samples)
    logits = logits.expand(num_samples, -1)
    for n in range(max_new_tokens):
        ids = sample(logits, sampling, history, generators)
        yield ids.cpu()
        if n + 1 == max_new_tokens:
            return
        history = torch.cat((history, ids[:, None]), dim=1)
        if cache.length < cache.max_tokens:
            logits = model(ids[:, None], cache=cache)[:, -1]
        else:
            logits, cache = _prefill(model, history[:, -max(1, block_size // 2) :], room)


def _prefill(model: LanguageModel, idx: Int[Tensor, "B T"], room: int) -> tuple[Tensor, KVCache]:
    """Read tokens into a new cache; returns the logits after the last of them."""
    cache = model.new_cache(len(idx), room)
    return model(idx, cache=cache)[:, -1], cache
