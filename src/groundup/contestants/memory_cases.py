"""Settings of training whose memory the planner counts differently."""

import dataclasses
from dataclasses import dataclass, field

from groundup.config.model import GPTConfig, ModernConfig
from groundup.config.presets import GPT2_VOCAB
from groundup.config.train import OptimConfig


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One row."""

    name: str
    model: GPTConfig | ModernConfig
    micro_batch_size: int
    recompute: bool = False
    optim: OptimConfig = field(default_factory=OptimConfig)


def parts() -> list[Setting]:
    """Settings that the formula counts differently."""
    gpt = GPTConfig(n_layer=6, n_head=6, n_embd=384, block_size=256, vocab_size=65)
    dropped = dataclasses.replace(gpt, dropout=0.1)
    modern = ModernConfig(
        n_layer=6, n_head=6, n_embd=384, block_size=256, vocab_size=65, bias=False, norm="rms", activation="relu2",
        qk_norm=True, value_residual=True, stream_scales=True, smear=True, n_kv_head=3, tied_head=False,
    )  # fmt: skip
    muon = OptimConfig(name="muon", average=0.99)
    words = dataclasses.replace(gpt, vocab_size=GPT2_VOCAB, block_size=512)
    small = dataclasses.replace(gpt, n_layer=8, n_head=4, n_embd=128, block_size=128)
    again = ", blocks computed again"
    return [
        Setting(name="GPT-2, 6 x 384, 8 x 256", model=gpt, micro_batch_size=8),
        Setting(name="the same" + again, model=gpt, micro_batch_size=8, recompute=True),
        Setting(name="the same with dropout", model=dropped, micro_batch_size=8),
        Setting(name="dropout" + again, model=dropped, micro_batch_size=8, recompute=True),
        Setting(name="modern, all parts", model=modern, micro_batch_size=8),
        Setting(name="modern" + again, model=modern, micro_batch_size=8, recompute=True),
        Setting(name="modern, Muon, average of the weights", model=modern, micro_batch_size=8, optim=muon),
        Setting(name="GPT-2's vocabulary, 4 x 512", model=words, micro_batch_size=4),
        Setting(name="GPT-2's vocabulary, 4 x 512" + again, model=words, micro_batch_size=4, recompute=True),
        Setting(name="GPT-2, 8 x 128, 64 x 128", model=small, micro_batch_size=64),
    ]
