"""Models whose matrices are stored in fewer bits, against the same model with its matrices rounded."""

from typing import get_args

import pytest
import torch
from torch import nn

from groundup.config.model import GPTConfig, ModernConfig
from groundup.inference import many_rows
from groundup.inference.stored_linear import MAX_ROWS, StoredMatrix
from groundup.inference.weights import stored_tensors, use_weights, weights_of
from groundup.kernels.compiled import load_kernels
from groundup.model.build import build_model
from groundup.model.init import init_weights
from groundup.model.loss import LossModule
from groundup.runtime.matmul import onednn_is_there
from groundup.runtime.stored import DTYPES, PlainKernels, inputs_for, store

CONFIG = GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=64, vocab_size=101)


def models(weights, config=CONFIG):
    """One with its matrices rounded to what is stored, and what they are multiplied with; and one that stores them."""
    rounded, stored = (init_weights(build_model(config), seed=3).eval() for _ in range(2))
    for name, parameter in rounded.named_parameters():
        if parameter.dim() == 2 and "wpe" not in name:
            parameter.data = store(parameter.data, weights).widened()

    def rounded_inputs(x):
        return inputs_for(store(torch.ones(1, x.shape[-1]), weights), x.flatten(0, -2)).view_as(x)

    for part in rounded.modules():
        if isinstance(part, nn.Linear):
            part.register_forward_pre_hook(lambda _, args: (rounded_inputs(args[0]),))
    rounded.ln_f.register_forward_hook(lambda *call: rounded_inputs(call[-1]))
    use_weights(stored, weights, PlainKernels())
    return rounded, stored


def allowed(weights):
    """Of logits. With 8 bits, a last bit of a sum decides which integer an activation is rounded to."""
    return 1e-3 if weights == "int8" else 2e-4


@pytest.mark.parametrize("weights", DTYPES)
@pytest.mark.parametrize("n_tokens", [1, 5, MAX_ROWS + 1])
@torch.inference_mode()
def test_the_logits_are_those_of_rounded_weights(weights, n_tokens):
    rounded, stored = models(weights)
    idx = torch.randint(CONFIG.vocab_size, (1, n_tokens))
    torch.testing.assert_close(stored(idx), rounded(idx), rtol=0, atol=allowed(weights))


@pytest.mark.parametrize("softcap", [0.0, 2.0])
@torch.inference_mode()
def test_a_head_of_its_own_is_stored_beside_the_embedding(softcap):
    config = ModernConfig(n_layer=2, n_head=2, n_embd=32, block_size=8, vocab_size=101, tied_head=False,
                          value_residual=True, stream_scales=True, norm="rms", logit_softcap=softcap)  # fmt: skip
    rounded, stored = models("int8", config)
    idx = torch.randint(101, (2, 8))
    torch.testing.assert_close(stored(idx), rounded(idx), rtol=0, atol=allowed("int8"))
    torch.testing.assert_close(stored.head_weight, rounded.head_weight)
    assert {"wte.scale", "unembed.scale"} <= stored.state_dict().keys()


@pytest.mark.parametrize("weights", DTYPES)
@torch.inference_mode()
def test_decoding_with_a_cache_gives_the_logits_of_one_pass(weights):
    _, stored = models(weights)
    idx = torch.randint(CONFIG.vocab_size, (3, 9))
    cache = stored.new_cache(3, 9)
    steps = torch.cat([stored(idx[:, t : t + 1], cache=cache) for t in range(9)], dim=1)
    assert cache.keys.dtype == torch.float32
    torch.testing.assert_close(steps, stored(idx), rtol=0, atol=allowed(weights))


@pytest.mark.parametrize("weights", DTYPES)
@torch.inference_mode()
def test_the_loss_goes_through_the_stored_head(weights):
    rounded, stored = models(weights)
    idx = torch.randint(CONFIG.vocab_size, (2, 40))
    losses = [LossModule(model)(idx[:, :-1], idx[:, 1:]).item() for model in (rounded, stored)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_float32_matrices_are_the_parameters_themselves():
    model = init_weights(build_model(CONFIG), seed=0)
    address = model.wte.weight.data_ptr()
    use_weights(model, "fp32", PlainKernels())
    assert model.wte.weight.data_ptr() == model.head_weight.data_ptr() == address


@pytest.mark.parametrize("weights", DTYPES)
def test_the_state_of_an_ordinary_model_becomes_that_of_a_stored_one(weights):
    ordinary = init_weights(build_model(CONFIG), seed=3)
    _, stored = models(weights)
    with torch.device("meta"):
        empty = build_model(CONFIG)
    use_weights(empty, weights, PlainKernels())
    state = dict(
        part for name, t in ordinary.state_dict().items() for part in stored_tensors(name, t.split(7), empty, weights)
    )
    wanted = stored.state_dict()
    assert state.keys() == wanted.keys() == empty.state_dict().keys()
    assert all(torch.equal(state[name], wanted[name]) for name in wanted)


def test_every_matrix_is_stored_once_and_the_bytes_of_int8_are_a_quarter():
    _, stored = models("int8")
    matrices = [part for part in stored.modules() if isinstance(part, StoredMatrix)]
    assert len(matrices) == 1 + 4 * CONFIG.n_layer
    assert weights_of(stored) == "int8"
    assert weights_of(build_model(CONFIG)) is None
    n_weights = sum(matrix.weight.numel() for matrix in matrices)
    n_outputs = sum(len(matrix.weight) for matrix in matrices)
    assert sum(matrix.stored.nbytes for matrix in matrices) == n_weights + 4 * n_outputs


@torch.inference_mode()
def test_a_state_has_the_weights_row_by_row_whatever_order_the_kernels_keep():
    ordinary, stored = models("int8")
    model = build_model(CONFIG).eval()
    model.load_state_dict(ordinary.state_dict())
    use_weights(model, "int8", load_kernels(lambda _: None))
    wanted, idx = stored.state_dict(), torch.tensor([[1, 2, 3]])
    before = model(idx, cache=model.new_cache(1, 3))
    for _ in range(2):
        state = model.state_dict()
        assert state.keys() == wanted.keys()
        assert all(torch.equal(state[name], wanted[name]) for name in wanted)
        model.load_state_dict({name: value.clone() for name, value in state.items()}, assign=True)
        assert torch.equal(model(idx, cache=model.new_cache(1, 3)), before)


@pytest.mark.parametrize("weights", DTYPES)
@pytest.mark.parametrize("way", get_args(many_rows.Many))
@torch.inference_mode()
def test_many_rows_are_multiplied_whatever_is_chosen(monkeypatch, weights, way):
    if way == "onednn" and not onednn_is_there(torch.device("cpu")):
        pytest.skip("this build of PyTorch has no oneDNN")
    monkeypatch.setattr(many_rows, "pick_many", lambda *_, **__: way)
    matrix, bias = StoredMatrix(torch.randn(7, 33), weights, load_kernels(lambda _: None)), torch.randn(7)
    for shape in ((1, 33), (MAX_ROWS, 33), (MAX_ROWS + 1, 33), (3, 100, 33)):
        x = torch.randn(shape)
        rows = inputs_for(matrix.stored, x.flatten(0, -2)).view_as(x)
        wanted = rows @ matrix.stored.widened().T + bias
        torch.testing.assert_close(matrix.product(x, bias), wanted, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("convert", [nn.Module.double, nn.Module.half, nn.Module.bfloat16])
def test_what_lies_beside_8_bits_stays_float32(convert):
    _, stored = models("int8")
    stored.float()
    with pytest.raises(TypeError, match="beside weights of 8 bits all is float32, not torch"):
        convert(stored)
