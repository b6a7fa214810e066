"""The residual stream in autocast's type."""

import pytest
import torch

from groundup.config.model import GPTConfig, ModernConfig
from groundup.model.build import build_model
from groundup.model.init import init_weights
from groundup.model.loss import LossModule
from groundup.parts.swap import use_narrow_stream

SHAPE = {"n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": 16, "vocab_size": 50}


def test_weights_keep_their_names_and_the_stream_its_type_outside_of_autocast():
    model = init_weights(build_model(GPTConfig(**SHAPE)), seed=0)
    idx = torch.arange(16)[None]
    before, names = model(idx), list(model.state_dict())
    use_narrow_stream(model)
    assert list(model.state_dict()) == names
    assert torch.equal(model(idx), before)


@pytest.mark.filterwarnings("error")  # PyTorch's, where a norm has to change a type itself, would reach people
@pytest.mark.parametrize(
    "config", [GPTConfig(**SHAPE), ModernConfig(**SHAPE, norm="rms", qk_norm=True, tied_head=False)]
)
def test_under_autocast_blocks_read_16_bits_and_learn_the_same(config):
    grads, kinds = [], []
    for narrow in (False, True):
        model = init_weights(build_model(config), seed=0)
        if narrow:
            use_narrow_stream(model)
        model.blocks[1].register_forward_pre_hook(lambda module, args: kinds.append(args[0].dtype))
        idx = torch.arange(16)[None]
        with torch.autocast("cpu", torch.bfloat16):
            LossModule(model)(idx, idx + 1).backward()
        assert all(p.grad.dtype == torch.float32 for p in model.parameters() if p.grad is not None)
        grads.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert kinds == [torch.float32, torch.bfloat16]
    assert (grads[1] - grads[0]).norm() < 0.05 * grads[0].norm()
