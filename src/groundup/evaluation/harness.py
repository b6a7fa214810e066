"""A model of ours under EleutherAI's lm-evaluation-harness (extra: eval).

The harness finds models by name in a table of its own, and looks for no plugins; so this module is its command line
with one more name in the table:

    python -m groundup.evaluation.harness run --model groundup --model_args path=DIR --tasks hellaswag

takes everything that `lm_eval` takes. In Python: `register()`, then `lm_eval.simple_evaluate(model="groundup", ...)`.
Tokens and scores are those of the harness's own model `hf` on the folder that `groundup export --format hf` writes.
"""

import functools
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from groundup.checkpoint.model_folder import load_model
from groundup.config.errors import UsageError, UserError
from groundup.config.generate import SamplingConfig
from groundup.evaluation.pages import rolling
from groundup.evaluation.scoring import BATCH_TOKENS, Question, log_likelihoods
from groundup.generation.text import TextGenerator, TextRequest, prompt_ids
from groundup.runtime.device import pick_device
from groundup.runtime.stored import DTYPES, Weights

Pair = tuple[Sequence[int], Sequence[int]]


class Answers:
    """What the harness asks of a model, in terms of ids.

    Args:
        path: A run, checkpoint or model folder.
        device: auto, cpu, cuda or mps.
        batch_tokens: As for `evaluation.scoring.log_likelihoods`.
        weights: How matrices are stored, as in `load_model`.
    """

    def __init__(
        self,
        path: Path,
        *,
        device: str = "auto",
        batch_tokens: int = 0,
        weights: Weights | Literal["saved", "auto"] = "saved",
    ) -> None:
        chosen, known = pick_device(device), (*DTYPES, "saved", "auto")
        if weights not in known:
            raise UsageError(f"weights must be one of {', '.join(known)}, got {weights}")
        loaded = load_model(path, device=chosen, rows=batch_tokens or BATCH_TOKENS[chosen.type], weights=weights)
        self.model, self.tokenizer, self.batch_tokens = loaded.model, loaded.tokenizer, batch_tokens
        self.block_size = loaded.config.block_size

    @property
    def prefix_id(self) -> int:
        """What stands before a text that has nothing before it: the separator, or a new line where there is none."""
        return prompt_ids(self.tokenizer, "")[0]

    def loglikelihood(self, pairs: Sequence[Pair]) -> list[tuple[float, bool]]:
        """(ln p, whether greedy decoding says it) of the second part of each pair after the first.

        The harness asks for each choice of a question on its own; here they meet again, and share their context.

        Raises:
            UserError: A part is empty, or the model gives no numbers.
        """
        places: dict[tuple[int, ...], list[int]] = {}
        for place, (context, continuation) in enumerate(pairs):
            if not context or not continuation:
                raise UserError(f"request {place} has an empty {'continuation' if context else 'context'}")
            places.setdefault(tuple(context), []).append(place)
        questions = [Question(context, [pairs[k][1] for k in found]) for context, found in places.items()]
        answers: dict[int, tuple[float, bool]] = {}
        scores = log_likelihoods(self.model, questions, batch_tokens=self.batch_tokens)
        for found, results in zip(places.values(), scores, strict=True):
            answers.update((k, (result.logprob, result.greedy)) for k, result in zip(found, results, strict=True))
        if any(math.isnan(logprob) for logprob, _ in answers.values()):  # the harness would find a likeliest one
            raise UserError("a score is not a number; the model is damaged or has diverged")
        return [answers[place] for place in range(len(pairs))]

    def request(
        self, prompt: str, *, stop: Sequence[str], max_new_tokens: int, sampling: SamplingConfig
    ) -> TextRequest:
        """To continue a prompt up to a stop string or the end of the document.

        A long prompt loses its beginning, as the harness's own models do it: what is new still fits into the context.
        """
        room = max(1, self.block_size - max_new_tokens)
        ids = (self.tokenizer.encode(prompt) or [self.prefix_id])[-room:]
        stop = tuple(text for text in stop if text)
        return TextRequest(prompt=tuple(ids), max_new_tokens=max_new_tokens, sampling=sampling, stop=stop)

    def generate(self, requests: Sequence[TextRequest]) -> Iterator[tuple[int, str]]:
        """(place of the request, text), side by side and in the order in which they end."""
        completions = TextGenerator(self.model, self.tokenizer).complete(requests)
        return ((completion.request, completion.texts[0]) for completion in completions)


@functools.cache
def register() -> None:
    """Teach the harness the name `groundup`.

    Raises:
        UserError: It is not installed.
    """
    try:
        from lm_eval.api.model import TemplateLM
        from lm_eval.api.registry import register_model
        from lm_eval.models.utils import normalize_gen_kwargs
    except ImportError:
        raise UserError("lm-evaluation-harness is not installed: pip install 'groundup[eval]'") from None

    @register_model("groundup")
    class GroundupLM(TemplateLM):  # type: ignore[misc]
        """The harness's side: its words on the left, `Answers` on the right."""

        def __init__(  # the harness gives two sizes of batches: ours are in tokens
            self,
            path: str,
            device: str | None = None,
            batch_tokens: int = 0,
            weights: Any = "saved",
            batch_size: object = None,
            max_batch_size: object = None,
        ) -> None:
            super().__init__()
            batch_tokens = int(batch_tokens)
            self.answers = Answers(Path(path), device=_device(device), batch_tokens=batch_tokens, weights=weights)

        @property
        def eot_token_id(self) -> int:
            return self.answers.prefix_id

        def tok_encode(self, string: str, **_: object) -> list[int]:
            return self.answers.tokenizer.encode(string)

        def _loglikelihood_tokens(self, requests: Any, **_: object) -> list[tuple[float, bool]]:
            answers = self.answers.loglikelihood([(context, continuation) for _, context, continuation in requests])
            for (words, _, _), answer in zip(requests, answers, strict=True):
                if words is not None:
                    self.cache_hook.add_partial("loglikelihood", words, answer)
            return answers

        def loglikelihood_rolling(self, requests: Any, **_: object) -> list[float]:
            totals = []
            for (text,) in (request.args for request in requests):
                windows = rolling(self.tok_encode(text), self.prefix_token_id, self.answers.block_size)
                pairs = [(window.context, window.continuations[0]) for window in windows]
                totals.append(sum(logprob for logprob, _ in self.answers.loglikelihood(pairs)))
                self.cache_hook.add_partial("loglikelihood_rolling", (text,), totals[-1])
            return totals

        def generate_until(self, requests: Any, **_: object) -> list[str]:
            asked = [request.args for request in requests]
            texts = [""] * len(asked)
            wanted = [_request(self.answers, prompt, normalize_gen_kwargs(options)) for prompt, options in asked]
            for place, texts[place] in self.answers.generate(wanted):
                self.cache_hook.add_partial("generate_until", asked[place], texts[place])
            return texts


def _device(asked: str | None) -> str:
    """A kind of device: the harness asks for `cuda:0` by itself, and its own models take the CPU where that is not."""
    kind = (asked or "auto").split(":")[0]
    return "auto" if kind == "cuda" and not torch.cuda.is_available() else kind


def _request(answers: Answers, prompt: str, options: Any) -> TextRequest:
    """One request to generate, with the harness's options in their normal form."""
    sampling = SamplingConfig(
        temperature=options["temperature"], top_k=options.get("top_k", 0), top_p=options.get("top_p", 1.0)
    )
    stop, most = options.get("until", []), options["max_gen_toks"]
    return answers.request(prompt, stop=stop, max_new_tokens=most, sampling=sampling)


def main() -> int:
    """The harness's command line, with our model in its table."""
    try:
        register()
        from lm_eval.__main__ import cli_evaluate

        cli_evaluate()
    except UserError as error:
        sys.stderr.write(f"groundup: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
