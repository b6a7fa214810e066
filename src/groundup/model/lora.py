"""LoRA (Hu et al. 2021): fine-tune a low-rank change to each matrix of the blocks and leave the matrices as they are.

A weight W of shape (D, C) becomes W + scale B A, with A (r, C) drawn at random and B (D, r) zero, so that nothing
changes before the first step. Only A and B learn: for GPT-2 124M and rank 8 that is 1.2 M numbers of 124 M, and the
optimizer's state shrinks as much. In the end the change is added to W, and the model is an ordinary GPT again.
"""

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from groundup.model.build import Transformer
from groundup.model.parameters import Rule, Table
from groundup.model.swap import replace_linears
from groundup.runtime.matmul import OneDNNLinear, onednn_linear

_ADDED = ("lora_a", "lora_b", "lora_scale")


class LoRALinear(nn.Linear):
    """A linear layer whose weight and bias are frozen, and the low-rank change beside it.

    Args:
        linear: The layer; its tensors are taken over, not copied.
        rank: Rank of the change (r).
        alpha: The change is scaled by alpha / rank, so that the learning rate need not follow the rank.
        generator: Draws A.
    """

    PARAMETERS: ClassVar[Table] = dict.fromkeys(("lora_a", "lora_b"), Rule("layer", decays=True, maps=1))
    lora_scale: Tensor

    def __init__(self, linear: nn.Linear, *, rank: int, alpha: float, generator: torch.Generator) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self._linear = onednn_linear if isinstance(linear, OneDNNLinear) else F.linear
        # Uniform in +-1/sqrt(C), as PyTorch's linear layers begin: x A has the size of x.
        bound = 1 / math.sqrt(linear.in_features)
        a = torch.empty(rank, linear.in_features).uniform_(-bound, bound, generator=generator)
        self.lora_a = nn.Parameter(a.to(linear.weight))
        self.lora_b = nn.Parameter(linear.weight.new_zeros(linear.out_features, rank))
        self.register_buffer("lora_scale", linear.weight.new_tensor(alpha / rank))

    def forward(self, input: Float[Tensor, "*B C"]) -> Float[Tensor, "*B D"]:
        """The layer plus its change."""
        change = self._linear(self._linear(input, self.lora_a), self.lora_b)
        return self._linear(input, self.weight, self.bias) + self.lora_scale * change


def add_lora(model: Transformer, *, rank: int, alpha: float, seed: int) -> None:
    """Freeze a model and put a change beside every matrix of its blocks, in place."""
    generator = torch.Generator().manual_seed(seed)
    model.requires_grad_(requires_grad=False)
    replace_linears(model.blocks, lambda linear: LoRALinear(linear, rank=rank, alpha=alpha, generator=generator))


def merge_lora(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of the ordinary GPT that computes the same; without LoRA, the same tensors."""
    merged = {name: tensor for name, tensor in state.items() if not name.endswith(_ADDED)}
    for name, a in state.items():
        if name.endswith("lora_a"):
            layer = name.removesuffix("lora_a")
            # In float64, which Apple's GPUs do not have.
            own, b, scale = (state[layer + part].cpu().double() for part in ("weight", "lora_b", "lora_scale"))
            merged[layer + "weight"] = (own + b @ a.cpu().double() * scale).to(a)
    return merged


def lora_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `merge_lora` drops: the changes, and the weights without them. Empty without LoRA."""
    layers = tuple(name.removesuffix("lora_a") for name in state if name.endswith("lora_a"))
    kept = {layer + part for layer in layers for part in (*_ADDED, "weight")}
    return {name: state[name] for name in kept}
