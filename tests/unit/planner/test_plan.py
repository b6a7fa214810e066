import dataclasses

import pytest

from groundup.config.presets import RECIPES
from groundup.planner.flops import flops_per_token
from groundup.planner.memory import Arithmetic, Memory, training_memory
from groundup.planner.params import count_parameters
from groundup.planner.plan import in_parts, plan


def test_the_numbers_are_the_formulas():
    recipe = RECIPES["gpt2-fineweb"]
    result = plan(recipe, vocab_size=65)  # the recipe knows its vocabulary: 65 is not asked for
    assert result.parameters == 124_439_808
    assert result.tokens == 19_073 * 2**19
    assert result.flops_per_step == flops_per_token(recipe.model, 1024) * 2**19
    assert result.memory == training_memory(recipe.model, Arithmetic(), micro_batch_size=16)


def test_an_open_vocabulary_is_filled_in():
    recipe = RECIPES["tiny-shakespeare"]
    shape = dataclasses.replace(recipe.model, vocab_size=65)
    assert plan(recipe, vocab_size=65).parameters == count_parameters(shape)


def test_a_vocabulary_that_is_assumed_is_called_so_unless_the_config_names_it():
    rows = dict(plan(RECIPES["tiny-shakespeare"], vocab_size=65, assumed=True).rows())
    assert rows["parameters"].endswith(", with 65 ids, assumed until the data is read")
    assert "assumed" not in dict(plan(RECIPES["gpt2-fineweb"], vocab_size=65, assumed=True).rows())["parameters"]


@pytest.mark.parametrize("name", RECIPES)
def test_the_rows_say_what_the_numbers_are(name):
    recipe = RECIPES[name]
    result = plan(recipe, vocab_size=65)
    rows = dict(result.rows())
    assert rows["parameters"] == f"{result.parameters:,}, with {recipe.model.vocab_size or 65:,} ids"
    assert rows["steps"] == f"{recipe.max_steps:,}"
    assert rows["tokens per step"].startswith(f"{recipe.tokens_per_step:,} = {recipe.grad_accum_steps} x ")
    assert rows["tokens"].startswith(f"{recipe.max_steps * recipe.tokens_per_step:,} (")
    assert float(rows["FLOPs per step"]) == pytest.approx(result.flops_per_step, rel=0.005)
    assert float(rows["FLOPs in all"]) == pytest.approx(result.flops_per_step * recipe.max_steps, rel=0.005)
    assert [name for name, _ in result.rows() if name not in dict(result.rows(memory=False))] == ["memory, fp32"]
    amount, unit = rows["memory, fp32"].split(":")[0].split()
    assert float(amount) * {"GB": 1e9, "MB": 1e6}[unit] == pytest.approx(result.memory.total, rel=0.01)


def test_memory_names_the_parts_that_there_are_in_plain_words():
    memory = Memory(
        weights=11_600_000, gradients=0, optimizer=2_000_000_000, activations=100_000, logits=49_999, backward=60_000
    )
    assert in_parts(memory, " for 2 sequences") == (
        "2.01 GB for 2 sequences: weights 11.6 MB, optimizer 2.00 GB, activations 0.1 MB, backward pass 0.1 MB"
    )
    held = dataclasses.replace(memory, backward=0, holes=70_000_000)
    assert in_parts(held).endswith("activations 0.1 MB, allocator and libraries 70.0 MB")


def test_a_run_on_a_cpu_is_planned_for_a_cpu():
    recipe = RECIPES["shakespeare"]
    there = dataclasses.replace(recipe, runtime=dataclasses.replace(recipe.runtime, device="cpu"))
    assert plan(there, vocab_size=65).memory.total > plan(recipe, vocab_size=65).memory.total
