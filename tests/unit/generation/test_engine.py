import dataclasses

import pytest
import torch
import torch.nn.functional as F

from groundup.config.errors import UsageError
from groundup.config.generate import SamplingConfig
from groundup.config.model import BigramConfig, GPTConfig, ModernConfig
from groundup.generation import engine
from groundup.generation.engine import Decoder, generate_ids
from groundup.model.bigram import Bigram
from groundup.model.build import Transformer, build_model
from groundup.model.init import init_weights

GREEDY = SamplingConfig(temperature=0.0)
CONFIG = GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=16, vocab_size=50)


def gpt(*, position="learned", **changes) -> Transformer:
    """Weights ten times GPT-2's: attention that looks somewhere, and greedy text that does not repeat one token."""
    shape = dataclasses.asdict(CONFIG) | changes
    config = GPTConfig(**shape) if position == "learned" else ModernConfig(**shape, position=position)
    model = init_weights(build_model(config), seed=4)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(p * 10 if p.dim() == 2 else p)
    return model.eval()


def generate(model, prompt, n, *, sampling=GREEDY, num_samples=1, seed=0):
    """The new ids of every sample, a row each."""
    steps = generate_ids(
        model,
        torch.tensor(prompt, dtype=torch.long),
        max_new_tokens=n,
        sampling=sampling,
        num_samples=num_samples,
        generator=torch.Generator().manual_seed(seed),
    )
    return torch.stack(list(steps), dim=1).tolist()


@pytest.fixture
def logits_seen(monkeypatch):
    """Every logit that the engine chooses by, step by step."""
    steps = []

    def record(logits, *rest):
        steps.append(logits.clone())
        return sample(logits, *rest)

    sample = engine.sample
    monkeypatch.setattr(engine, "sample", record)
    return steps


@torch.no_grad()
def logits_without_cache(model, prompt, new_ids):
    """What the engine promises, with the whole context read anew for every token."""
    context, steps = list(prompt), []
    for token in new_ids:
        if len(context) > model.config.block_size:
            context = context[-max(1, model.config.block_size // 2) :]
        steps.append(model(torch.tensor([context]))[0, -1])
        context.append(token)
    return torch.stack(steps)


@pytest.mark.parametrize("position", ["learned", "rope"])
@pytest.mark.parametrize(
    ("block_size", "prompt_length"), [(1, 1), (1, 5), (2, 1), (2, 2), (7, 1), (7, 5), (16, 1), (16, 15), (16, 16)]
)
def test_cached_decoding_equals_the_full_forward_at_every_position(logits_seen, position, block_size, prompt_length):
    """Far beyond the context, so that the window is cut several times."""
    model = gpt(position=position, block_size=block_size)
    prompt = list(range(prompt_length))
    rows = generate(model, prompt, 45, sampling=SamplingConfig(), num_samples=3)
    assert len(logits_seen) == 45
    for row, new_ids in enumerate(rows):
        ours = torch.stack([step[row] for step in logits_seen])
        torch.testing.assert_close(
            ours, logits_without_cache(model, prompt[-block_size:], new_ids), atol=1e-5, rtol=1e-5
        )


def test_half_precision_weights(logits_seen):
    model = gpt().bfloat16()
    (new_ids,) = generate(model, [1, 2, 3], 30)
    expected = logits_without_cache(model, [1, 2, 3], new_ids)
    torch.testing.assert_close(torch.cat(logits_seen), expected, atol=0.25, rtol=0.05)


def test_greedy_equals_transformers():
    transformers = pytest.importorskip("transformers")
    ours = gpt(block_size=64)
    config = transformers.GPT2Config(n_layer=2, n_head=2, n_embd=32, n_positions=64, vocab_size=50)
    theirs = transformers.GPT2LMHeadModel(config).eval()
    transposed = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
    state = {f"transformer.{k}": v.T if k.endswith(transposed) else v for k, v in ours.state_dict().items()}
    assert not theirs.load_state_dict(state, strict=False).unexpected_keys
    theirs.tie_weights()
    options = {"max_new_tokens": 50, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    for penalty in (1.0, 1.3):
        expected = theirs.generate(
            torch.tensor([[7, 8, 9]]), attention_mask=torch.ones(1, 3), repetition_penalty=penalty, **options
        )
        got = generate(ours, [7, 8, 9], 50, sampling=SamplingConfig(temperature=0.0, repetition_penalty=penalty))
        assert got == expected[:, 3:].tolist()
        assert len(set(got[0])) > 5


@pytest.mark.parametrize("sampling", [SamplingConfig(), SamplingConfig(top_k=5), SamplingConfig(top_p=0.8)], ids=str)
def test_a_sample_depends_on_the_seed_and_its_place_only(sampling):
    model = gpt()
    five = generate(model, [1, 2], 40, sampling=sampling, num_samples=5, seed=11)
    assert five == generate(model, [1, 2], 40, sampling=sampling, num_samples=5, seed=11)
    assert five[:2] == generate(model, [1, 2], 40, sampling=sampling, num_samples=2, seed=11)
    assert [row[:9] for row in five] == generate(model, [1, 2], 9, sampling=sampling, num_samples=5, seed=11)
    assert len({tuple(row) for row in five}) == 5
    other = generate(model, [1, 2], 40, sampling=sampling, num_samples=5, seed=12)
    assert not {tuple(row) for row in five} & {tuple(row) for row in other}


def test_global_random_state_is_neither_read_nor_moved():
    model = gpt()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = generate(model, [3], 20, sampling=SamplingConfig())
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert generate(model, [3], 20, sampling=SamplingConfig()) == first


def test_samples_that_end_leave_the_others_as_they_are():
    model = gpt()
    whole = generate(model, [1, 2], 40, sampling=SamplingConfig(), num_samples=4, seed=3)
    batches = []
    model.register_forward_hook(lambda _, args, __: batches.append(len(args[0])))
    decoder = Decoder(
        model,
        torch.tensor([1, 2]),
        max_new_tokens=40,
        sampling=SamplingConfig(),
        num_samples=4,
        generator=torch.Generator().manual_seed(3),
    )
    rows, got = [0, 1, 2, 3], [[], [], [], []]
    for n in range(40):
        for row, token in zip(rows, decoder.step().tolist(), strict=True):
            got[row].append(token)
        if n == 5:
            decoder.keep([0, 2, 3])
            rows = [0, 2, 3]
        if n == 20:  # after the window was cut
            decoder.keep([1])
            rows = [2]
    assert got == [whole[0][:21], whole[1][:6], whole[2], whole[3][:21]]
    assert decoder.tokens.tolist() == [[1, 2, *whole[2]]]


def test_head_runs_for_the_last_position_only(monkeypatch):
    model, linear, n_logits = gpt(), F.linear, []

    def record(x, weight, bias=None):
        if weight is model.wte.weight:
            n_logits.append(x.shape[:-1].numel())
        return linear(x, weight, bias)

    monkeypatch.setattr(F, "linear", record)
    generate(model, [1, 2, 3], 16)
    assert n_logits == [1] * 16


def test_prompt_is_read_once_and_then_one_token_a_step():
    model, read = gpt(), []
    hidden = model.hidden
    model.hidden = lambda idx, **kw: read.append(tuple(idx.shape)) or hidden(idx, **kw)
    generate(model, [1, 2, 3], 10, num_samples=4)
    assert read == [(1, 3)] + [(4, 1)] * 9
    read.clear()
    generate(model, [1, 2, 3], 20)  # 3 + 13 fill the context of 16; then the last 8 are read again
    assert read == [(1, 3)] + [(1, 1)] * 13 + [(1, 8)] + [(1, 1)] * 5


def test_a_model_without_a_use_for_the_cache():
    table = torch.full((5, 5), -9.0)
    for token in range(5):
        table[token, (token + 2) % 5] = 9.0
    model = Bigram(BigramConfig(vocab_size=5))
    model.load_state_dict({"table.weight": table})
    assert generate(model, [4, 4, 1], 6, num_samples=2) == [[3, 0, 2, 4, 1, 3]] * 2


def test_any_model_with_the_protocol():
    """Nothing but the door is used: a head that is not a product of `head_weight` is as good as any."""

    class Wrapped(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model, self.config, self.new_cache = model, model.config, model.new_cache
            self.hidden, self.head_weight = model.hidden, None

        def logits(self, hidden):
            return 30 * torch.tanh(self.model.logits(hidden) / 30)

    model = gpt()
    capped = generate(Wrapped(model), [1, 2, 3], 40)
    assert capped == generate(model, [1, 2, 3], 40)  # a cap keeps the order of the logits


@pytest.mark.parametrize(("length", "message"), [(0, "empty"), (17, "17 tokens.*context is 16")])
def test_prompts_that_cannot_be_continued(length, message):
    with pytest.raises(UsageError, match=message):
        generate(gpt(), range(length), 5)


def test_nothing_to_do():
    for n, num_samples in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="nothing to do"):
            generate(gpt(), [1], n, num_samples=num_samples)
