"""Exercises of the notebook `gpt2`."""

import torch

from groundup.config.model import GPTConfig
from groundup.config.presets import MODELS
from groundup.evaluation.scoring import LogLikelihood
from groundup.interop.names import names, to_hf
from groundup.learn.exercises import Answer, Exercise, expect
from groundup.model.gpt import GPT
from groundup.model.init import init_weights
from groundup.model.lora import merge_lora
from groundup.planner.params import count_parameters

PUBLISHED = {"gpt2": 124_439_808, "gpt2-medium": 354_823_168, "gpt2-large": 774_030_080, "gpt2-xl": 1_557_611_200}


def _gpt2_parameters(answer: Answer) -> None:
    for name, n in PUBLISHED.items():
        shape = MODELS[name]
        expect(answer, shape.n_layer, shape.n_embd, shape.vocab_size, shape.block_size, want=n)
    shape = GPTConfig(n_layer=3, n_head=2, n_embd=10, block_size=7, vocab_size=13)
    assert count_parameters(shape) == sum(p.numel() for p in GPT(shape).parameters())
    expect(answer, 3, 10, 13, 7, want=count_parameters(shape))


def _to_hugging_face(answer: Answer) -> None:
    shape = GPTConfig(n_layer=2, n_head=2, n_embd=6, block_size=5, vocab_size=7)
    ours = init_weights(GPT(shape), seed=1).state_dict()
    generator = torch.Generator().manual_seed(2)
    ours = {name: torch.randn(tensor.shape, generator=generator) for name, tensor in ours.items()}
    theirs = to_hf(ours, shape.n_layer)
    for name in names(shape.n_layer):
        tensor = ours[name.ours]
        shown = f"{name.ours!r}, tensor of shape {tuple(tensor.shape)}"
        expect(answer, name.ours, tensor, want=(name.hf, theirs[name.hf]), shown=shown)


def _merged(answer: Answer) -> None:
    generator = torch.Generator().manual_seed(3)
    for d, c, r, alpha in ((3, 2, 1, 1.0), (4, 6, 2, 16.0), (5, 5, 3, 6.0)):
        w, a, b = (torch.randn(*size, generator=generator, dtype=torch.float64) for size in ((d, c), (r, c), (d, r)))
        scale = torch.tensor(alpha / r, dtype=torch.float64)
        state = {"x.weight": w, "x.lora_a": a, "x.lora_b": b, "x.lora_scale": scale}
        expect(answer, w, a, b, alpha, want=merge_lora(state)["x.weight"], tolerance=1e-9)


def _answers(answer: Answer) -> None:
    for endings in (
        [[-1.0], [-2.0]],
        [[-3.0, -3.0], [-4.0]],  # the sum prefers the short one, the mean the other
        [[-5.0], [-1.0, -1.0, -1.0], [-2.0, -1.0], [-0.5, -9.0]],
        [[-2.0, -2.0, -2.0], [-6.5], [-1.0] * 7, [-3.0, -2.5]],
        [[-1.0, -1.0], [-1.0, -1.0]],  # of equal ones the first
    ):
        scores = [LogLikelihood(sum(ending), len(ending), greedy=False) for ending in endings]
        places = range(len(scores))
        by_sum = max(places, key=lambda k, scores=scores: scores[k].logprob)  # type: ignore[misc]
        by_mean = max(places, key=lambda k, scores=scores: scores[k].mean)  # type: ignore[misc]
        expect(answer, endings, want=(by_sum, by_mean))


EXERCISES = (
    Exercise(
        name="gpt2_parameters",
        test=_gpt2_parameters,
        hints=(
            "Two embeddings; in each block two norms, four matrices with their biases; one norm at the end. A norm has"
            " a gain and a bias.",
            "A block has 12 C**2 weights, 3C + C + 4C + C biases and 4C numbers in its norms; add vocab_size * C,"
            " block_size * C and 2C for the last norm.",
        ),
        why="The four published models, to the last digit: nothing of GPT-2 is hidden from you.",
    ),
    Exercise(
        name="to_hugging_face",
        test=_to_hugging_face,
        hints=(
            "The name is ours behind 'transformer.'. Embeddings are two-dimensional, too, but only the four matrices"
            " inside a block are transposed.",
            "is_matrix = tensor.dim() == 2 and name.startswith('h.'); return f'transformer.{name}', tensor.T if"
            " is_matrix else tensor.",
        ),
        why="With these two lines a GPT-2 of yours opens in transformers, and theirs opens here.",
    ),
    Exercise(
        name="merged",
        test=_merged,
        hints=(
            "The change must have the shape of w, (D, C): which order of a and b gives that? It is scaled by alpha / r,"
            " and r is the number of rows of a.",
            "w + alpha / a.shape[0] * b @ a.",
        ),
        why="After merging nothing is left of LoRA: the model is as fast as before, and every program can read it.",
    ),
    Exercise(
        name="answers",
        test=_answers,
        hints=(
            "For each ending two numbers: sum(ending), and sum(ending) / len(ending). Log-probabilities are negative:"
            " the largest is the one closest to 0.",
            "sums = [sum(e) for e in logprobs]; means = [sum(e) / len(e) for e in logprobs]; index(max(...)) of"
            " both, as a tuple.",
        ),
        why="This is all of HellaSwag's arithmetic: acc and acc_norm are how often these two indices are the label.",
    ),
)
