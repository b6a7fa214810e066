"""What a model is made of. The names are GPT-2's own, shared by OpenAI's code, nanoGPT and Hugging Face."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from groundup.config.errors import UsageError

_MOST = {"n_layer": 10_000, "n_embd": 2**20, "block_size": 2**30, "vocab_size": 2**32}
"""Far beyond any model; above it sizes overflow, or building takes all memory before anything can be compared."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TransformerConfig:
    """The shape that GPT-2 and its descendants share. The defaults are the published 124M model."""

    n_layer: int = 12
    """Number of transformer blocks."""
    n_head: int = 12
    """Attention heads in a block; n_embd must be a multiple of it."""
    n_embd: int = 768
    """Width of the residual stream."""
    block_size: int = 1024
    """Context: the most tokens the model can look at."""
    vocab_size: int = 0
    """Number of token ids; 0 takes the tokenizer's."""
    dropout: float = 0.0
    """Dropout on embeddings, attention and residual branches, in [0, 1)."""
    bias: bool = True
    """Biases in linear layers and layer norms, as published."""

    def __post_init__(self) -> None:
        """Check what would otherwise fail deep inside the model."""
        for name in ("n_layer", "n_head", "n_embd", "block_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"model.{name} must be at least 1, got {getattr(self, name)}")
        for name, most in _MOST.items():
            if getattr(self, name) > most:
                raise UsageError(f"model.{name} must be at most {most:,}, got {getattr(self, name)}")
        if self.vocab_size < 0:
            raise UsageError(f"model.vocab_size must be 0 (the tokenizer's) or more, got {self.vocab_size}")
        if self.n_embd % self.n_head:
            raise UsageError(f"model.n_embd must be a multiple of model.n_head, got {self.n_embd} and {self.n_head}")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"model.dropout must be in [0, 1), got {self.dropout}")

    @property
    def head_dim(self) -> int:
        """Width of one attention head (D)."""
        return self.n_embd // self.n_head


@dataclass(frozen=True, kw_only=True, slots=True)
class GPTConfig(TransformerConfig):
    """GPT-2 as published (Radford et al. 2019, section 2.3), and nothing else."""

    kind: ClassVar[str] = "gpt"


@dataclass(frozen=True, kw_only=True, slots=True)
class ModernConfig(TransformerConfig):
    """GPT-2 with what has been found since; every field of its own is a switch."""

    kind: ClassVar[str] = "modern"
    AS_GPT2: ClassVar[dict[str, Any]] = {"position": "learned"}
    """The values of the switches that make it GPT-2."""

    position: Literal["learned", "rope"] = "rope"
    """Position information: a learned table as in GPT-2, or rotary embedding (Su et al. 2021)."""
    rope_base: float = 10000.0
    """Base of the rotary wavelengths; read only when position is rope."""

    def __post_init__(self) -> None:
        """Check what would otherwise fail deep inside the model."""
        TransformerConfig.__post_init__(self)  # `super()` does not know the class that slots=True makes
        if self.position == "rope" and self.head_dim % 2:
            raise UsageError(f"rope rotates pairs: n_embd / n_head must be even, got {self.head_dim}")
        if not 1 < self.rope_base < float("inf"):
            raise UsageError(f"model.rope_base must be a number above 1, got {self.rope_base}")


@dataclass(frozen=True, kw_only=True, slots=True)
class BigramConfig:
    """The baseline that sees one token back: a table of vocab_size x vocab_size logits."""

    kind: ClassVar[str] = "bigram"

    vocab_size: int
    """Number of token ids."""
    block_size: int = 1
    """Context: one token, always."""


ModelConfig = GPTConfig | ModernConfig | BigramConfig
