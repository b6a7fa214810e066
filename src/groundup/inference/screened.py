"""The logits that may be drawn, without reading all of a large head: what greedy and top-k decoding needs of it.

A head of GPT-2's vocabulary is a third of the bytes of 124M. A copy in 8 bits tells which logits can be among the k
largest, and these are computed from the weights themselves (kernels/largest.cpp): what is drawn is the same to the bit.
"""

from jaxtyping import Float
from torch import Tensor, nn

from groundup.inference.weights import StoredHead
from groundup.kernels.compiled import CompiledKernels, Rounded
from groundup.model.types import LanguageModel

MIN_WEIGHTS = 1 << 22
"""Of a head; a smaller one is soon read."""
ROWS_PER_BYTE = 2
"""With more rows for each byte of a weight, the product is bound by arithmetic, of which this saves none."""
MAX_SHARE = 64
"""No more than one of so many logits is asked for."""
LONGEST_PAUSE = 255


class ScreenedHead:
    """The head of a model, for those who need the largest logits alone.

    Args:
        head: With weights in 16 or 32 bits, which stay as they are while this is in use.
        kernels: Multiply with it.
    """

    def __init__(self, head: StoredHead, kernels: CompiledKernels) -> None:
        self._head, self._kernels, self._weight = head, kernels, head.stored.weight
        self._rounded: Rounded | None = None
        """Made when it is first asked for: a sixtieth of a second for GPT-2's, and a quarter of the head's bytes."""
        self._pause = self._left = 0
        """How often all logits are computed after there were too many to tell apart, and how often from now on."""

    def largest(self, hidden: Float[Tensor, "B C"], k: int) -> Float[Tensor, "B V"] | None:
        """The k largest logits of each row, and some beside them; the others are -inf.

        Args:
            hidden: What the head reads.
            k: At least 1.

        Returns:
            None where it is better, or the only way, to compute all: `LanguageModel.logits`.
        """
        many = len(hidden) > ROWS_PER_BYTE * self._weight.element_size() or k > len(self._weight) // MAX_SHARE
        if many or self._head.is_watched:
            return None
        if self._left:
            self._left -= 1
            return None
        if self._rounded is None:
            self._rounded = self._kernels.rounded(self._weight)
        logits = self._kernels.largest(hidden.contiguous(), self._weight, self._rounded, k)
        self._pause = 0 if logits is not None else min(2 * self._pause + 1, LONGEST_PAUSE)
        self._left = self._pause
        return logits


def screened_head(model: LanguageModel) -> ScreenedHead | None:
    """For a model with a large stored head on a machine with compiled kernels; None for others."""
    parts = model.modules() if isinstance(model, nn.Module) and not model.logit_softcap else ()
    head = next((part for part in parts if isinstance(part, StoredHead)), None)
    if head is None or not isinstance(head.kernels, CompiledKernels):
        return None
    if head.stored.scale is not None or head.stored.weight.numel() < MIN_WEIGHTS:
        return None
    return ScreenedHead(head, head.kernels)
