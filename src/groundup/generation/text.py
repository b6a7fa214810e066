"""Text in, text out: a tokenizer around the engine."""

from collections.abc import Iterator, Sequence

import torch

from groundup.config.generate import SamplingConfig
from groundup.generation.engine import generate_ids
from groundup.generation.stopping import StopStrings
from groundup.model.types import LanguageModel
from groundup.tokenizer.base import Tokenizer
from groundup.tokenizer.streaming import Utf8Stream


class TextGenerator:
    """Draws continuations of a prompt.

    Args:
        model: Put into evaluation mode while it generates, and back after.
        tokenizer: Its tokenizer.
    """

    def __init__(self, model: LanguageModel, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer

    def stream(
        self,
        prompt: str,
        *,
        max_new_tokens: int,
        sampling: SamplingConfig | None = None,
        num_samples: int = 1,
        seed: int = 0,
        stop: Sequence[str] = (),
    ) -> Iterator[list[str]]:
        """Continue a prompt piece by piece.

        The pieces of a sample joined are its whole text: a character whose bytes are not all there waits for them,
        and what could be the beginning of a stop string waits until it is not.

        Args:
            prompt: What to continue; empty starts a new document (or a new line, where there is no separator).
            max_new_tokens: Tokens per sample.
            sampling: How to draw.
            num_samples: Continuations side by side.
            seed: Of the first sample; sample i has seed + i.
            stop: A sample ends before the first of these strings, and at the end of a document.

        Yields:
            The next piece of every sample, often empty.

        Raises:
            UserError: The prompt has symbols the tokenizer does not know, or is too long for the model.
        """
        samples = [_Sample(self.tokenizer, stop) for _ in range(num_samples)]
        was_training = getattr(self.model, "training", False)
        self.model.eval()
        try:
            steps = generate_ids(
                self.model,
                torch.tensor(self._prompt_ids(prompt), dtype=torch.long),
                max_new_tokens=max_new_tokens,
                sampling=sampling or SamplingConfig(),
                num_samples=num_samples,
                seed=seed,
            )
            for ids in steps:
                yield [sample.push(i) for sample, i in zip(samples, ids.tolist(), strict=True)]
                if all(sample.done for sample in samples):
                    break
            yield [sample.finish() for sample in samples]
        finally:
            self.model.train(was_training)

    def generate(
        self,
        prompt: str,
        *,
        max_new_tokens: int,
        sampling: SamplingConfig | None = None,
        num_samples: int = 1,
        seed: int = 0,
        stop: Sequence[str] = (),
    ) -> list[str]:
        """`stream`, joined: the continuation of every sample, without the prompt."""
        pieces = self.stream(
            prompt,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            num_samples=num_samples,
            seed=seed,
            stop=stop,
        )
        return ["".join(parts) for parts in zip(*pieces, strict=True)]

    def _prompt_ids(self, prompt: str) -> list[int]:
        if prompt:
            return self.tokenizer.encode(prompt)
        return [self.tokenizer.eot_id] if self.tokenizer.eot_id is not None else self.tokenizer.encode("\n")


class _Sample:
    """One continuation: ids to text, up to its end."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._utf8, self._stops = Utf8Stream(), StopStrings(stop)
        self.done = False

    def push(self, token: int) -> str:
        if self.done:
            return ""
        if token == self._tokenizer.eot_id:
            self.done = True
            return self._stops.push(self._utf8.finish())
        text = self._stops.push(self._utf8.push(self._tokenizer.decode_bytes([token])))
        self.done = self._stops.stopped
        return text

    def finish(self) -> str:
        return self._stops.push(self._utf8.finish()) + self._stops.finish()
