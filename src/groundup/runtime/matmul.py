"""Which library multiplies matrices on a CPU: PyTorch's default (MKL), or oneDNN where it is faster.

MKL keeps its AVX-512 kernels for Intel's processors. oneDNN has some for every processor, and on AMD's it runs GPT-2's
fp32 products twice as fast (docs/log.md). PyTorch uses it for 16 bits and compiled inference only, so it is called by
name here, in layers that `model.swap` puts into a model. Both compute in float32: results differ by rounding, as
between any two libraries.
"""

import functools
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from groundup.runtime.remember import remembered
from groundup.runtime.stored import PlainKernels
from groundup.runtime.timing import turns

Matmul = Literal["default", "onednn", "kernels"]
"""The last is oneDNN, and kernels of ours for the gradients of weights: they copy neither of their matrices."""

CHOICES = "matmul.json"
MIN_SPEEDUP = 1.15
"""oneDNN, alone or beside the kernels, must be measured this much faster before it is used."""
MOST_ROWS = 2048
"""Tokens at a time that are measured; more of them take no other way."""
MIN_WIDTH_OF_DECODING, MIN_ROWS = 256, 64
"""Below both, calling oneDNN costs more than it saves when a few tokens are decoded."""


@functools.cache
def pick_matmul(
    device: torch.device, *, rows: int, n_embd: int, training: bool, kernels: PlainKernels | None = None
) -> Matmul:
    """Choose who computes float32 matrix products: measured once a machine and size, and remembered.

    Args:
        device: Where it is computed; there is a choice on CPUs only.
        rows: Tokens at a time.
        n_embd: Width of the model.
        training: Forward and backward, or forward alone.
        kernels: Give weights their gradient, where they can.
    """
    if not onednn_is_there(device) or (not training and rows < MIN_ROWS and n_embd < MIN_WIDTH_OF_DECODING):
        return "default"
    there, rows = kernels or PlainKernels(), min(rows, MOST_ROWS)
    what = "training" if training else "forward alone"
    key = f"{there.key}, {n_embd} wide, {rows} rows, {what}, torch {torch.__version__}"
    measure = partial(_fastest, rows=rows, n_embd=n_embd, training=training, kernels=kernels)
    return remembered(CHOICES, key, get_args(Matmul), measure)


def _fastest(*, rows: int, n_embd: int, training: bool, kernels: PlainKernels | None) -> Matmul:
    generator = torch.Generator().manual_seed(0)  # measuring must not move the one that dropout draws from
    weight = torch.randn(4 * n_embd, n_embd, generator=generator)
    x = torch.randn(rows, n_embd, generator=generator)
    grad = torch.randn(len(x), len(weight), generator=generator)

    def step(linear: Callable[..., Tensor]) -> None:
        if training:
            y = linear(x.requires_grad_(), weight.requires_grad_(), None)
            # The gradient is not given to `backward`: PyTorch would load sympy, 45 MB, to compare its shape.
            y.register_hook(lambda _: grad)  # type: ignore[no-untyped-call]
            torch.autograd.backward(y.sum())
        else:
            linear(x, weight, None)

    ways: dict[Matmul, Callable[..., Tensor]] = {"default": F.linear, "onednn": partial(_linear, OneDNNProducts())}
    if training and _gives_gradients(kernels, n_embd):
        ways["kernels"] = partial(_linear, OneDNNProducts(kernels))
    with torch.set_grad_enabled(training):
        least = turns({name: partial(step, way) for name, way in ways.items()})
    usual, best = least.pop("default"), min(least, key=least.__getitem__)
    return best if usual > MIN_SPEEDUP * least[best] else "default"


def products_of(matmul: Matmul, kernels: PlainKernels) -> "Products":
    """What computes the products of a linear layer."""
    return Products() if matmul == "default" else OneDNNProducts(kernels if matmul == "kernels" else None)


def onednn_is_there(device: torch.device) -> bool:
    """Whether this build of PyTorch can be asked for oneDNN's products on this device."""
    built = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return device.type == "cpu" and built and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def onednn_product(
    x: Float[Tensor, "B C"], weight: Float[Tensor, "D C"], bias: Float[Tensor, " D"] | None = None
) -> Float[Tensor, "B D"]:
    """X @ weight.T + bias."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class Products:
    """The three products of a linear layer, by PyTorch's default library."""

    def outputs(
        self, x: Float[Tensor, "B C"], weight: Float[Tensor, "D C"], bias: Float[Tensor, " D"] | None
    ) -> Float[Tensor, "B D"]:
        """X @ weight.T + bias, in the type of x."""
        return F.linear(x, weight, None if bias is None else bias.to(x.dtype))

    def of_inputs(
        self, grad: Float[Tensor, "B D"], weight: Float[Tensor, "D C"], dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "B C"]:
        """Grad @ weight, in this type: what the inputs get."""
        return (grad @ weight).to(dtype)

    def of_weight(self, grad: Float[Tensor, "B D"], x: Float[Tensor, "B C"]) -> Float[Tensor, "D C"]:
        """Grad.T @ x: what the weights get."""
        return grad.T @ x


class OneDNNProducts(Products):
    """The same by oneDNN, in float32 on the CPU.

    Args:
        kernels: Give the weights their gradient, where they can.
    """

    def __init__(self, kernels: PlainKernels | None = None) -> None:
        self._kernels = kernels

    def outputs(
        self, x: Float[Tensor, "B C"], weight: Float[Tensor, "D C"], bias: Float[Tensor, " D"] | None
    ) -> Float[Tensor, "B D"]:
        """X @ weight.T + bias."""
        return onednn_product(x, weight, bias)

    def of_inputs(
        self, grad: Float[Tensor, "B D"], weight: Float[Tensor, "D C"], dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "B C"]:
        """Grad @ weight."""
        return onednn_product(grad, weight.T).to(dtype)

    def of_weight(self, grad: Float[Tensor, "B D"], x: Float[Tensor, "B C"]) -> Float[Tensor, "D C"]:
        """Grad.T @ x."""
        if self._kernels is not None and _gives_gradients(self._kernels, x.shape[1]):
            return self._kernels.weight_gradient(grad.contiguous(), x.contiguous())
        return onednn_product(x.T, grad.T).T  # (C, D), turned: this way around oneDNN is a third faster than for (D, C)


class OneDNNLinear(nn.Linear):
    """A linear layer whose products oneDNN computes, forward and backward, in float32 on the CPU.

    Args:
        linear: The layer it stands for; its tensors are taken over, not copied.
        kernels: Give the weights their gradient, where they can.
    """

    def __init__(self, linear: nn.Linear, kernels: PlainKernels | None = None) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
        self.weight, self.bias, self.products = linear.weight, linear.bias, OneDNNProducts(kernels)

    def forward(self, input: Float[Tensor, "*B C"]) -> Float[Tensor, "*B D"]:
        """The product, plus the bias where there is one."""
        return onednn_linear(input, self.weight, self.bias, self.products)


class OneDNNHead(nn.Module):
    """The head of a model whose products oneDNN computes.

    Args:
        kernels: As for `OneDNNLinear`.
    """

    def __init__(self, kernels: PlainKernels | None = None) -> None:
        super().__init__()
        self._products = OneDNNProducts(kernels)

    def forward(self, x: Float[Tensor, "*B C"], weight: Float[Tensor, "V C"]) -> Float[Tensor, "*B V"]:
        """Logits."""
        return onednn_linear(x, weight, products=self._products)

    def weight_gradient(self, grad: Float[Tensor, "B V"], x: Float[Tensor, "B C"]) -> Float[Tensor, "V C"]:
        """Grad.T @ x: what the weights get."""
        if grad.dtype != torch.float32 or grad.device.type != "cpu" or torch.compiler.is_compiling():
            return grad.T @ x
        return self._products.of_weight(grad, x)

    def matrix(self, weight: Float[Tensor, "V C"]) -> Float[Tensor, "V C"]:
        """What x is multiplied with."""
        return weight


_ONEDNN = OneDNNProducts()


def onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, products: Products = _ONEDNN) -> Tensor:
    """`F.linear`, by oneDNN where it can be: not in 16 bits, under autocast or in compiled code, which need no help."""
    narrow = x.dtype != torch.float32 or weight.dtype != torch.float32 or torch.is_autocast_enabled("cpu")
    if narrow or x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.linear(x, weight, bias)
    return _linear(products, x, weight, bias)


def _linear(products: Products, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if torch.is_grad_enabled():
        return _Linear.apply(x, weight, bias, products)  # type: ignore[no-untyped-call]
    return products.outputs(x.flatten(0, -2), weight, bias).view(*x.shape[:-1], len(weight))


class _Linear(torch.autograd.Function):
    """x @ weight.T + bias."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Float[Tensor, "*B C"],
        weight: Float[Tensor, "D C"],
        bias: Float[Tensor, " D"] | None,
        products: Products,
    ) -> Float[Tensor, "*B D"]:
        rows = x.flatten(0, -2)
        ctx.save_for_backward(rows, weight)
        ctx.products = products
        return products.outputs(rows, weight, bias).view(*x.shape[:-1], len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Float[Tensor, "*B D"]) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        rows = grad.flatten(0, -2)
        need_x, need_weight, need_bias = ctx.needs_input_grad[:3]
        grad_x = ctx.products.of_inputs(rows, weight).view(*grad.shape[:-1], weight.shape[1]) if need_x else None
        grad_weight = ctx.products.of_weight(rows, x) if need_weight else None
        return grad_x, grad_weight, rows.sum(0) if need_bias else None, None


def _gives_gradients(kernels: PlainKernels | None, width: int) -> bool:
    return kernels is not None and kernels.lanes > 0 and width % kernels.lanes == 0
