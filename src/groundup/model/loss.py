"""The loss beside the model: cross-entropy of the next token, summed.

At GPT-2's vocabulary the logits are the largest tensor of a step by far: 823 MB for 4 sequences of 1024 in float32, and
plain autograd holds them three times (logits, log-probabilities, gradient). `head_loss_sum` goes through the head in
chunks of rows instead and keeps none of them. The gradient of a sum of cross-entropies is known as soon as the logits
are, p - onehot(target), so it is computed in the same visit: no chunk's logits are computed twice (the idea of Liger
Kernel's fused linear cross-entropy, Hsu et al. 2024; a kernel of ours does it on CPUs, PyTorch elsewhere).
"""

from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from groundup.config.data import IGNORE
from groundup.kernels.head import CompiledHead
from groundup.model.types import LanguageModel, wide
from groundup.planner.memory import even_rows, logits_bytes
from groundup.runtime.matmul import OneDNNHead

if TYPE_CHECKING:
    from groundup.model.build import Transformer

CUDA_MULTIPLE = 64
"""Rows of the head are padded to a multiple of this on CUDA: 50,257 columns would keep tensor cores waiting."""

LOW_CAP = 50.0
"""Logits that are capped by so much can be exponentiated without their largest being subtracted."""


def lm_loss_sum(logits: Float[Tensor, "B T V"], targets: Int[Tensor, "B T"]) -> Float[Tensor, ""]:
    """Sum of -ln p(target) over all targets that count, in float32 (or wider, as the logits are).

    A sum and not a mean, so that micro-steps and ranks add up to the mean over a whole step exactly.
    """
    return F.cross_entropy(wide(logits).flatten(0, 1), targets.flatten(), ignore_index=IGNORE, reduction="sum")


def head_loss_sum(
    hidden: Float[Tensor, "B T C"],
    weight: Float[Tensor, "V C"],
    targets: Int[Tensor, "B T"],
    *,
    softcap: float = 0.0,
    chunk_rows: int | None = None,
    multiple: int | None = None,
    by: OneDNNHead | CompiledHead | None = None,
) -> Float[Tensor, ""]:
    """`lm_loss_sum(hidden @ weight.T, targets)` without ever holding the logits of all tokens.

    Args:
        hidden: What the head reads.
        weight: The head.
        targets: Ids, or IGNORE.
        softcap: Logits are softcap * tanh(logits / softcap); 0 leaves them.
        chunk_rows: Tokens whose logits are in memory together; None takes as many as `logits_bytes` allows, evenly.
        multiple: The vocabulary is padded to a multiple of this inside the products; None takes what suits the device.
        by: Multiplies, and may have kernels for the rest; None is PyTorch.
    """
    device = hidden.device.type
    chunk_rows = chunk_rows or even_rows(targets.numel(), _chunk_rows(weight))
    multiple = multiple or _multiple(weight)
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    return _HeadLoss.apply(  # type: ignore[no-untyped-call]
        hidden.flatten(0, 1),
        weight,
        targets.flatten(),
        dtype,
        softcap,
        chunk_rows,
        multiple,
        torch.is_grad_enabled(),
        by,
    )


def needs_chunks(targets: Int[Tensor, "B T"], weight: Float[Tensor, "V C"]) -> bool:
    """Whether `head_loss_sum` is worth it: the logits are large, or the device is slow with a head of this width."""
    return weight.device.type != "meta" and (
        targets.numel() > _chunk_rows(weight) or len(weight) % _multiple(weight) != 0
    )


def _chunk_rows(weight: Float[Tensor, "V C"]) -> int:
    device = weight.device
    memory = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 0
    return max(1, logits_bytes(device.type, memory) // (4 * len(weight)))


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
        by: OneDNNHead | CompiledHead | None,
    ) -> Float[Tensor, ""]:
        linear = F.linear if by is None else by
        with torch.autocast(hidden.device.type, enabled=False):
            vocab_size = len(weight)
            head = _pad(weight.to(dtype), -vocab_size % multiple)
            wide = torch.promote_types(dtype, torch.float32)
            loss = torch.zeros((), dtype=wide, device=hidden.device)
            grads_hidden: list[Tensor] = []
            grad_head: Tensor | None = None
            for start in range(0, len(targets), chunk_rows):
                rows = slice(start, start + chunk_rows)
                counts = (targets[rows] != IGNORE)[:, None]
                picked = targets[rows, None].where(counts, 0)
                x = hidden[rows].to(dtype)
                of_rows = _fusable if torch.compiler.is_compiling() else partial(_in_place, by=by, back=with_gradients)
                nats, grad, scale = of_rows(linear(x, head), picked, vocab_size, softcap, wide)
                loss = loss + (nats * counts).sum()
                if with_gradients:  # rows are scaled, and dropped if they do not count, where there is less to multiply
                    scale = scale * counts
                    grads_hidden.append((linear(grad, head.T) * scale).to(hidden.dtype))
                    grad_head = _add_product(grad_head, grad, (x * scale).to(dtype), wide, by)
                del grad  # else it would be there beside the next rows' logits
            if grad_head is not None:
                grad_hidden = torch.cat(grads_hidden) if len(grads_hidden) > 1 else grads_hidden[0]
                ctx.save_for_backward(grad_hidden, grad_head[:vocab_size].to(weight.dtype))
            return loss

    @staticmethod
    def backward(ctx: Any, grad: Float[Tensor, ""]) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_head = ctx.saved_tensors
        return grad_hidden * grad.to(grad_hidden.dtype), grad_head * grad.to(grad_head.dtype), *[None] * 7


def _in_place(
    logits: Float[Tensor, "N W"],
    picked: Int[Tensor, "N 1"],
    vocab_size: int,
    softcap: float,
    wide: torch.dtype,
    *,
    by: OneDNNHead | CompiledHead | None,
    back: bool,
) -> tuple[Float[Tensor, "N 1"], Float[Tensor, "N W"], Tensor | float]:
    """-ln p(target) of each row, its gradient p - onehot in the type of the logits, and a factor that this still lacks.

    With as little memory as there can be, and the factor 1. Kernels may give no gradient unless it goes back.
    """
    dtype, padding, bent = logits.dtype, logits.shape[1] - vocab_size, None
    if isinstance(by, CompiledHead) and not padding and not softcap and by.suits(logits):
        return by.kernels.head.cross_entropy(logits, picked, back=back), logits, 1.0
    logits = logits[:, :vocab_size]
    if softcap:
        bent = torch.tanh(logits.to(wide) / softcap)
        logits = softcap * bent
    logp = logits.log_softmax(-1, dtype=wide)
    nats = -logp.gather(1, picked)
    grad = logp.exp_()
    grad.scatter_add_(1, picked, grad.new_full((1, 1), -1).expand_as(picked))
    if bent is not None:
        grad = grad * (1 - bent * bent)
    return nats, _pad(grad.to(dtype).T, padding).T, 1.0


def _fusable(
    logits: Float[Tensor, "N W"], picked: Int[Tensor, "N 1"], vocab_size: int, softcap: float, wide: torch.dtype
) -> tuple[Float[Tensor, "N 1"], Float[Tensor, "N W"], Tensor | float]:
    """The same in operations that the compiler fuses into one kernel, which reads and writes logits of 16 bits."""
    dtype, columns = logits.dtype, torch.arange(logits.shape[1], device=logits.device)
    chosen, wider = logits.gather(1, picked).to(wide), logits.to(wide)
    slope: Tensor | float = 1.0
    if softcap:  # tanh by a sigmoid, which takes a GPU a third of the instructions
        bent = 2 * torch.sigmoid(wider * (2 / softcap)) - 1
        chosen_bent = torch.tanh(chosen / softcap)
        chosen, wider, slope = softcap * chosen_bent, softcap * bent, 1 - bent * bent
    if logits.shape[1] > vocab_size:
        wider = wider.masked_fill(columns >= vocab_size, -torch.inf)
    if 0 < softcap <= LOW_CAP and dtype != torch.float16:
        # e^logit fits into the type as it is, so each logit is read once: what the sum divides waits for the products.
        powers = wider.exp()
        total = powers.sum(-1, keepdim=True)
        at_target = (chosen.exp() - total) * (1 - chosen_bent * chosen_bent)
        return total.log() - chosen, (powers * slope).to(dtype).scatter(1, picked, at_target.to(dtype)), 1 / total
    log_total = wider.logsumexp(-1, keepdim=True)
    grad = ((wider - log_total).exp() - (columns == picked).to(wide)) * slope
    return log_total - chosen, grad.to(dtype), 1.0


def _pad(x: Float[Tensor, "V C"], rows: int) -> Float[Tensor, "W C"]:
    """Rows of zeros below; `F.pad` would copy even where there are none to add."""
    return F.pad(x, (0, 0, 0, rows)) if rows else x


def _add_product(
    total: Float[Tensor, "W C"] | None,
    grad: Float[Tensor, "N W"],
    x: Float[Tensor, "N C"],
    wide: torch.dtype,
    by: OneDNNHead | CompiledHead | None,
) -> Float[Tensor, "W C"]:
    """Add grad.T @ x to a total, if there is one; the sum over chunks stays in float32 where products are narrower."""
    if isinstance(by, CompiledHead):
        if by.adds(grad):
            return by.kernels.head.add_gradient(total, grad, x)
        by = by.products
    if by is None and total is not None and total.dtype == grad.dtype:
        return total.addmm_(grad.T, x)
    product = grad.T @ x if by is None else by.weight_gradient(grad, x)
    return product.to(wide) if total is None else total.add_(product)


class LossModule(nn.Module):
    """A model and its loss as one module, so that torch.compile and data parallelism see one forward."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.model = model
        self.head_loss = head_loss_sum

    def compile_parts(self) -> None:
        """Compile one block, whose code serves all blocks, and the head with its loss.

        The compiler's time then does not grow with the depth; what it could fuse across blocks stays apart.
        """
        for block in cast("Transformer", self.model).blocks:
            block.compile(dynamic=False)
        self.head_loss = torch.compile(head_loss_sum, dynamic=False)

    def forward(self, idx: Int[Tensor, "B T"], targets: Int[Tensor, "B T"], tokens: int = 1) -> Float[Tensor, ""]:
        """The summed loss, divided by the number of tokens of which this is a part."""
        in_one_step = getattr(getattr(self.model, "blocks", None), "loss", None)  # by the room `parts`
        if in_one_step and (loss := in_one_step(self.model, idx, targets, tokens)) is not None:
            return cast("Tensor", loss)
        head = self.model.head_weight
        if head is None or not needs_chunks(targets, head):
            return lm_loss_sum(self.model(idx), targets) / tokens
        part = getattr(self.model, "lm_head", None)
        by = part if isinstance(part, OneDNNHead | CompiledHead) else None
        return self.head_loss(self.model.hidden(idx), head, targets, softcap=self.model.logit_softcap, by=by) / tokens
