"""What pushed this token: the parts of the residual stream that sum to one logit (Elhage et al. 2021).

The stream before the final norm is a sum: embeddings, what each head added, what each MLP added. The head is linear,
and so is the norm once its scale is taken from the whole stream and held fixed. Then a logit is a sum, too, with a term
for each part. A head's part is its slice of the output projection; the projection's bias, which no head owns, is a part
of its own. Where weights have 8 bits, products round what they take, and the head's rounding is the last term.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import linear

from groundup.config.errors import UserError
from groundup.inference.weights import weights_of
from groundup.inspection.matrices import inputs_of, matrix_of
from groundup.inspection.trace import Trace
from groundup.model.gpt import LayerNorm


@dataclass(frozen=True, slots=True)
class Contributions:
    """Terms of one logit.

    Args:
        names: What each term is: "token embedding", "layer 0 head 1", "layer 0 MLP", ...
        values: The terms; they sum to the logit.
    """

    names: tuple[str, ...]
    values: Float[Tensor, " N"]


@torch.no_grad()
def contributions(model: Any, seen: Trace, *, position: int, token: int) -> Contributions:
    """Split the logit of one token at one position.

    Args:
        model: The one that was traced.
        seen: Its trace.
        position: Where; negative counts from the end.
        token: Whose logit.

    Raises:
        UserError: The model's stream is not the sum of its parts, or its logits are bent, so that no split is right.
    """
    if model.logit_softcap:
        raise UserError("this model bends its logits by a soft cap: they are no sum that can be split by part")
    names, parts = _parts(model, seen, position)
    x = seen.residual[-1, position]
    rounds = weights_of(model) == "int8"
    slack = 1e-2 if rounds else 1e-4  # a last bit decides which integer a number is rounded to
    if not torch.allclose(torch.stack(parts).sum(0), x, rtol=slack, atol=slack * float(x.abs().max())):
        raise UserError("this model scales its residual stream between layers: its logits cannot be split by part")
    weight = model.head_weight[token]
    norm = model.ln_f
    centered = isinstance(norm, LayerNorm)  # an RMSNorm takes no mean off
    parts = [part - part.mean() if centered else part for part in parts]
    scale = (x - x.mean() if centered else x).square().mean().add(norm.eps).rsqrt()
    terms = [(part * scale * norm.weight) @ weight for part in parts]
    if norm.bias is not None:
        names, terms = [*names, "bias of the final norm"], [*terms, norm.bias @ weight]
    if rounds:  # what the head multiplies, which no part owns
        names, terms = [*names, "rounding to 8 bits"], [*terms, model.logits(norm(x))[token] - torch.stack(terms).sum()]
    return Contributions(tuple(names), torch.stack(terms))


def _parts(model: Any, seen: Trace, position: int) -> tuple[list[str], list[Float[Tensor, " C"]]]:
    """The vectors that the stream at a position is the sum of."""
    token = model.wte(seen.idx[position])
    names, parts = ["token embedding"], [token]
    rest = seen.residual[0, position] - token
    if getattr(model, "ngrams", None) is not None:
        of_runs = model.ngrams(seen.idx[None])[0, position]
        names, parts, rest = [*names, "n-gram embedding"], [*parts, of_runs], rest - of_runs
    if getattr(model, "smear", None) is not None:
        of_last = model.smear * model.vectors_before(seen.idx[None])[0, position]
        names, parts, rest = [*names, "embedding of the token before"], [*parts, of_last], rest - of_last
    if getattr(model, "wpe", None) is not None:
        names, parts = [*names, "position embedding"], [*parts, rest]
    for layer, block in enumerate(model.h):
        gathered = seen.attention[layer, :, position : position + 1 or None] @ seen.values[layer]  # (H, 1, D)
        multiplied = inputs_of(block.attn.c_proj, gathered.view(1, -1)).view(gathered.shape)
        weight = matrix_of(block.attn.c_proj).view(token.numel(), len(gathered), -1)  # (C, H, D)
        for head, y in enumerate(multiplied[:, 0]):
            names.append(f"layer {layer} head {head}")
            parts.append(linear(y, weight[:, head]))
        if block.attn.c_proj.bias is not None:
            names.append(f"layer {layer} attention bias")
            parts.append(block.attn.c_proj.bias)
        names.append(f"layer {layer} MLP")
        parts.append(seen.mlp[layer, position])
    return names, parts
