"""Whether compiled kernels may be trusted: their numbers beside PyTorch's, in a hundredth of a second."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor

from groundup.config.data import IGNORE
from groundup.config.generate import SamplingConfig
from groundup.kernels.adamw import AdamWSteps, Moved
from groundup.kernels.attention import CausalAttention
from groundup.kernels.block import BlockTensors, CompiledBlocks, Linear, Norm
from groundup.kernels.muon import MuonHow, MuonMatrix, MuonSteps
from groundup.kernels.one_call import OneCallBlocks
from groundup.runtime.stored import DTYPES, PlainKernels, Stored, Weights, keep_rows, read_rows, store

if TYPE_CHECKING:
    from groundup.kernels.compiled import CompiledKernels
    from groundup.kernels.training import TrainingKernels

_HEADS, _WIDTH, _HELD = 2, 20, 3
"""Of the small block: a head fills no vector whole, and a text has begun."""
_FEW, _MANY = 2, 45
"""New tokens that go different ways through the kernels."""
_COSINE, _SINE = 0.6, 0.8
"""Of an angle."""
_IN_TRAINING, _BOUNDS = 48, {torch.float32: 1e-4, torch.bfloat16: 0.05}
"""The width of a block in training, of three heads, and how far off it may be, of the largest number."""


@torch.inference_mode(mode=False)  # whoever loads the kernels first may be in it, and its tensors have no gradients
def wrong_in_training(kernels: "TrainingKernels") -> list[str]:
    """What training has that differs, in sizes that fill vectors and tiles or not."""
    generator = torch.Generator().manual_seed(0)
    agree = {
        "GELU": _gelus_agree(kernels),
        "squared ReLU": _squares_agree(kernels),
        "gradients of weights": _gradients_agree(kernels, generator),
        "steps of Muon": _muon_agrees(kernels.muon, generator),
        "steps of AdamW": _adamw_agrees(kernels.adamw, generator),
        "cross-entropy": _losses_agree(kernels, generator),
        "rotations": _rotations_agree(kernels, generator),
        "dropout": _dropout_agrees(kernels),
        "attention": all(_attention_agrees(kernels, dtype, generator) for dtype in kernels.attention),
        "blocks in training": all(_one_call_agrees(blocks, generator) for blocks in kernels.one_call.values()),
        "whole losses": all(_whole_loss_agrees(kernels, dtype, generator) for dtype in kernels.whole_loss),
    }
    return [name for name, right in agree.items() if not right]


@torch.inference_mode(mode=False)
def wrong_in_decoding(kernels: "CompiledKernels") -> list[str]:
    """What decoding has that differs: types of weights, draws, blocks."""
    generator = torch.Generator().manual_seed(0)
    kept = torch.float32, torch.float16, torch.int8
    agree = {name: _products_agree(kernels, name, generator) for name in DTYPES} | {
        "draws": _draws_agree(kernels, generator),
        "largest logits": _largest_agree(kernels, generator),
        "blocks": all(_blocks_agree(kernels, dtype, generator) for dtype in kept),
    }
    return [name for name, right in agree.items() if not right]


def _products_agree(kernels: "CompiledKernels", weights: Weights, generator: torch.Generator) -> bool:
    agree = True
    for n_rows, n_outputs, n_inputs in ((1, 40, 64), (5, 19, 77), (_MANY, 70, 77), (_MANY, 40, 192)):
        x = torch.randn(n_rows, n_inputs, generator=generator)
        bias = torch.randn(n_outputs, generator=generator)
        stored = store(torch.randn(n_outputs, n_inputs, generator=generator), weights)
        ours, theirs = kernels.linear(x, stored, bias), PlainKernels().linear(x, stored, bias)
        agree = agree and torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4)
        idx = torch.tensor([0, n_outputs - 1])
        agree = agree and torch.equal(kernels.rows(kernels.arranged(stored), idx), PlainKernels().rows(stored, idx))
    return agree


def _gelus_agree(kernels: "TrainingKernels") -> bool:
    with torch.enable_grad():
        x = torch.linspace(-8, 8, 1001).requires_grad_()
        y = F.gelu(x, approximate="tanh")
        (grad,) = torch.autograd.grad(y.sum(), x)
        pairs = ((kernels.gelu(x), y), (kernels.gelu_backward(x, torch.ones_like(x)), grad))
    return all(torch.allclose(a, b, atol=1e-5) for a, b in pairs)


def _squares_agree(kernels: "TrainingKernels") -> bool:
    x = torch.linspace(-8, 8, 1001)
    kept = x.relu()
    pairs = ((kernels.relu_squared(x), kept**2), (kernels.relu_squared_backward(kept**2, kept), 2 * kept**2))
    return all(torch.allclose(a, b) for a, b in pairs)


def _gradients_agree(kernels: "TrainingKernels", generator: torch.Generator) -> bool:
    start, pairs = [torch.randn(_MANY, n, generator=generator) for n in (7, 32)], []
    for dtype in kernels.one_call:
        grad, inputs = (part.to(dtype) for part in start)
        right, total = grad.float().T @ inputs.float(), torch.ones(7, 32)
        pairs.append((kernels.head.add_gradient(None, grad, inputs), right))
        pairs.append((kernels.head.add_gradient(total, grad, inputs), 1 + right))
    return all(torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4) for ours, theirs in pairs)


def _losses_agree(kernels: "TrainingKernels", generator: torch.Generator) -> bool:
    logits, picked = torch.randn(3, 77, generator=generator), torch.tensor([[0], [76], [5]])
    grad = logits.softmax(-1).scatter_add(1, picked, torch.full((3, 1), -1.0))
    nats = F.cross_entropy(logits, picked[:, 0], reduction="none")[:, None]
    told, narrow = kernels.head.cross_entropy(logits, picked, back=True), logits.bfloat16()
    rounded = F.cross_entropy(narrow.float(), picked[:, 0], reduction="none")[:, None]
    pairs = (told, nats), (logits, grad), (kernels.head.cross_entropy(narrow, picked, back=False), rounded)
    return all(torch.allclose(ours, theirs, atol=1e-5) for ours, theirs in pairs)


def _dropout_agrees(kernels: "TrainingKernels") -> bool:
    (dropped,) = kernels.dropout(torch.ones(1, 4096), (1, 2, 1 << 30)).unbind()  # a quarter
    values = set(dropped.tolist())
    return values == {0.0, torch.tensor(4 / 3).item()} and bool(0.7 < dropped.bool().float().mean() < 0.8)


def _one_call_agrees(blocks: OneCallBlocks, generator: torch.Generator) -> bool:
    """Two texts of rows that fill no tile, and all gradients: float32's up to rounding."""
    told, angles = [], torch.tensor([_COSINE, _SINE]).repeat_interleave(_MANY * 16).view(2, _MANY, 1, 16)
    x, grad = torch.randn(2, 2, _MANY, _IN_TRAINING, generator=generator)
    tensors = [part.clone().requires_grad_() for part in (x, *_tensors(_block(_IN_TRAINING, generator)))]

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(_turned(q), _turned(k), v, is_causal=True)

    with torch.enable_grad():
        ours = blocks(tensors[0], 3, 1e-5, 0.0, tensors[1:], (angles[0], angles[1]))
        for y in (ours, _through(tensors[0], 3, tensors[1:], attend)):
            told.append((y, *torch.autograd.grad((y * grad).sum(), tensors)))
    return all((a - b).abs().max() <= _BOUNDS[blocks.dtype] * b.abs().max() for a, b in zip(*told, strict=True))


def _whole_loss_agrees(kernels: "TrainingKernels", dtype: torch.dtype, generator: torch.Generator) -> bool:
    """Two blocks, a vocabulary that fills no vector, a target that does not count, and all gradients."""
    told, idx = [], torch.randint(9, (2, _MANY), generator=generator)
    targets = idx.roll(1, 1).masked_fill(idx == 0, IGNORE)
    start = [torch.randn(n, _IN_TRAINING, generator=generator) for n in (9, _MANY + 1)]
    blocks = (part for _ in range(2) for part in _tensors(_block(_IN_TRAINING, generator)))
    start += [1 + start[0][0], start[0][1], *blocks]

    def in_steps(tensors: list[Tensor]) -> Tensor:
        tokens, places, gain, shift, *blocks = tensors
        x = kernels.one_call[dtype](tokens[idx] + places[:_MANY], 3, 1e-5, 0.0, blocks)
        logits = F.linear(F.layer_norm(x, gain.shape, gain, shift), tokens)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE, reduction="sum") / 4

    with torch.enable_grad():
        for way in (partial(kernels.whole_loss[dtype], idx, targets, 3, 1e-5, 0.0, tokens=4), in_steps):
            tensors = [part.clone().requires_grad_() for part in start]
            loss = way(tensors)
            torch.autograd.backward(loss)
            told.append([loss, *(part.grad for part in tensors)])
    return all((a - b).abs().max() <= _BOUNDS[dtype] * b.abs().max() for a, b in zip(*told, strict=True))


def _muon_agrees(steps: MuonSteps, generator: torch.Generator) -> bool:
    """Two square maps, a long and a wide matrix, of whose elements some decay."""
    how = MuonHow((3.0, -3.0, 1.0), iterations=3, eps=1e-7, momentum=0.75, lr=0.5, decay=0.25, cautious=True)
    matrices, expected = [], []
    for maps, *shape in ((1, 80, 32), (1, 32, 80), (2, 64, 32)):
        p, grad, momentum = torch.randn(3, *shape, generator=generator)
        matrices.append(MuonMatrix(p, grad, momentum, maps))
    for p, grad, momentum, maps in matrices:
        average = momentum.lerp(grad, 0.25)
        x = grad.lerp(average, 0.75).view(maps, -1, p.shape[1])
        x = x / x.norm(dim=(1, 2), keepdim=True)
        for _ in range(how.iterations):
            gram = x @ x.mT
            x = 3 * x - 3 * gram @ x + gram @ gram @ x
        x = x.flatten(0, 1)
        length = 0.5 * max(1, p.shape[0] / maps / p.shape[1]) ** 0.5
        expected.append((p - 0.25 * p * (p * x > 0) - length * x, average))
    steps(matrices, how)
    return all(
        torch.allclose(ours, theirs, rtol=1e-3, atol=1e-3)
        for matrix, (p, average) in zip(matrices, expected, strict=True)
        for ours, theirs in ((matrix.p, p), (matrix.momentum, average))
    )


def _adamw_agrees(steps: AdamWSteps, generator: torch.Generator) -> bool:
    """The fourth step of a long and a short parameter, and the length of their gradients."""
    tensors: list[Tensor] = []
    gradients: list[Tensor] = []
    expected: list[Tensor] = []
    for n in (40_000, 5):
        p, grad, average, square = torch.randn(4, n, generator=generator)
        square = square.abs()
        tensors += p, average, square, torch.tensor(3.0)
        gradients.append(grad)
        average, square = average.lerp(grad, 0.25), square.lerp(grad**2, 0.125)
        moved = 0.5 * average / (1 - 0.75**4) / ((square / (1 - 0.875**4)).sqrt() + 0.125)
        expected += 0.95 * p - moved, average, square, torch.tensor(4.0)
    steps(Moved(tensors), gradients, lr=0.5, betas=(0.75, 0.875), eps=0.125, decay=0.1)
    return torch.allclose(steps.length(gradients), torch.cat(gradients).norm(), rtol=1e-4) and all(
        torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5) for ours, theirs in zip(tensors, expected, strict=True)
    )


def _rotations_agree(kernels: "TrainingKernels", generator: torch.Generator) -> bool:
    """By an angle whose cosine is 0.6, of heads as they are and normalized before, with the gradient of these."""
    cos, sin = torch.full((3, 40), _COSINE), torch.full((3, 40), _SINE)
    with torch.enable_grad():
        x = torch.randn(1, 3, 2, 40, generator=generator).requires_grad_()
        y = _turned(F.rms_norm(x, x.shape[-1:], eps=1e-5))
        (grad,) = torch.autograd.grad((y**3).sum(), x)
    x = x.detach()
    ours, scales = kernels.normed_rotate(x, cos, sin, 1e-5)
    ours_back = kernels.normed_rotate_backward(3 * y.detach() ** 2, cos, sin, ours, scales)
    pairs = ((kernels.rotate(x, cos, sin), _turned(x)), (ours, y), (ours_back, grad))
    narrow = kernels.rotate(x.bfloat16(), cos, sin)
    return all(torch.allclose(a, b, atol=1e-5) for a, b in pairs) and torch.allclose(
        narrow.float(), _turned(x), atol=0.05
    )


def _turned(x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((_COSINE * first - _SINE * second, _COSINE * second + _SINE * first), -1)


def _draws_agree(kernels: "CompiledKernels", generator: torch.Generator) -> bool:
    logits, uniform = torch.randn(9, 1000, generator=generator), torch.linspace(0.05, 0.95, 9).double()[:, None]
    kept = logits >= logits.topk(9).values[:, -1:]
    edges = (logits.double() / 0.8).masked_fill(~kept, -torch.inf).softmax(-1).cumsum(-1)
    expected = torch.searchsorted(edges, uniform, right=True)[:, 0]
    drawn = kernels.draw(logits, SamplingConfig(temperature=0.8, top_k=9), uniform)
    return drawn.equal(expected) and kernels.draw(logits, SamplingConfig(temperature=0), None).equal(logits.argmax(-1))


def _largest_agree(kernels: "CompiledKernels", generator: torch.Generator) -> bool:
    """Of two rows beside ordinary ones, the larger is rounded down and the other up, as far as can be."""
    weight, x = torch.randn(200, 78, generator=generator), torch.randint(0, 2, (1, 78), generator=generator) * 2.0 - 1
    weight[5], weight[7] = 9.501 * x[0], 9.499 * x[0]
    weight[7, :5] += x[0, :5]
    x[0, -1] = 0
    weight[:, -1] = 127  # the scales are 1
    logits, found = kernels.linear(x, Stored(weight)), kernels.largest(x, weight, kernels.rounded(weight), 1)
    if found is None or logits.argmax() != 7 or found.argmax() != 7:
        return False
    return torch.equal(found, logits.where(found.isfinite(), found))


def _attention_agrees(kernels: "TrainingKernels", dtype: torch.dtype, generator: torch.Generator) -> bool:
    """Two texts of more than one block of queries, whose last vector is not full, and their gradients; shared keys."""
    queries, grad = torch.randn(2, 2, 4, 53, 32, generator=generator)
    keys, values = torch.randn(2, 2, 2, 53, 32, generator=generator)
    start, told = [part.to(dtype) for part in (queries, keys, values)], []
    with torch.enable_grad():
        for attend, kind in ((CausalAttention(kernels), dtype), (F.scaled_dot_product_attention, torch.float32)):
            q, k, v = (part.to(kind, copy=True).requires_grad_() for part in start)
            y = attend(q, k, v, is_causal=True, enable_gqa=True)
            told.append((y, *torch.autograd.grad((y * grad).sum(), (q, k, v))))  # see pick_matmul
    return all(torch.allclose(a.float(), b, atol=_BOUNDS[dtype]) for a, b in zip(*told, strict=True))


def _blocks_agree(kernels: "CompiledKernels", kept: torch.dtype, generator: torch.Generator) -> bool:
    """Two texts of a few and of many new tokens through two blocks: the residual stream, and what the cache holds."""
    n_embd = _HEADS * _WIDTH
    blocks = [_block(n_embd, generator) for _ in range(2)]
    compiled = CompiledBlocks(kernels.blocks, kernels.attend_layer, blocks)
    agree = True
    for n_new in (_FEW, _MANY):
        shape = (len(blocks), 2, _HEADS, _HELD + n_new + 1, _WIDTH)
        cache = [keep_rows(torch.randn(shape, generator=generator), kept) for _ in ("keys", "values")]
        x = torch.randn(2, n_new, n_embd, generator=generator)
        ours, theirs = [x.clone(), *(part.clone() for part in cache)], [x.clone(), *(part.clone() for part in cache)]
        compiled(ours[0], ours[1], ours[2], [_HELD] * 2)
        for layer, block in enumerate(blocks):
            attend = partial(_attend_behind, theirs[1][layer], theirs[2][layer])
            theirs[0] = _through(theirs[0], _HEADS, _tensors(block), attend)
        atol = {torch.float32: 1e-4, torch.float16: 1e-2, torch.int8: 5e-2}[kept]
        pairs = [(ours[0], theirs[0])]
        pairs += [(read_rows(ours[i], x.dtype), read_rows(theirs[i], x.dtype)) for i in (1, 2)]
        agree = agree and all(torch.allclose(a, b, rtol=1e-4, atol=atol) for a, b in pairs)
    return agree


def _block(n_embd: int, generator: torch.Generator) -> BlockTensors:
    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) * shape[-1] ** -0.5

    norms = [Norm(1 + draw(n_embd), draw(n_embd), 1e-5) for _ in range(2)]
    sizes = ((3 * n_embd, n_embd), (n_embd, n_embd), (4 * n_embd, n_embd), (n_embd, 4 * n_embd))
    return BlockTensors(norms, [Linear(store(draw(*size), "fp32"), draw(size[0])) for size in sizes])


def _tensors(block: BlockTensors) -> list[Tensor]:
    """Weight and bias of each of its parts, in their order."""
    (ln_1, ln_2), (c_attn, attn_proj, c_fc, mlp_proj) = block.norms, block.linears
    parts = (ln_1, c_attn, attn_proj, ln_2, c_fc, mlp_proj)
    pairs = ((part.gain, part.shift) if isinstance(part, Norm) else (part.stored.weight, part.bias) for part in parts)
    return [tensor for pair in pairs for tensor in pair if tensor is not None]


def _through(
    x: Float[Tensor, "B T C"], n_head: int, tensors: list[Tensor], attend: Callable[[Tensor, Tensor, Tensor], Tensor]
) -> Float[Tensor, "B T C"]:
    """A block in PyTorch's operations."""
    gain_1, shift_1, w_qkv, b_qkv, w_proj, b_proj, gain_2, shift_2, w_fc, b_fc, w_out, b_out = tensors
    qkv = F.linear(F.layer_norm(x, gain_1.shape, gain_1, shift_1), w_qkv, b_qkv)
    y = attend(*qkv.view(*x.shape[:2], 3, n_head, -1).permute(2, 0, 3, 1, 4))  # each (B, H, T, D)
    x = x + F.linear(y.transpose(1, 2).flatten(2), w_proj, b_proj)
    h = F.linear(F.layer_norm(x, gain_2.shape, gain_2, shift_2), w_fc, b_fc)
    return x + F.linear(F.gelu(h, approximate="tanh"), w_out, b_out)


def _attend_behind(
    keys: Float[Tensor, "B H S D"], values: Float[Tensor, "B H S D"], q: Tensor, k: Tensor, v: Tensor
) -> Float[Tensor, "B H T D"]:
    """Behind _HELD tokens; keys and values get the new ones."""
    n_new = q.shape[2]
    end = _HELD + n_new
    keys[:, :, _HELD:end], values[:, :, _HELD:end] = keep_rows(k, keys.dtype), keep_rows(v, values.dtype)
    k, v = read_rows(keys[:, :, :end], q.dtype), read_rows(values[:, :, :end], q.dtype)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=torch.ones(n_new, end, dtype=torch.bool).tril(_HELD))
