"""Decoding: ids in, ids out. The engine knows nothing of text.

The prompt is read once (prefill), for all samples together. Then every step reads one token a sample and finds the
tokens before it in a preallocated KV cache. When the context is full, the engine reads the last half of
`block_size` tokens again as a new prompt, at positions 0, 1, ...: half a context of new tokens for one more
prefill. It does the same for learned and rotary positions, because keys of deeper layers depend on tokens that
have left the context; no shift of positions could make them what the model would compute.
"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from groundup.config.errors import UsageError
from groundup.config.generate import SamplingConfig
from groundup.generation.sampling import Row, check_bias, sample
from groundup.model.kv_cache import KVCache
from groundup.model.types import LanguageModel, device_of


class Decoder:
    """Continues one prompt several times, side by side, a token of each per step.

    A sample draws from a random generator of its own: it is the same however many samples there are and whichever
    of them end early (up to rounding: products of differently sized batches differ in their last bits).

    Args:
        model: In evaluation mode.
        prompt: At least one id. A model that sees one token (block_size 1) reads the last of any prompt; other
            prompts must fit into the context, because dropping their beginning would answer another question.
        max_new_tokens: The most steps that will be taken.
        sampling: How tokens are chosen.
        num_samples: Continuations (B).
        generator: Decides the random generators of all samples; sample i gets the i-th number drawn from it.

    Raises:
        UsageError: The prompt is empty or does not fit into the context.
    """

    def __init__(
        self,
        model: LanguageModel,
        prompt: Int[Tensor, " T"],
        *,
        max_new_tokens: int,
        sampling: SamplingConfig,
        num_samples: int = 1,
        generator: torch.Generator,
    ) -> None:
        if num_samples < 1 or max_new_tokens < 1:
            raise ValueError(f"nothing to do: {num_samples} samples of {max_new_tokens} tokens")
        block_size = model.config.block_size
        if not len(prompt):
            raise UsageError("the prompt is empty: give at least one token")
        if len(prompt) > block_size > 1:
            raise UsageError(f"the prompt has {len(prompt)} tokens, the model's context is {block_size}: shorten it")
        check_bias(sampling, model.config.vocab_size)
        self.model = model
        seeds = torch.randint(2**63 - 1, (num_samples,), generator=generator, device=generator.device)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds.tolist()]
        ids = prompt.tolist()
        self._rows = [Row(config=sampling, generator=generator, prompt=ids) for generator in generators]
        self._tokens = prompt.to(device_of(model)).expand(num_samples, -1)
        self._n_tokens = len(prompt)
        # The last token drawn is never read, so the cache needs no room for it.
        self._room = min(block_size, len(prompt) + max_new_tokens - 1)
        self._window = max(1, block_size // 2)
        self._cache: KVCache | None = None

    @property
    def tokens(self) -> Int[Tensor, "B S"]:
        """Prompt and continuation of every sample so far."""
        return self._tokens[:, : self._n_tokens]

    @torch.inference_mode()
    def step(self) -> Int[Tensor, " B"]:
        """Draw the next token of every sample."""
        logits = self._next_logits()
        drawn = [drawn.token for drawn in sample(logits, self._rows)]
        for row, token in zip(self._rows, drawn, strict=True):
            row.drawn.append(token)
        ids = torch.tensor(drawn, device=self._tokens.device)
        if self._n_tokens == self._tokens.shape[1]:  # full: double it, so that n steps copy O(n) ids
            self._tokens = torch.cat((self._tokens, torch.empty_like(self._tokens)), dim=1)
        self._tokens[:, self._n_tokens] = ids
        self._n_tokens += 1
        return ids

    @torch.inference_mode()
    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these samples only (indices into the present ones): ended ones cost nothing any more."""
        index = torch.tensor(rows, device=self._tokens.device)
        self._tokens = self._tokens[index]
        self._rows = [self._rows[row] for row in rows]
        if self._cache is not None:
            self._cache.keep(rows)

    def _next_logits(self) -> Float[Tensor, "B V"]:
        """Read what the cache does not hold yet."""
        cache = self._cache
        if cache is None:
            cache = self.model.new_cache(1, self._room)
            logits = _last_logits(self.model, self.tokens[:1, -self.model.config.block_size :], cache)
            n_samples = len(self._tokens)
            self._cache = cache if n_samples == 1 else cache.gather([0] * n_samples)
            return logits.expand(n_samples, -1)
        n_unread = 1
        if cache.length == cache.max_tokens:
            cache.truncate(0)
            n_unread = self._window
        return _last_logits(self.model, self.tokens[:, -n_unread:], cache)


def _last_logits(model: LanguageModel, idx: Int[Tensor, "B T"], cache: KVCache) -> Float[Tensor, "B V"]:
    """Logits after the last token. The head is spared for all others: a third of the work of GPT-2's prefill."""
    return model.logits(model.hidden(idx, cache=cache)[:, -1])


def generate_ids(
    model: LanguageModel,
    prompt: Int[Tensor, " T"],
    *,
    max_new_tokens: int,
    sampling: SamplingConfig,
    num_samples: int = 1,
    generator: torch.Generator,
) -> Iterator[Int[Tensor, " B"]]:
    """Continue a prompt by max_new_tokens tokens; arguments and errors are `Decoder`'s.

    Yields:
        The next id of every sample.
    """
    decoder = Decoder(
        model,
        prompt,
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        num_samples=num_samples,
        generator=generator,
    )
    return (decoder.step() for _ in range(max_new_tokens))
