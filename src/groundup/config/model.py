"""What a model is made of. The names are GPT-2's own, shared by OpenAI's code, nanoGPT and Hugging Face."""

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar, Literal

from groundup.config.errors import UsageError, UserError

KERNEL_LANES = 16
"""Widths that are multiples of this suit the kernels of training: they fill the vectors of every machine."""
_MOST = {"n_layer": 10_000, "n_embd": 2**20, "block_size": 2**30, "vocab_size": 2**32}
"""Far beyond any model; above it sizes overflow, or building takes all memory before anything can be compared."""
_MOST_DROPOUT = 1 - 2**-24
"""The last number of float32 before 1: what is kept is divided by what is left."""
_MOST_NGRAM = 16
"""Longer runs hardly come twice."""


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
        if not 0 <= self.dropout <= _MOST_DROPOUT:
            raise UsageError(f"model.dropout must be in [0, 1) as float32 has it, got {self.dropout}")

    @property
    def head_dim(self) -> int:
        """Width of one attention head (D)."""
        return self.n_embd // self.n_head

    @property
    def kv_heads(self) -> int:
        """Heads that have keys and values of their own."""
        return self.n_head

    @property
    def mlp_width(self) -> int:
        """Width of the MLP's hidden layer."""
        return 4 * self.n_embd


@dataclass(frozen=True, kw_only=True, slots=True)
class GPTConfig(TransformerConfig):
    """GPT-2 as published (Radford et al. 2019, section 2.3), and nothing else."""

    kind: ClassVar[str] = "gpt"


@dataclass(frozen=True, kw_only=True, slots=True)
class ModernConfig(TransformerConfig):
    """GPT-2 with what has been found since; every field of its own is a switch. All but rope begin at GPT-2's value."""

    kind: ClassVar[str] = "modern"
    AS_GPT2: ClassVar[dict[str, Any]] = {
        "position": "learned",
        "ngram": 1,
        "smear": False,
        "norm": "layer",
        "norm_eps": 1e-5,
        "n_inner": 0,
        "activation": "gelu_tanh",
        "n_kv_head": 0,
        "qk_norm": False,
        "value_residual": False,
        "stream_scales": False,
        "tied_head": True,
        "logit_softcap": 0.0,
        "proj_init": "scaled",
    }
    """The values of the switches that make it GPT-2; `proj_init` is of its beginning alone."""

    position: Literal["learned", "rope"] = "rope"
    """Position information: a learned table as in GPT-2, or rotary embedding (Su et al. 2021)."""
    rope_base: float = 10000.0
    """Base of the rotary wavelengths; read only when position is rope."""
    rope_share: float = 1.0
    """Share of a head's coordinates that rotate, those of the short wavelengths; read only when position is rope."""
    ngram: int = 1
    """Longest run of tokens that has a vector of its own, added to the token's (Huang et al. 2025); 1 is none."""
    ngram_rows: int = 16384
    """Rows of the table of these vectors, which runs share by a hash; read only when ngram is above 1."""
    smear: bool = False
    """Each token's vector gets a learned share, per coordinate, of the vector of the token before it."""
    norm: Literal["layer", "rms"] = "layer"
    """LayerNorm as in GPT-2, or RMSNorm (Zhang & Sennrich 2019), which has no mean and no bias."""
    norm_eps: float = 1e-5
    """Added to the variance, or to the mean square, before the root of a norm."""
    n_inner: int = 0
    """Width of the MLP's hidden layer; 0 is 4 * n_embd."""
    activation: Literal["gelu_tanh", "gelu", "relu", "relu2"] = "gelu_tanh"
    """Of the MLP: GELU in GPT-2's tanh form or exact, ReLU, or ReLU squared (So et al. 2021)."""
    n_kv_head: int = 0
    """Key and value heads, each shared by n_head / n_kv_head queries (Ainslie et al. 2023); 0 is n_head."""
    qk_norm: bool = False
    """RMSNorm without gain on queries and keys (Henry et al. 2020)."""
    value_residual: bool = False
    """From the second layer on, values are mixed with the first layer's by a learned share (Zhou et al. 2024)."""
    stream_scales: bool = False
    """Each block reads a * x + b * x0, with its own learned a and b: x is the residual stream, x0 its beginning."""
    tied_head: bool = True
    """The head multiplies with the token embedding (Press & Wolf 2017), or with a matrix of its own."""
    logit_softcap: float = 0.0
    """Logits are cap * tanh(logits / cap) (Gemma 2, 2024); 0 leaves them as they are."""
    proj_init: Literal["scaled", "zero"] = "scaled"
    """Projections onto the residual stream (and an untied head) begin as GPT-2's, narrower with depth, or at zero."""

    def __post_init__(self) -> None:
        """Check what would otherwise fail deep inside the model."""
        TransformerConfig.__post_init__(self)  # `super()` does not know the class that slots=True makes
        if self.position == "rope" and self.head_dim % 2:
            raise UsageError(f"rope rotates pairs: n_embd / n_head must be even, got {self.head_dim}")
        if not 1 < self.rope_base < float("inf"):
            raise UsageError(f"model.rope_base must be a number above 1, got {self.rope_base}")
        if not 0 < self.rope_share <= 1:
            raise UsageError(f"model.rope_share must be above 0 and at most 1, got {self.rope_share}")
        if not 1 <= self.ngram <= _MOST_NGRAM:
            raise UsageError(f"model.ngram must be 1 (none) to {_MOST_NGRAM}, got {self.ngram}")
        if not 1 <= self.ngram_rows <= _MOST["vocab_size"]:
            raise UsageError(f"model.ngram_rows must be 1 to {_MOST['vocab_size']:,}, got {self.ngram_rows}")
        if not 0 < self.norm_eps < 1:
            raise UsageError(f"model.norm_eps must be above 0 and below 1, got {self.norm_eps}")
        if not 0 <= self.n_inner <= 4 * _MOST["n_embd"]:
            raise UsageError(f"model.n_inner must be 0 (4 * n_embd) to {4 * _MOST['n_embd']:,}, got {self.n_inner}")
        if self.n_kv_head < 0 or self.n_head % self.kv_heads:
            raise UsageError(
                f"model.n_kv_head must be 0 (all) or divide model.n_head, got {self.n_kv_head} and {self.n_head}"
            )
        if self.logit_softcap and not 1e-30 <= self.logit_softcap <= 1e30:  # float32 ends soon behind
            raise UsageError(f"model.logit_softcap must be 0 (off) or 1e-30 to 1e30, got {self.logit_softcap}")

    @classmethod
    def of(cls, config: TransformerConfig) -> "ModernConfig":
        """The same model with every switch written out: a GPT-2 has GPT-2's values."""
        return config if isinstance(config, cls) else cls(**asdict(config), **cls.AS_GPT2)

    @property
    def kv_heads(self) -> int:
        """Heads that have keys and values of their own."""
        return self.n_kv_head or self.n_head

    @property
    def mlp_width(self) -> int:
        """Width of the MLP's hidden layer."""
        return self.n_inner or 4 * self.n_embd


@dataclass(frozen=True, kw_only=True, slots=True)
class BigramConfig:
    """The baseline that sees one token back: a table of vocab_size x vocab_size logits."""

    kind: ClassVar[str] = "bigram"

    vocab_size: int
    """Number of token ids."""
    block_size: int = 1
    """Context: one token, always."""


ModelConfig = GPTConfig | ModernConfig | BigramConfig


def model_flag(name: str, value: object) -> str:
    """The flag that gives a field of a model this value."""
    flag = f"--model.{name.replace('_', '-')}"
    if isinstance(value, bool):
        return flag if value else flag.replace(".", ".no-")
    return f"{flag} {value}"


def with_vocabulary(config: GPTConfig | ModernConfig, ids: int) -> GPTConfig | ModernConfig:
    """The model's shape with its vocabulary filled in.

    Args:
        config: The shape; a vocabulary of 0 takes the tokenizer's.
        ids: How many the data's tokenizer has.

    Raises:
        UserError: The config names another vocabulary.
    """
    if config.vocab_size not in (0, ids):
        raise UserError(
            f"model.vocab_size is {config.vocab_size} but the data's tokenizer has {ids} ids;"
            " --model.vocab-size 0 takes the tokenizer's"
        )
    return replace(config, vocab_size=ids)


def as_kind(config: TransformerConfig, kind: str) -> GPTConfig | ModernConfig:
    """A model of the same shape, of kind gpt or modern; switches that were not there have GPT-2's values.

    Raises:
        UsageError: There is no such kind.
    """
    if kind == ModernConfig.kind:
        return ModernConfig.of(config)
    if kind == GPTConfig.kind:
        return GPTConfig(**{field.name: getattr(config, field.name) for field in fields(GPTConfig)})
    raise UsageError(f"model.kind must be gpt or modern, got {kind!r}")
