"""Exercises of the notebook `build_gpt`."""

import torch
import torch.nn.functional as F

from groundup.config.model import GPTConfig, ModernConfig
from groundup.config.presets import MODELS
from groundup.learn.exercises import Answer, Exercise, ask, expect, same, show
from groundup.model.gpt import CausalSelfAttention
from groundup.planner.params import count_parameters


def _average_matrix(answer: Answer) -> None:
    expect(answer, 2, want=torch.tensor([[1.0, 0.0], [0.5, 0.5]]))
    expect(answer, 3, want=torch.tensor([[1.0, 0.0, 0.0], [1 / 2, 1 / 2, 0.0], [1 / 3, 1 / 3, 1 / 3]]))
    matrix = ask(answer, 17)
    x = torch.randn(17, 5, dtype=torch.float64)
    means = torch.stack([x[: t + 1].mean(dim=0) for t in range(17)])
    assert same(matrix.double() @ x, means, 1e-5), "average_matrix(17) @ x is not the mean of each position's past."


def _attention_weights(answer: Answer) -> None:
    zeros = torch.zeros(3, 4, dtype=torch.float64)
    expect(answer, zeros, zeros, want=torch.tensor([[1.0, 0.0, 0.0], [1 / 2, 1 / 2, 0.0], [1 / 3, 1 / 3, 1 / 3]]))
    # Values that are unit vectors: PyTorch's attention then returns its weights.
    for T, D in ((2, 1), (5, 4), (9, 16)):
        q, k = torch.randn(2, T, D, dtype=torch.float64).unbind()
        truth = F.scaled_dot_product_attention(q[None], k[None], torch.eye(T).double()[None], is_causal=True)[0]
        got = ask(answer, q, k)
        call = f"attention_weights of random q and k with T = {T}, D = {D}"
        assert same(tuple(getattr(got, "shape", ())), (T, T)), (
            f"{call} should have the shape {(T, T)}, not {show(got)}."
        )
        assert not got.isnan().any(), f"{call} holds NaN: a row of nothing but -inf has no softmax."
        rows = got.sum(dim=-1)
        assert same(rows, torch.ones(T), 1e-5), f"{call}: rows should sum to 1, they sum to {show(rows)}."
        assert not got.triu(1).any(), f"{call}: a position looks at one that is still to come."
        assert same(got, truth, 1e-5), f"{call}: the future is masked and rows sum to 1, but\n{_told(got, truth)}"


def _told(got: torch.Tensor, truth: torch.Tensor) -> str:
    return f"the last row should be {show(truth[-1])}\nand is {show(got[-1])}."


def _split_heads(answer: Answer) -> None:
    x = torch.arange(8.0).view(2, 4)
    expect(answer, x, 2, want=torch.tensor([[[0.0, 1.0], [4.0, 5.0]], [[2.0, 3.0], [6.0, 7.0]]]))
    expect(answer, x, 1, want=x[None])
    expect(answer, x, 4, want=x.T[..., None])
    x = torch.randn(7, 12)
    expect(answer, x, 3, want=torch.stack(x.chunk(3, dim=1)), shown="7x12 random numbers, 3")
    # The library's own layer, whose output projection is set to pass everything on, with values alone.
    layer = CausalSelfAttention(GPTConfig(n_layer=1, n_head=3, n_embd=12, block_size=7, vocab_size=1), 0)
    with torch.no_grad():
        layer.c_attn.weight.zero_()[-12:].copy_(torch.eye(12))
        layer.c_attn.bias.zero_()
        layer.c_proj.weight.copy_(torch.eye(12))
        layer.c_proj.bias.zero_()
        means = layer(x[None])[0]  # queries and keys are 0, so that each position takes the mean of its past
    last = ask(answer, x, 3).mean(dim=1).flatten()
    assert same(last, means[-1], 1e-4), "the heads, laid side by side again, are not those of groundup.model."


def _layer_norm(answer: Answer) -> None:
    one, zero = torch.ones(2), torch.zeros(2)
    row = torch.tensor([[1.0, 3.0]])
    expect(answer, row, one, zero, want=F.layer_norm(row, (2,)), tolerance=1e-5)
    constant = torch.tensor([[5.0, 5.0]])
    expect(answer, constant, one, zero, want=torch.zeros(1, 2))
    small = torch.tensor([[1e-3, -1e-3]])
    expect(answer, small, one, zero, want=F.layer_norm(small, (2,)), tolerance=1e-5)
    x = torch.randn(6, 9, dtype=torch.float64) * 4 + 2
    weight, bias = torch.randn(2, 9, dtype=torch.float64).unbind()
    want = F.layer_norm(x, (9,), weight, bias)
    expect(answer, x, weight, bias, want=want, shown="6x9 random numbers, random weight and bias")


def _count_parameters(answer: Answer) -> None:
    shapes: list[GPTConfig | ModernConfig] = [GPTConfig(n_layer=1, n_head=1, n_embd=2, block_size=3, vocab_size=5)]
    shapes += [GPTConfig(n_layer=3, n_head=4, n_embd=32, block_size=64, vocab_size=62)]
    shapes += [MODELS[name] for name in ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")]
    for shape in shapes:
        want = count_parameters(shape)
        expect(answer, shape.n_layer, shape.n_embd, shape.block_size, shape.vocab_size, want=want)


EXERCISES = (
    Exercise(
        name="average_matrix",
        test=_average_matrix,
        hints=(
            "torch.ones(T, T).tril() has ones where position i may look at j. What must each row be divided by?",
            "Divide by the number of ones in the row, kept as a column: lower.sum(dim=1, keepdim=True).",
        ),
        why="The share of each position in each, as a matrix: attention is this, with weights that depend on the text.",
    ),
    Exercise(
        name="attention_weights",
        test=_attention_weights,
        hints=(
            "All scores at once are q @ k.T, a (T, T) matrix; divide by the root of q.shape[-1] before anything else.",
            "Then scores.masked_fill(torch.ones(T, T, dtype=torch.bool).triu(1), -math.inf).softmax(dim=-1).",
        ),
        why="This matrix, one for each head of each layer, is what every picture of attention shows.",
    ),
    Exercise(
        name="split_heads",
        test=_split_heads,
        hints=(
            "First give each row its heads: x.view(T, n_head, D). Which two dimensions have to change places then?",
            "x.view(T, n_head, D).transpose(0, 1). view(n_head, T, D) has the right shape, and mixes up the rows.",
        ),
        why="The same C columns, cut into groups that each look for something else.",
    ),
    Exercise(
        name="layer_norm",
        test=_layer_norm,
        hints=(
            "Mean and variance are of each row: dim=-1, with keepdim=True. torch.var divides by C - 1 by default.",
            "centered = x - mean; variance = (centered**2).mean(-1, keepdim=True); divide by (variance + 1e-5) ** 0.5.",
        ),
        why="Whatever has piled up in the stream, each layer reads numbers of the same size.",
    ),
    Exercise(
        name="count_parameters",
        test=_count_parameters,
        hints=(
            "With C = n_embd, a block has c_attn (3C x C), c_proj (C x C), c_fc (4C x C), mlp.c_proj (C x 4C),"
            " the biases of all four, and two norms of 2C.",
            "A block has 12 C**2 + 13 C. Outside of the blocks are wte, wpe and one last norm.",
        ),
        why="You can now tell the size of any GPT from five numbers, before a byte of it is downloaded.",
    ),
)
