import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from groundup.config.errors import UserError
from groundup.config.model import GPTConfig, ModernConfig
from groundup.config.presets import MODELS
from groundup.model import reference
from groundup.model.build import build_model
from groundup.model.gpt import GPT
from groundup.model.init import init_weights
from groundup.model.loss import LossModule, lm_loss_sum

SHAPES = [(1, 1, 8, 4), (2, 2, 32, 16), (3, 4, 48, 33)]


def awake(model: GPT, scale=0.3) -> GPT:
    """Random weights large enough that attention is far from uniform and every bias and gain matters."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=generator, dtype=p.dtype) * scale)
    return model


@pytest.fixture(params=[GPTConfig, ModernConfig])
def kind(request):
    return request.param


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bias", [True, False])
def test_equals_the_page_of_pure_functions(shape, bias, kind):
    n_layer, n_head, n_embd, block_size = shape
    config = kind(
        n_layer=n_layer,
        n_head=n_head,
        n_embd=n_embd,
        block_size=block_size,
        vocab_size=19,
        bias=bias,
    )
    model = awake(init_weights(build_model(config), seed=3)).double()
    idx = torch.randint(19, (3, block_size))
    torch.testing.assert_close(model(idx), reference.gpt(idx, dict(model.state_dict()), config), atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("shape", SHAPES)
def test_logits_and_gradients_equal_transformers(shape):
    transformers = pytest.importorskip("transformers")
    n_layer, n_head, n_embd, block_size = shape
    config = GPTConfig(n_layer=n_layer, n_head=n_head, n_embd=n_embd, block_size=block_size, vocab_size=23)
    ours = awake(init_weights(GPT(config), seed=5)).double()
    theirs = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            n_layer=n_layer,
            n_head=n_head,
            n_embd=n_embd,
            n_positions=block_size,
            vocab_size=23,
            resid_pdrop=0,
            embd_pdrop=0,
            attn_pdrop=0,
        )
    ).double()
    convolutions = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
    state = {
        f"transformer.{name}": (p.T if name.endswith(convolutions) else p).clone()
        for name, p in ours.state_dict().items()
    }
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert unexpected == []
    assert [name for name in missing if name != "lm_head.weight"] == []

    idx = torch.randint(23, (2, block_size))
    targets = torch.randint(23, (2, block_size))
    our_logits, their_logits = ours(idx), theirs(idx).logits
    assert their_logits.abs().max() > 1
    torch.testing.assert_close(our_logits, their_logits, atol=1e-10, rtol=0)

    F.cross_entropy(our_logits.flatten(0, 1), targets.flatten()).backward()
    F.cross_entropy(their_logits.flatten(0, 1), targets.flatten()).backward()
    gradients = dict(theirs.named_parameters())
    for name, p in ours.named_parameters():
        g = gradients[f"transformer.{name}"].grad
        torch.testing.assert_close(p.grad, g.T if name.endswith(convolutions) else g, atol=1e-10, rtol=0, msg=name)


PUBLISHED = {"gpt2": 124_439_808, "gpt2-medium": 354_823_168, "gpt2-large": 774_030_080, "gpt2-xl": 1_557_611_200}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name):
    transformers = pytest.importorskip("transformers")
    config = MODELS[name]
    with torch.device("meta"):
        ours = GPT(config)
        theirs = transformers.GPT2LMHeadModel(
            transformers.GPT2Config(n_layer=config.n_layer, n_head=config.n_head, n_embd=config.n_embd)
        )
    assert sum(p.numel() for p in ours.parameters()) == PUBLISHED[name]
    assert sum(p.numel() for p in theirs.parameters()) == PUBLISHED[name]


def test_rope_equals_transformers():
    modeling = pytest.importorskip("transformers.models.llama.modeling_llama")
    from groundup.model.rope import rope_angles, rotate

    q, k = torch.randn(2, 3, 11, 8), torch.randn(2, 3, 11, 8)
    positions = torch.arange(5, 16)
    config = pytest.importorskip("transformers").LlamaConfig(
        hidden_size=24, num_attention_heads=3, rope_parameters={"rope_type": "default", "rope_theta": 10000.0}
    )
    config.head_dim = 8
    cos, sin = modeling.LlamaRotaryEmbedding(config)(q, positions[None])
    their_q, their_k = modeling.apply_rotary_pos_emb(q, k, cos, sin)
    angles = rope_angles(positions, 8, 10000.0)
    torch.testing.assert_close(rotate(q, *angles), their_q)
    torch.testing.assert_close(rotate(k, *angles), their_k)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("chunks", [[1] * 16, [16], [5, 1, 1, 7, 2]])
def test_cached_decoding_equals_the_full_forward(tiny_config, kind, dtype, bound, chunks):
    model = awake(init_weights(build_model(kind(**dataclasses.asdict(tiny_config))), seed=1)).to(dtype).eval()
    idx = torch.randint(27, (3, 16))
    cache = model.new_cache(3, 16)
    with torch.no_grad():
        pieces = [model(piece, cache=cache) for piece in idx.split(chunks, dim=1)]
        full = model(idx)
    assert (torch.cat(pieces, dim=1) - full).abs().max() <= bound * max(1, full.abs().max())


def test_the_future_is_invisible(tiny_config, kind):
    model = awake(init_weights(build_model(kind(**dataclasses.asdict(tiny_config))), seed=1)).eval()
    idx = torch.randint(27, (1, 16))
    before = model(idx)
    for t in range(1, 16):
        changed = idx.clone()
        changed[0, t] = (changed[0, t] + 1) % 27
        after = model(changed)
        assert torch.equal(after[0, :t], before[0, :t])
        assert not torch.equal(after[0, t], before[0, t])


def test_initial_weights_and_loss():
    config = GPTConfig(n_layer=8, n_head=4, n_embd=128, block_size=64, vocab_size=500)
    model = init_weights(GPT(config), seed=1)
    state = model.state_dict()
    assert state["wte.weight"].std() == pytest.approx(0.02, rel=0.02)
    assert state["h.3.attn.c_attn.weight"].std() == pytest.approx(0.02, rel=0.02)
    assert state["h.3.mlp.c_proj.weight"].std() == pytest.approx(0.02 / 4, rel=0.02)
    assert state["h.3.attn.c_proj.bias"].abs().max() == 0
    assert torch.equal(state["ln_f.weight"], torch.ones(128))
    # A little above ln V, since the logits are not all 0: by 0.027 on average, never by 0.07 in 200 draws of targets.
    idx = torch.randint(500, (4, 64))
    loss = LossModule(model)(idx, torch.randint(500, (4, 64))).item() / 256
    assert loss == pytest.approx(math.log(500), abs=0.1)


def test_same_seed_same_weights(tiny_config):
    a, b, c = (init_weights(GPT(tiny_config), seed=s).state_dict() for s in (1, 1, 2))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["wte.weight"], c["wte.weight"])


def test_dropout_only_in_training(tiny_config):
    model = init_weights(GPT(dataclasses.replace(tiny_config, dropout=0.5)), seed=1)
    idx = torch.randint(27, (2, 16))
    assert not torch.equal(model(idx), model(idx))
    model.eval()
    assert torch.equal(model(idx), model(idx))


def test_the_tied_head_is_one_tensor(tiny_model):
    assert "lm_head.weight" not in tiny_model.state_dict()
    assert tiny_model.head_weight is tiny_model.wte.weight


def test_more_positions_than_the_context(tiny_model):
    with pytest.raises(UserError, match="context is 16 tokens, 17 were given"):
        tiny_model(torch.zeros(1, 17, dtype=torch.long))


def test_overfits_one_batch(tiny_model):
    idx = torch.randint(27, (2, 16))
    targets = torch.randint(27, (2, 16))
    optimizer = torch.optim.AdamW(tiny_model.parameters(), lr=1e-2)
    for _ in range(80):
        optimizer.zero_grad()
        loss = LossModule(tiny_model)(idx, targets) / 32
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05


def test_loss_is_a_sum_without_the_ignored():
    logits = torch.randn(2, 5, 7)
    targets = torch.randint(7, (2, 5))
    targets[0, 2] = targets[1, 4] = -100
    expected = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100) * 8
    torch.testing.assert_close(lm_loss_sum(logits, targets), expected)
    assert lm_loss_sum(logits.bfloat16(), targets).dtype == torch.float32


@pytest.mark.slow
@pytest.mark.parametrize("recompute", [False, True])
def test_compiled_equals_eager(tiny_model, recompute):
    tiny_model.recompute = recompute
    idx, targets = torch.randint(27, (2, 16)), torch.randint(27, (2, 16))
    eager = LossModule(tiny_model)
    compiled = torch.compile(eager, dynamic=False, fullgraph=True)
    torch.testing.assert_close(compiled(idx, targets), eager(idx, targets), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_recomputing_gives_the_same_gradients(tiny_config, dropout):
    model = init_weights(GPT(dataclasses.replace(tiny_config, dropout=dropout)), seed=0).train()
    idx = torch.randint(27, (2, 16), generator=torch.Generator().manual_seed(0))
    grads = []
    for recompute in (False, True):
        model.recompute = recompute
        model.zero_grad()
        torch.manual_seed(5)
        lm_loss_sum(model(idx), idx).backward()
        grads.append([p.grad.clone() for p in model.parameters()])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)
