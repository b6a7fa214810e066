"""Exercises of the notebook `inference`."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from groundup.config.generate import SamplingConfig
from groundup.config.model import GPTConfig
from groundup.generation.engine import generate_ids
from groundup.generation.sampling import apply_top_p
from groundup.learn.exercises import Answer, Exercise, UnwrittenError, ask, expect
from groundup.model.gpt import GPT
from groundup.model.init import init_weights
from groundup.model.kv_cache import KVCache

SHAPE = GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=32, vocab_size=23)
PROMPTS = ([3], [5, 1, 4, 1], [7, 7, 2, 9, 0, 22, 13])


class _Counting(GPT):
    """A model that counts the tokens it reads."""

    n_read = 0

    def forward(self, idx: Int[Tensor, "B T"], *, cache: KVCache | None = None) -> Float[Tensor, "B T V"]:
        self.n_read += idx.shape[1]
        return super().forward(idx, cache=cache)


def _model(seed: int) -> _Counting:
    """Logits far apart, so that the likeliest token is not decided by rounding."""
    model = _Counting(SHAPE)
    init_weights(model, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator))
    return model.eval()


def _truth(model: GPT, prompt: list[int], n: int) -> list[int]:
    steps = generate_ids(model, prompt, max_new_tokens=n, sampling=SamplingConfig(temperature=0))
    return [token for (token,) in steps]


def _nucleus(answer: Answer) -> None:
    row = torch.tensor([0.125, 0.5, 0.0625, 0.25, 0.0625 - 2**-10, 2**-10])
    expect(answer, row, 0.75, want=torch.tensor([False, True, False, True, False, False]))
    expect(answer, row, 0.76, want=torch.tensor([True, True, False, True, False, False]))
    expect(answer, row, 0.01, want=torch.tensor([False, True, False, False, False, False]))
    generator = torch.Generator().manual_seed(2)
    for p in (0.3, 0.6, 0.9, 0.95):
        logits = 2 * torch.randn(1, 50, generator=generator, dtype=torch.float64)
        kept = apply_top_p(logits, p)[0].isfinite()
        expect(answer, logits[0].softmax(-1), p, want=kept, shown=f"50 random probabilities, {p}")


def _hit(answer: Answer) -> None:
    row = torch.tensor([0.25, 0.0, 0.5, 0.25], dtype=torch.float64)
    for u, want in ((0.0, 0), (0.2499, 0), (0.25, 2), (0.62, 2), (0.75, 3), (0.9999, 3)):
        expect(answer, row, u, want=want)
    expect(answer, torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64), 0.0, want=2)
    # Darts at equal distances hit each token in proportion to its width.
    row = torch.tensor([3, 1, 0, 4, 2], dtype=torch.float64) / 10
    hits = [ask(answer, row, (k + 0.5) / 1000) for k in range(1000)]
    for token, width in enumerate(row.tolist()):
        share = sum(int(i) == token for i in hits) / 1000
        assert abs(share - width) < 2e-3, f"token {token} of probability {width} is hit by {share:.1%} of the darts"


def _greedy_decode(answer: Answer) -> None:
    for seed, prompt in enumerate(PROMPTS):
        model = _model(seed)
        shown = f"model, {prompt}, 12"
        got = ask(answer, model, prompt, 12, shown=shown)
        _require_ids(answer, shown, got, _truth(_model(seed), prompt, 12))


def _cached_decode(answer: Answer) -> None:
    for seed, prompt in enumerate(PROMPTS):
        model = _model(seed)
        shown = f"model, {prompt}, 12"
        with torch.no_grad():
            got = answer(model, list(prompt), 12)
        if got is None:
            raise UnwrittenError(f"cached_decode({shown}) returns nothing so far.")
        _require_ids(answer, shown, got, _truth(_model(seed), prompt, 12))
        # The last id drawn need not be read.
        assert model.n_read <= len(prompt) + 12, (
            f"{len(prompt)} ids of prompt and 12 new ones can be read with at most {len(prompt) + 12} tokens; your"
            f" function let the model read {model.n_read}"
        )


def _require_ids(answer: Answer, shown: str, got: object, want: list[int]) -> None:
    name = getattr(answer, "__name__", "your function")
    got = got.flatten().tolist() if isinstance(got, Tensor) else got
    same = isinstance(got, list | tuple) and [int(i) for i in got] == want
    assert same, f"{name}({shown}) should give {want}\nand gives {got}."


def _cache_bytes(answer: Answer) -> None:
    for n_layer, n_head, n_embd, tokens, batch, dtype in (
        (2, 2, 8, 10, 1, torch.float32),
        (3, 4, 16, 7, 5, torch.float16),
        (12, 12, 768, 16, 2, torch.bfloat16),
    ):
        cache = KVCache(
            n_layer=n_layer,
            batch_size=batch,
            n_head=n_head,
            max_tokens=tokens,
            head_dim=n_embd // n_head,
            dtype=dtype,
        )
        real = sum(tensor.numel() * tensor.element_size() for tensor in (cache.keys, cache.values))
        expect(answer, n_layer, n_embd, tokens, batch, dtype.itemsize, want=real)


EXERCISES = (
    Exercise(
        name="nucleus",
        test=_nucleus,
        hints=(
            "Sort from the likeliest down and add up. A token is kept if the sum of those *before* it is below p.",
            "values, order = probabilities.sort(descending=True); before = values.cumsum(0) - values; then go back to"
            " the order of the ids: mask[order] = before < p.",
        ),
        why="This is all of top-p: the set grows and shrinks with how sure the model is.",
    ),
    Exercise(
        name="hit",
        test=_hit,
        hints=(
            "The right ends of the intervals are the running sums, probabilities.cumsum(0). Which is the first one"
            " to the right of u?",
            "Count the ends that are not to the right of u: int((probabilities.cumsum(0) <= u).sum()).",
        ),
        why="Sampling is one uniform number and one search: the same seed draws the same text.",
    ),
    Exercise(
        name="greedy_decode",
        test=_greedy_decode,
        hints=(
            "In a loop: make a tensor of shape (1, T) from all ids so far, take the logits at the last position, and"
            " append the argmax.",
            "ids = list(prompt); n times: ids.append(int(model(torch.tensor([ids]))[0, -1].argmax())); return"
            " ids[len(prompt):].",
        ),
        why="It is what the engine says at temperature 0. It reads every token again and again.",
    ),
    Exercise(
        name="cache_bytes",
        test=_cache_bytes,
        hints=(
            "One token of one sequence leaves in each layer a key and a value, of n_embd numbers each over all heads.",
            "2 * n_layer * batch_size * n_tokens * n_embd * bytes_per_number.",
        ),
        why="Long conversations are limited by this number more than by anything else: it grows with every token kept.",
    ),
    Exercise(
        name="cached_decode",
        test=_cached_decode,
        hints=(
            "First call: the whole prompt, as a tensor of shape (1, T). Every later call: only the one id chosen last."
            " The cache remembers the rest.",
            "cache = model.new_cache(1, len(prompt) + n); idx = torch.tensor([prompt]); n times: logits = model(idx,"
            " cache=cache)[0, -1]; append its argmax; idx = that id as a (1, 1) tensor.",
        ),
        why="The same text for a fraction of the work: with it you have written the heart of every inference engine.",
    ),
)
