"""The models of other projects, in the shapes of ours."""

import importlib.util
from pathlib import Path
from typing import Any

from groundup.config.model import GPTConfig


def nanogpt_model(checkout: Path, m: GPTConfig) -> Any:
    """NanoGPT's GPT, from the model.py of a checkout, which is imported."""
    spec = importlib.util.spec_from_file_location("nanogpt_model", checkout / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sizes = {"n_layer": m.n_layer, "n_head": m.n_head, "n_embd": m.n_embd, "block_size": m.block_size}
    return module.GPT(module.GPTConfig(**sizes, vocab_size=m.vocab_size, dropout=m.dropout, bias=m.bias))


def transformers_model(m: GPTConfig) -> Any:
    """Hugging Face's GPT-2."""
    import transformers

    config = transformers.GPT2Config(
        n_layer=m.n_layer,
        n_head=m.n_head,
        n_embd=m.n_embd,
        n_positions=m.block_size,
        vocab_size=m.vocab_size,
        resid_pdrop=m.dropout,
        embd_pdrop=m.dropout,
        attn_pdrop=m.dropout,
        bos_token_id=None,
        eos_token_id=None,
    )
    return transformers.GPT2LMHeadModel(config)
