"""Text in, text out: a tokenizer around the engine."""

from collections.abc import Iterator, Sequence

import torch

from groundup.config.errors import UserError
from groundup.config.generate import SamplingConfig
from groundup.generation.engine import Decoder
from groundup.generation.stopping import StopStrings
from groundup.model.types import LanguageModel
from groundup.tokenizer.base import Tokenizer
from groundup.tokenizer.streaming import Utf8Stream


class TextGenerator:
    """Draws continuations of a prompt.

    A continuation ends after max_new_tokens, before the first stop string, or where the model draws `eot_id`, the
    end of a document. It is the text of its ids, without the prompt.

    Args:
        model: Put into evaluation mode while it generates, and back after.
        tokenizer: The one it was trained with.
    """

    def __init__(self, model: LanguageModel, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer

    def stream(
        self,
        prompt: str,
        *,
        max_new_tokens: int,
        sampling: SamplingConfig | None = None,
        seed: int = 0,
        stop: Sequence[str] = (),
    ) -> Iterator[str]:
        """Continue a prompt piece by piece; the pieces joined are what `generate` returns.

        A character waits until all its bytes are drawn, and text that could be the beginning of a stop string waits
        until it is not.

        Args:
            prompt: What to continue. Empty starts a new document; where the tokenizer has no `eot_id`, a new line.
            max_new_tokens: The most tokens to draw.
            sampling: How to draw them; as the model says, by default.
            seed: The same seed draws the same text.
            stop: Strings that end the text and do not belong to it.

        Returns:
            Pieces, none of them empty.

        Raises:
            UserError: The prompt has symbols the tokenizer does not know, or is too long for the model. Raised here,
                before the first piece is asked for.
        """
        pieces = self._pieces(prompt, max_new_tokens, sampling, 1, seed, stop)
        return (piece for (piece,) in pieces if piece)

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
        """Continue a prompt num_samples times at once; the other arguments and the errors are `stream`'s.

        Returns:
            Continuations. The i-th depends on the seed and i, not on how many there are; `stream` gives the first.
        """
        pieces = self._pieces(prompt, max_new_tokens, sampling, num_samples, seed, stop)
        return ["".join(parts) for parts in zip(*pieces, strict=True)]

    def prompt_ids(self, prompt: str) -> list[int]:
        """The ids that a prompt stands for.

        Raises:
            UserError: The tokenizer does not know a symbol, or the prompt is empty and nothing can stand for it.
        """
        if prompt:
            return self.tokenizer.encode(prompt)
        if self.tokenizer.eot_id is not None:
            return [self.tokenizer.eot_id]
        try:
            return self.tokenizer.encode("\n")
        except UserError:
            raise UserError(
                "the prompt is empty, and this model knows neither a separator nor a newline to start after:"
                " give a prompt"
            ) from None

    def _pieces(
        self,
        prompt: str,
        max_new_tokens: int,
        sampling: SamplingConfig | None,
        num_samples: int,
        seed: int,
        stop: Sequence[str],
    ) -> Iterator[list[str]]:
        """Check everything now; what is returned then yields the next piece, often empty, of every sample."""
        decoder = Decoder(
            self.model,
            torch.tensor(self.prompt_ids(prompt), dtype=torch.long),
            max_new_tokens=max_new_tokens,
            sampling=sampling or SamplingConfig(),
            num_samples=num_samples,
            generator=torch.Generator().manual_seed(seed),
        )
        samples = [_Sample(self.tokenizer, stop) for _ in range(num_samples)]
        return self._run(decoder, samples, max_new_tokens)

    def _run(self, decoder: Decoder, samples: list["_Sample"], max_new_tokens: int) -> Iterator[list[str]]:
        was_training = getattr(self.model, "training", False)
        self.model.eval()
        try:
            going = list(samples)
            for _ in range(max_new_tokens):
                for sample, token in zip(going, decoder.step().tolist(), strict=True):
                    sample.push(token)
                yield [sample.take() for sample in samples]
                rows = [row for row, sample in enumerate(going) if not sample.done]
                if not rows:
                    return
                if len(rows) < len(going):
                    decoder.keep(rows)
                    going = [going[row] for row in rows]
            yield [sample.finish() for sample in samples]
        finally:
            self.model.train(was_training)


class _Sample:
    """One continuation: from ids to the text that is ready to be shown."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._utf8, self._stops = Utf8Stream(), StopStrings(stop)
        self._ready = ""
        self.done = False

    def push(self, token: int) -> None:
        """Take the next id."""
        if token == self._tokenizer.eot_id:
            self._end()
        else:
            self._ready += self._stops.push(self._utf8.push(self._tokenizer.decode_bytes([token])))
            self.done = self._stops.stopped

    def take(self) -> str:
        """The text that has become ready since the last call."""
        ready, self._ready = self._ready, ""
        return ready

    def finish(self) -> str:
        """The same, when no more ids come."""
        if not self.done:
            self._end()
        return self.take()

    def _end(self) -> None:
        self._ready += self._stops.push(self._utf8.finish()) + self._stops.finish()
        self.done = True
