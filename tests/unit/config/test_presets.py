import pytest

from groundup.config.presets import GPT2_VOCAB, MODELS, RECIPES
from groundup.planner.params import count_parameters


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("gpt2", 124_439_808), ("gpt2-medium", 354_823_168), ("gpt2-large", 774_030_080), ("gpt2-xl", 1_557_611_200)],
)
def test_published_sizes_are_the_published_ones(name, parameters):
    model = MODELS[name]
    assert count_parameters(model) == parameters
    assert model.head_dim == 64  # the one shape that does not show in the count
    assert (model.vocab_size, model.block_size, model.kind, model.bias) == (GPT2_VOCAB, 1024, "gpt", True)
    assert GPT2_VOCAB == 50_257


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_runs_under_its_own_name_and_learns_at_every_step(name):
    recipe = RECIPES[name]
    assert recipe.name == name
    assert 0 < recipe.optim.warmup_steps < recipe.max_steps
    assert recipe.eval.every <= recipe.max_steps
    assert recipe.checkpoint.every <= recipe.max_steps
    assert recipe.grad_accum_steps * recipe.runtime.micro_batch_size * recipe.model.block_size == recipe.tokens_per_step


def test_tiny_shakespeare_is_nanogpts_cpu_setting():
    """config/train_shakespeare_char.py with the flags of nanoGPT's README for a CPU, and three times its rate."""
    recipe = RECIPES["tiny-shakespeare"]
    m, o = recipe.model, recipe.optim
    assert (m.n_layer, m.n_head, m.n_embd, m.block_size, m.dropout, m.bias) == (4, 4, 128, 64, 0.0, False)
    assert (recipe.max_steps, recipe.runtime.micro_batch_size, recipe.grad_accum_steps) == (2000, 12, 1)
    assert (o.name, o.lr, o.lr * o.min_lr_ratio, o.warmup_steps, o.beta1, o.beta2) == (
        "adamw",
        3e-3,
        1e-4,
        100,
        0.9,
        0.99,
    )
    assert (o.weight_decay, o.grad_clip) == (0.1, 1.0)
    assert recipe.seed == 1337


def test_gpt2_on_fineweb_sees_ten_billion_tokens():
    """build-nanogpt's schedule: half a million tokens a step, one pass over FineWeb-Edu's 10B sample."""
    recipe = RECIPES["gpt2-fineweb"]
    assert recipe.tokens_per_step == 2**19
    assert recipe.max_steps == 10**10 // 2**19
    assert recipe.optim.warmup_steps == 375_000_000 // 2**19
    assert (recipe.optim.lr, recipe.optim.min_lr_ratio) == (6e-4, 0.1)
