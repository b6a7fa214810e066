"""What training on a CPU has of the C++ files here, called through ctypes, and trusted only after a test."""

import ctypes
import functools
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from groundup.config.errors import UserError
from groundup.config.model import KERNEL_LANES
from groundup.kernels.adamw import AdamWSteps
from groundup.kernels.attention import TYPES, AttentionCalls
from groundup.kernels.dropout import Counted
from groundup.kernels.head import HeadKernels
from groundup.kernels.library import TRAINING, declare, shared_library, why_not
from groundup.kernels.muon import MuonSteps
from groundup.kernels.one_call import OneCallBlocks
from groundup.kernels.trust import wrong_in_training
from groundup.kernels.whole_loss import WholeLoss
from groundup.runtime.remember import remembered
from groundup.runtime.stored import PlainKernels

TRUSTED = "trusted.json"
"""Holds what is wrong, and that is nothing: kernels that are right are tested once, as the test takes 20 MB."""
Kernels = TypeVar("Kernels", bound="TrainingKernels")


class TrainingKernels(PlainKernels):
    """Operations of training by the compiled kernels; products for decoding are PyTorch's.

    Args:
        path: The shared library.

    Raises:
        OSError: It is none.
    """

    lanes = KERNEL_LANES

    def __init__(self, path: Path) -> None:
        library = self._open(path, "gelu_forward")
        pointer, size, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
        self.has_bf16 = hasattr(library, "bf16_gpt_loss")
        dtypes = (torch.float32, torch.bfloat16) if self.has_bf16 else (torch.float32,)
        self.one_call = {dtype: OneCallBlocks(library, dtype) for dtype in dtypes}
        """Blocks of GPT-2 in training, by the type of their products; in bfloat16 where the processor multiplies it."""
        self.whole_loss = {dtype: WholeLoss(library, calls) for dtype, calls in self.one_call.items()}
        self.muon, self.adamw = MuonSteps(library, self.lanes), AdamWSteps(library)
        self.head = HeadKernels(library, dtypes)
        in_float32 = AttentionCalls(library, torch.float32)
        in_bf16 = AttentionCalls(library, torch.bfloat16) if self.has_bf16 else in_float32  # which reads both
        self.attention = {torch.float32: in_float32, torch.bfloat16: in_bf16}
        """By the type of queries."""
        self._gelu = declare(library.gelu_forward, number, *2 * [pointer], size)
        self._gelu_backward = declare(library.gelu_backward, number, *3 * [pointer], size)
        self._relu_squared = declare(library.relu_squared_forward, number, *2 * [pointer], size)
        self._relu_squared_backward = declare(library.relu_squared_backward, number, *3 * [pointer], size)
        self._dropout = declare(library.dropout, number, *2 * [pointer], *2 * [size], *3 * [ctypes.c_uint32])
        self._rotate = declare(library.rotate, number, *5 * [pointer], ctypes.c_float, *6 * [size], ctypes.c_float)
        self._rotate_backward = declare(library.rotate_backward, number, *6 * [pointer], *6 * [size])

    def _open(self, path: Path, symbol: str) -> ctypes.CDLL:
        self.name, _, _ = path.name.partition(".")  # has the hash of its source: choices are for these and no others
        if any(Path(torch.__file__).with_name("lib").glob("libgomp*")):
            # Clang brings an OpenMP of its own beside it: its threads would keep the cores for 0.2 s after each use.
            os.environ.setdefault("KMP_BLOCKTIME", "0")
        if hasattr(library := ctypes.CDLL(str(path)), symbol):
            return library
        path.unlink(missing_ok=True)  # else it would be opened again, with a compiler that is mended, too
        raise OSError(f"the compiler made a library without {symbol}")

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        """The library is there once, however often a model with it is copied."""
        return self

    def weight_gradient(self, grad: Float[Tensor, "B D"], x: Float[Tensor, "B C"]) -> Float[Tensor, "D C"]:
        """Grad.T @ x, of tensors that lie in one piece, in float32."""
        return self.head.add_gradient(None, grad, x)

    def gelu(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """GELU of every element, tanh form; float32 or bfloat16."""
        return _of_each(self._gelu, x)

    def gelu_backward(self, x: Float[Tensor, "*shape"], grad: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """The gradient of x, given that of `gelu(x)`."""
        return _of_each(self._gelu_backward, x, grad)

    def relu_squared(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """max(0, x)^2 of every element; float32 or bfloat16."""
        return _of_each(self._relu_squared, x)

    def relu_squared_backward(
        self, y: Float[Tensor, "*shape"], grad: Float[Tensor, "*shape"]
    ) -> Float[Tensor, "*shape"]:
        """The gradient of x, given that of y = `relu_squared(x)`."""
        return _of_each(self._relu_squared_backward, y, grad)

    def dropout(self, x: Float[Tensor, "*B C"], counted: Counted) -> Float[Tensor, "*B C"]:
        """Every number is 0 or grows, as two seeds and a bound tell by its place; float32 or bfloat16."""
        x = x.contiguous()
        y = torch.empty_like(x)
        self._dropout(TYPES[x.dtype], x.data_ptr(), y.data_ptr(), x.numel() // x.shape[-1], x.shape[-1], *counted)
        return y

    def rotate(
        self,
        x: Float[Tensor, "B T H D"],
        cos: Float[Tensor, "*N D"],
        sin: Float[Tensor, "*N D"],
        *,
        back: bool = False,
        in_place: bool = False,
    ) -> Float[Tensor, "B T H D"]:
        """Each pair of coordinates (i, i + D/2) turned by its angle, N tokens' own; float32 or bfloat16."""
        parts, sizes = _heads(x, cos, sin, in_place=in_place)
        self._rotate(TYPES[x.dtype], *(part.data_ptr() for part in parts), None, 0.0, *sizes, -1.0 if back else 1.0)
        return parts[-1]

    def normed_rotate(
        self, x: Float[Tensor, "B T H D"], cos: Float[Tensor, "*N D"], sin: Float[Tensor, "*N D"], eps: float
    ) -> tuple[Float[Tensor, "B T H D"], Float[Tensor, "B T H"]]:
        """As `rotate`, of heads that get the mean square 1 before; and what they were multiplied by for that."""
        parts, sizes = _heads(x, cos, sin)
        scales = torch.empty(x.shape[:-1])
        self._rotate(TYPES[x.dtype], *(part.data_ptr() for part in (*parts, scales)), eps, *sizes, 1.0)
        return parts[-1], scales

    def normed_rotate_backward(
        self,
        grad: Float[Tensor, "B T H D"],
        cos: Float[Tensor, "*N D"],
        sin: Float[Tensor, "*N D"],
        y: Float[Tensor, "B T H D"],
        scales: Float[Tensor, "B T H"],
    ) -> Float[Tensor, "B T H D"]:
        """The gradient of x, given that of y; y and scales are what `normed_rotate` gave."""
        parts, sizes = _heads(grad.to(y.dtype), cos, sin)
        self._rotate_backward(TYPES[y.dtype], *(part.data_ptr() for part in (*parts, y, scales)), *sizes)
        return parts[-1]

    def length(self, tensors: Sequence[Tensor]) -> Float[Tensor, ""]:
        """The norm of all these tensors together; zeros have 0."""
        return self.adamw.length(tensors) if self.adamw.suit(tensors) else super().length(tensors)


def _of_each(call: Callable[..., None], *tensors: Tensor) -> Tensor:
    """What a kernel gives, number by number, for tensors alike."""
    parts = [part.contiguous() for part in tensors]
    parts.append(torch.empty_like(parts[0]))
    call(TYPES[parts[0].dtype], *(part.data_ptr() for part in parts), parts[0].numel())
    return parts[-1]


def _heads(
    x: Tensor, cos: Tensor, sin: Tensor, *, in_place: bool = False
) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], tuple[int, ...]]:
    """What the kernels of rotation take: x, cosines, sines and room for the result, each in order; and their sizes."""
    (batch, tokens, heads, width), stride = x.shape, x.stride(1)
    if x.stride() != (tokens * stride, stride, width, 1):
        assert not in_place, "tokens lie evenly, and heads side by side"
        x, stride = x.contiguous(), heads * width
    y = x if in_place else torch.empty(x.shape, dtype=x.dtype)
    sizes = (batch * tokens, stride, y.stride(1), cos.numel() // width, heads, width // 2)
    return (x, cos.contiguous(), sin.contiguous(), y), sizes


@functools.cache
def load_training_kernels(say: Callable[[str], None]) -> PlainKernels:
    """The compiled kernels of training, or PyTorch's operations where those cannot be had; once a process.

    Args:
        say: Told in one line that they are being compiled, and why they are not used.
    """
    return trusted(lambda: TrainingKernels(shared_library(TRAINING, say)), wrong_in_training, say)


def trusted(
    load: Callable[[], Kernels], wrong_parts: Callable[[Kernels], list[str]], say: Callable[[str], None]
) -> Kernels | PlainKernels:
    """Kernels whose test has found nothing, here or before; PyTorch's operations, and why, where there are none."""
    try:
        kernels = load()
    except (OSError, UserError, subprocess.SubprocessError) as error:
        say(f"no compiled kernels, CPUs are slower, and with 8 bits per weight slowest: {why_not(error)}")
        return PlainKernels()
    key = f"{kernels.key}, torch {torch.__version__}"
    wrong = remembered(TRUSTED, key, ("",), lambda: ", ".join(wrong_parts(kernels)))
    if wrong:
        say(f"the compiled kernels give wrong numbers here ({wrong}) and are not used; CPUs are slower")
        return PlainKernels()
    return kernels
