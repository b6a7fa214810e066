import pytest
import torch
from torch import nn

from groundup.kernels.activations import SigmoidGELU
from groundup.model.build import build_model
from groundup.model.gpt import GPT
from groundup.model.init import init_weights
from groundup.model.lora import LoRALinear, add_lora
from groundup.model.loss import LossModule
from groundup.model.swap import replace_linears, use_matmul
from groundup.runtime.matmul import OneDNNHead, OneDNNLinear, onednn_is_there

needs_onednn = pytest.mark.skipif(not onednn_is_there(torch.device("cpu")), reason="this PyTorch has no oneDNN")


def test_the_model_that_is_built_is_the_one_of_the_page(tiny_config):
    """The GELU for CPUs is another module of the same function; names and tensors stay."""
    page, built = (init_weights(make(tiny_config), seed=0).double() for make in (GPT, build_model))
    assert sum(isinstance(part, SigmoidGELU) for part in built.modules()) == tiny_config.n_layer
    assert not any(isinstance(part, SigmoidGELU) for part in page.modules())
    assert list(page.state_dict()) == list(built.state_dict())
    idx = torch.randint(27, (2, 16), generator=torch.Generator().manual_seed(0))
    for model in (page, built):
        LossModule(model)(idx, idx).backward()
    for (name, a), b in zip(page.named_parameters(), built.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-10, atol=1e-12, msg=name)


def test_every_linear_layer_is_offered_once(tiny_config):
    model = GPT(tiny_config)
    seen = []
    replace_linears(model, lambda linear: seen.append(linear) or linear)
    assert len({id(linear) for linear in seen}) == len(seen) == 4 * tiny_config.n_layer


@needs_onednn
def test_onednn_takes_layers_and_head_and_keeps_tensors_and_names(tiny_config):
    model = GPT(tiny_config)
    before = dict(model.named_parameters())
    use_matmul(model, "onednn")
    after = dict(model.named_parameters())
    assert before.keys() == after.keys() == model.state_dict().keys()
    assert all(before[name] is after[name] for name in before)
    assert all(isinstance(part, OneDNNLinear) for part in model.modules() if isinstance(part, nn.Linear))
    assert isinstance(model.lm_head, OneDNNHead)


@needs_onednn
@pytest.mark.parametrize("lora_first", [False, True])
def test_lora_survives(tiny_config, lora_first):
    """After LoRA the layers stay LoRA's: a swap must not drop what they learn."""
    model = init_weights(GPT(tiny_config), seed=0)
    steps = [lambda: use_matmul(model, "onednn"), lambda: add_lora(model, rank=2, alpha=4.0, seed=0)]
    for step in reversed(steps) if lora_first else steps:
        step()
    assert sum(isinstance(part, LoRALinear) for part in model.modules()) == 4 * tiny_config.n_layer
    idx = torch.randint(27, (2, 16), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(idx), init_weights(GPT(tiny_config), seed=0)(idx), rtol=1e-4, atol=1e-5)
