"""Model folders on their way to other programs, and back."""

from pathlib import Path

import torch

from groundup.checkpoint.model_folder import load_model, save_model
from groundup.interop.import_model import import_model


def bring(source, out="ours", tokenizer="letters.json"):
    import_model(str(source), Path(out), tokenizer=tokenizer)
    return load_model(Path(out))


def assert_same_function(ours, theirs, *, atol=1e-5, vocab_size=27):
    idx = torch.randint(vocab_size, (2, 32))
    with torch.no_grad():
        mine, others = ours(idx), theirs(idx)
    others = getattr(others, "logits", others)[..., :vocab_size]
    assert others.std() > 0.1
    torch.testing.assert_close(mine, others, atol=atol, rtol=1e-4)


def expected(path, idx):
    with torch.no_grad():
        return load_model(path).model(idx)


def saved(tmp_path, model, tokenizer, info=None):
    save_model(tmp_path / "model", model, tokenizer, info or {})
    return tmp_path / "model"


def nanogpt_checkpoint(model, *, rows=None, **changes):
    """The dictionary that nanoGPT's train.py saves after torch.compile, made of a model of ours."""
    state = {f"_orig_mod.transformer.{name}": p.clone() for name, p in model.state_dict().items()}
    c = model.config
    if rows is not None:
        wte = "_orig_mod.transformer.wte.weight"
        state[wte] = torch.cat([state[wte], torch.randn(rows - c.vocab_size, c.n_embd)])
    state["_orig_mod.lm_head.weight"] = state["_orig_mod.transformer.wte.weight"]
    arguments = {"n_layer": c.n_layer, "n_head": c.n_head, "n_embd": c.n_embd, "block_size": c.block_size}
    arguments |= {"bias": c.bias, "vocab_size": rows or c.vocab_size, "dropout": 0.0, **changes}
    return {
        "model": state,
        "optimizer": {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(4)}}, "param_groups": []},
        "model_args": arguments,
        "iter_num": 12,
        "best_val_loss": torch.tensor(3.25),
        "config": {"out_dir": "out", "wandb_log": False, "learning_rate": 6e-4},
    }
