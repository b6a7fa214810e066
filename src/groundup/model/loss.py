"""The loss beside the model: cross-entropy of the next token, summed.

At GPT-2's vocabulary the logits are the largest tensor of a step by far: 823 MB for 4 sequences of 1024 in float32, and
plain autograd holds them three times (logits, log-probabilities, gradient). `head_loss_sum` goes through the head in
chunks of rows instead and keeps none of them. The gradient of a sum of cross-entropies is known as soon as the logits
are, p - onehot(target), so it is computed in the same visit: no chunk is ever computed twice (the idea of Liger
Kernel's fused linear cross-entropy, Hsu et al. 2024, without a kernel).
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from groundup.config.data import IGNORE
from groundup.model.types import LanguageModel

LOGITS_BYTES = {"cpu": 1 << 27, "cuda": 1 << 29}
"""Logits in float32 that are in memory at once, by device; more tokens go through the head in chunks."""
CUDA_MULTIPLE = 64
"""Rows of the head are padded to a multiple of this on CUDA: 50,257 columns would keep tensor cores waiting."""


def lm_loss_sum(logits: Float[Tensor, "B T V"], targets: Int[Tensor, "B T"]) -> Float[Tensor, ""]:
    """Sum of -ln p(target) over all targets that count, in float32 (or wider, as the logits are).

    A sum and not a mean, so that micro-steps and ranks add up to the mean over a whole step exactly.
    """
    if logits.dtype.itemsize < 4:
        logits = logits.float()
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE, reduction="sum")


def head_loss_sum(
    hidden: Float[Tensor, "B T C"],
    weight: Float[Tensor, "V C"],
    targets: Int[Tensor, "B T"],
    *,
    softcap: float = 0.0,
    chunk_rows: int | None = None,
    multiple: int | None = None,
) -> Float[Tensor, ""]:
    """`lm_loss_sum(hidden @ weight.T, targets)` without ever holding the logits of all tokens.

    Args:
        hidden: What the head reads.
        weight: The head.
        targets: Ids, or IGNORE.
        softcap: Logits are softcap * tanh(logits / softcap); 0 leaves them.
        chunk_rows: Tokens whose logits are in memory together; None takes LOGITS_BYTES' worth.
        multiple: The vocabulary is padded to a multiple of this inside the products; None takes what the device likes.
    """
    device = hidden.device.type
    chunk_rows = chunk_rows or _chunk_rows(weight)
    multiple = multiple or _multiple(weight)
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    return _HeadLoss.apply(  # type: ignore[no-untyped-call]
        hidden.flatten(0, 1), weight, targets.flatten(), dtype, softcap, chunk_rows, multiple, torch.is_grad_enabled()
    )


def needs_chunks(targets: Int[Tensor, "B T"], weight: Float[Tensor, "V C"]) -> bool:
    """Whether `head_loss_sum` is worth it: the logits are large, or the head has a width that its device dislikes."""
    return weight.device.type != "meta" and (
        targets.numel() > _chunk_rows(weight) or len(weight) % _multiple(weight) != 0
    )


def _chunk_rows(weight: Float[Tensor, "V C"]) -> int:
    return max(1, LOGITS_BYTES.get(weight.device.type, LOGITS_BYTES["cpu"]) // (4 * len(weight)))


def _multiple(weight: Float[Tensor, "V C"]) -> int:
    return CUDA_MULTIPLE if weight.device.type == "cuda" else 1


class _HeadLoss(torch.autograd.Function):
    """Forward computes both gradients of the sum; backward scales them."""

    @staticmethod
    def forward(  # noqa: PLR0913  # apply takes no keywords
        ctx: Any,
        hidden: Float[Tensor, "N C"],
        weight: Float[Tensor, "V C"],
        targets: Int[Tensor, " N"],
        dtype: torch.dtype,
        softcap: float,
        chunk_rows: int,
        multiple: int,
        with_gradients: bool,  # noqa: FBT001
    ) -> Float[Tensor, ""]:
        with torch.autocast(hidden.device.type, enabled=False):
            vocab_size = len(weight)
            head = _pad(weight.to(dtype), -vocab_size % multiple)
            wide = torch.promote_types(dtype, torch.float32)
            loss = torch.zeros((), dtype=wide, device=hidden.device)
            grad_hidden = torch.empty_like(hidden)
            grad_head = torch.zeros(head.shape if with_gradients else (0,), dtype=wide, device=head.device)
            for start in range(0, len(targets), chunk_rows):
                rows = slice(start, start + chunk_rows)
                counts = (targets[rows] != IGNORE)[:, None]
                picked = targets[rows, None].where(counts, 0)
                x = hidden[rows].to(dtype)
                logits = (x @ head.T)[:, :vocab_size]
                if softcap:
                    bent = torch.tanh(logits.to(wide) / softcap)
                    logits = softcap * bent
                logp = logits.log_softmax(-1, dtype=wide)
                loss = loss - (logp.gather(1, picked) * counts).sum()
                if with_gradients:
                    grad = logp.exp_()  # p - onehot; rows that do not count are dropped where there is less to multiply
                    grad.scatter_add_(1, picked, grad.new_full((1, 1), -1).expand_as(picked))
                    if softcap:
                        grad = grad * (1 - bent * bent)
                    grad = _pad(grad.to(dtype).T, len(head) - vocab_size).T
                    grad_hidden[rows] = (grad @ head) * counts
                    grad_head = _add_product(grad_head, grad.T, x * counts)
            if with_gradients:
                ctx.save_for_backward(grad_hidden, grad_head[:vocab_size].to(weight.dtype))
            return loss

    @staticmethod
    def backward(ctx: Any, grad: Float[Tensor, ""]) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_head = ctx.saved_tensors
        return grad_hidden * grad.to(grad_hidden.dtype), grad_head * grad.to(grad_head.dtype), *[None] * 6


def _pad(x: Float[Tensor, "V C"], rows: int) -> Float[Tensor, "W C"]:
    """Rows of zeros below; `F.pad` would copy even where there are none to add."""
    return F.pad(x, (0, 0, 0, rows)) if rows else x


def _add_product(total: Float[Tensor, "V C"], a: Float[Tensor, "V N"], b: Float[Tensor, "N C"]) -> Float[Tensor, "V C"]:
    """Add a @ b to a total; the sum over chunks stays in float32 where the products are narrower."""
    return total.addmm_(a, b) if total.dtype == a.dtype else total.add_(a @ b)


class LossModule(nn.Module):
    """A model and its loss as one module, so that torch.compile and data parallelism see one forward."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, idx: Int[Tensor, "B T"], targets: Int[Tensor, "B T"]) -> Float[Tensor, ""]:
        """The summed loss."""
        hidden, head = self.model.hidden(idx), self.model.head_weight
        if head is None or not needs_chunks(targets, head):
            return lm_loss_sum(self.model.logits(hidden), targets)
        return head_loss_sum(hidden, head, targets, softcap=self.model.logit_softcap)
