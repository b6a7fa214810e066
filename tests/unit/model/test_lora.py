import torch

from groundup.model.gpt import GPT
from groundup.model.init import init_weights
from groundup.model.lora import LoRALinear, add_lora, lora_state, merge_lora


def lora_model(config, *, trained):
    model = init_weights(GPT(config), seed=0).double()
    add_lora(model, rank=3, alpha=6.0, seed=1)
    if trained:
        generator = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for name, p in model.named_parameters():
                if name.endswith("lora_b"):
                    p.normal_(generator=generator)
    return model.eval()


def test_nothing_changes_before_the_first_step(tiny_config):
    idx = torch.arange(12)[None] % 27
    expected = init_weights(GPT(tiny_config), seed=0).double().eval()(idx)
    assert torch.equal(lora_model(tiny_config, trained=False)(idx), expected)


def test_merged_it_computes_the_same(tiny_config):
    model = lora_model(tiny_config, trained=True)
    plain = GPT(tiny_config).double().eval()
    plain.load_state_dict(merge_lora(model.state_dict()))
    idx = torch.arange(12)[None] % 27
    torch.testing.assert_close(plain(idx), model(idx), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(plain(idx), init_weights(GPT(tiny_config), seed=0).double().eval()(idx))


def test_only_the_changes_learn(tiny_config):
    model = lora_model(tiny_config, trained=True)
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert learning == {name for name in model.state_dict() if name.endswith(("lora_a", "lora_b"))}
    assert sum(isinstance(m, LoRALinear) for m in model.modules()) == 4 * tiny_config.n_layer
    model(torch.zeros(1, 4, dtype=torch.long)).sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())


def test_the_state_goes_there_and_back(tiny_config):
    state = lora_model(tiny_config, trained=True).state_dict()
    together = {**merge_lora(state), **lora_state(state)}
    assert together.keys() == state.keys()
    assert all(torch.equal(together[name], state[name]) for name in state)


def test_a_plain_state_is_left_alone(tiny_model):
    state = tiny_model.state_dict()
    assert merge_lora(state) == dict(state)
    assert lora_state(state) == {}


class OnApple(torch.Tensor):
    """A tensor of a device that has no float64."""

    def double(self):
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype")

    def cpu(self):
        return self.as_subclass(torch.Tensor)


def test_changes_are_merged_where_the_device_has_no_float64(tiny_config):
    state = {name: tensor.float() for name, tensor in lora_model(tiny_config, trained=True).state_dict().items()}
    there = {name: tensor.as_subclass(OnApple) for name, tensor in state.items()}
    expected, merged = merge_lora(state), merge_lora(there)
    assert merged.keys() == expected.keys()
    assert all(torch.equal(merged[name].as_subclass(torch.Tensor), expected[name]) for name in expected)
