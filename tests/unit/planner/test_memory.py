import contextlib
import dataclasses
import gc
import itertools
from itertools import product
from pathlib import Path

import pytest
import torch

from groundup.config.model import GPTConfig, ModernConfig
from groundup.config.train import LoRAConfig, OptimConfig, TrainConfig
from groundup.kernels.compiled import load_kernels
from groundup.model.build import build_model
from groundup.model.lora import add_lora
from groundup.model.loss import LossModule
from groundup.optim.average import WeightAverage
from groundup.optim.build import build_optimizers
from groundup.parts.swap import use_cpu_parts
from groundup.planner import memory as planner
from groundup.planner.memory import Arithmetic, Memory, kv_cache_bytes, memory_of_run, training_memory

B = 4
ON_GPU, ON_CPU, BY_KERNELS = Arithmetic(), Arithmetic(cpu=True), Arithmetic(cpu=True, kernels=True)


def shape(**options):
    cls = ModernConfig if "position" in options else GPTConfig
    return cls(n_layer=3, n_head=4, n_embd=128, block_size=64, vocab_size=151, **options)


def kept_for_backward(config, *, half, recompute=False, kernels=None):
    """Bytes of all storages that autograd keeps, except the weights themselves."""
    model = build_model(config).train()
    if kernels:
        use_cpu_parts(model, "default", kernels, alone=True, one_call=True)
    model.recompute = recompute
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor  # the tensor too, so that no address is used twice
        return tensor

    idx = torch.zeros(B, config.block_size, dtype=torch.long)
    autocast = torch.autocast("cpu", dtype=torch.bfloat16) if half else contextlib.nullcontext()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), autocast:
        loss = LossModule(model)(idx, idx)
    for before, room in kept_by_blocks(loss.grad_fn):
        pack(before), pack(room)
    return sum(t.untyped_storage().nbytes() for address, t in kept.items() if address not in weights)


def kept_by_blocks(node):
    """What blocks in one step keep themselves: the streams before them, and their rooms."""
    found, waiting, seen = [], [node], set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            found += getattr(node, "kept", ())
            waiting += (before for before, _ in node.next_functions)
    return found


@pytest.mark.parametrize(("half", "dropout", "position"), list(product([False, True], [0.0, 0.1], ["learned", "rope"])))
def test_activations_are_what_autograd_keeps(half, dropout, position):
    config = shape(dropout=dropout, position=position)
    memory = training_memory(config, Arithmetic(half=half, cpu=True), micro_batch_size=B)
    log_probabilities = B * config.block_size * config.vocab_size * 4
    predicted = memory.activations + log_probabilities
    assert predicted == pytest.approx(kept_for_backward(config, half=half), rel=0.03)


@pytest.mark.parametrize(("half", "dropout", "position"), list(product([False, True], [0.0, 0.1], ["learned", "rope"])))
def test_blocks_of_one_step_keep_what_is_planned(half, dropout, position):
    """Kernels rotate queries and keys where they lie, and drop without masks."""
    kernels = load_kernels(lambda _: None)
    if not kernels.lanes:
        pytest.skip("needs a C++ compiler")
    config = shape(dropout=dropout, position=position)
    how = dataclasses.replace(BY_KERNELS, half=half, bf16=kernels.has_bf16)
    memory = training_memory(config, how, micro_batch_size=B)
    log_probabilities = B * config.block_size * config.vocab_size * 4
    kept = kept_for_backward(config, half=half, kernels=kernels)
    assert memory.activations + log_probabilities == pytest.approx(kept, rel=0.03)


@pytest.mark.parametrize("shared", [{}, {"position": "learned", "n_kv_head": 2}], ids=["own keys", "shared keys"])
def test_kernels_keep_no_matrix_of_scores_and_no_masks_under_dropout(shared):
    config = shape(dropout=0.1, activation="relu", **{"position": "learned", **shared})  # a GELU would keep more, too
    stream = 4 * B * config.block_size * config.n_embd
    masks = (2 * config.n_layer + 1) * stream

    def saved(config):
        by_pytorch, by_kernels = (
            training_memory(config, how, micro_batch_size=B).activations for how in (ON_CPU, BY_KERNELS)
        )
        return by_pytorch - by_kernels

    scores = 3 * 4 * config.n_layer * B * config.n_head * config.block_size**2
    assert saved(config) - masks == pytest.approx(scores, rel=0.3)  # and copies of q, k and v
    narrow = dataclasses.replace(config, n_embd=20 * config.n_head)  # heads that do not suit them
    assert saved(narrow) == masks * narrow.n_embd // config.n_embd


def test_a_squared_relu_by_kernels_keeps_its_output_alone():
    config = shape(position="learned", activation="relu2")
    by_pytorch, by_kernels = (
        training_memory(config, how, micro_batch_size=B).activations for how in (ON_CPU, BY_KERNELS)
    )
    assert by_pytorch - by_kernels == config.n_layer * 4 * B * config.block_size * 4 * config.n_embd


def test_recomputing_keeps_one_input_of_a_block_that_kernels_compute():
    kernels = load_kernels(lambda _: None)
    if not kernels.lanes:
        pytest.skip("needs a C++ compiler")
    config = shape()
    stream = 4 * B * config.block_size * config.n_embd
    memory = training_memory(config, BY_KERNELS, micro_batch_size=B, recompute=True)
    kept = kept_for_backward(config, half=False, recompute=True, kernels=kernels)
    log_probabilities = B * config.block_size * config.vocab_size * 4
    assert memory.activations + log_probabilities == pytest.approx(kept, abs=1.1 * stream)


def test_recomputing_keeps_one_input_a_block():
    config = shape()
    memory = training_memory(config, ON_CPU, micro_batch_size=B, recompute=True)
    shallow, deep = (
        training_memory(dataclasses.replace(config, n_layer=n), ON_CPU, micro_batch_size=B) for n in (1, 2)
    )
    stream = 4 * B * config.block_size * config.n_embd
    predicted = memory.activations + B * config.block_size * config.vocab_size * 4
    assert predicted == pytest.approx(kept_for_backward(config, half=False, recompute=True), abs=1.1 * stream)
    # On the way back a block's own activations come on top, and its hidden layer's gradient and a copy.
    assert memory.backward == deep.activations - shallow.activations + 2 * 4 * stream


def test_logits_of_a_large_vocabulary_are_never_whole():
    config = GPTConfig(n_layer=12, n_head=12, n_embd=768, block_size=1024, vocab_size=50257)
    logits, of_twice = (training_memory(config, ON_CPU, micro_batch_size=b).logits for b in (4, 8))
    assert logits < 4 * 1024 * 50257 * 4 / 1.5
    assert logits < of_twice < 1.3 * logits


def in_use_at_most(config, *, recompute=False, accumulates, kernels=None):
    """Bytes that PyTorch allocates for a step besides weights, at the most; their gradients are there or not."""
    model = build_model(config).train()
    if kernels:
        use_cpu_parts(model, "default", kernels, alone=True, one_call=True)
    model.recompute = recompute
    module = LossModule(model)
    idx = torch.randint(config.vocab_size, (2 * B, config.block_size), generator=torch.Generator().manual_seed(0))
    if accumulates:
        module(idx, idx).backward()
    gc.collect()  # what tests before this one have left would be freed in the window
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as seen:
        module(idx, idx).backward()
    sizes = [e.nbytes() for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    return max(itertools.accumulate(sizes)) + (sum(p.nbytes for p in model.parameters()) if accumulates else 0)


@pytest.mark.parametrize("accumulates", [False, True])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize(("vocab_size", "n_layer"), [(9000, 2), (151, 6)], ids=["large head", "deep"])
def test_a_step_takes_what_its_largest_moment_needs(monkeypatch, vocab_size, n_layer, recompute, accumulates):
    """The holes of a heap apart; the first is the loss's moment, the second that of a block."""
    monkeypatch.setitem(planner.LOGITS_BYTES, "cpu", 128 * 4 * vocab_size)
    config = dataclasses.replace(shape(), vocab_size=vocab_size, n_layer=n_layer)
    memory = training_memory(config, ON_CPU, micro_batch_size=2 * B, recompute=recompute, accumulates=accumulates)
    measured = in_use_at_most(config, recompute=recompute, accumulates=accumulates)
    # PyTorch's products make no copy, and the first block's gradients come one by one.
    assert 0.97 * measured < memory.of_step < 1.2 * measured
    assert bool(memory.logits) == (vocab_size == 9000)


@pytest.mark.parametrize("accumulates", [False, True])
def test_a_loss_in_one_step_has_all_gradients_from_the_beginning(accumulates):
    """What the kernels ask for by themselves apart: that is `backward`."""
    kernels = load_kernels(lambda _: None)
    if not kernels.lanes:
        pytest.skip("needs a C++ compiler")
    config = shape()
    memory = training_memory(config, BY_KERNELS, micro_batch_size=2 * B, accumulates=accumulates)
    measured = in_use_at_most(config, accumulates=accumulates, kernels=kernels)
    assert memory.of_step - memory.backward == pytest.approx(measured, rel=0.05)
    assert memory.gradients == (2 if accumulates else 1) * memory.weights


def test_kernels_in_bfloat16_need_copies_of_the_embedding_alone_and_leave_fewer_holes():
    config = shape()
    how = dataclasses.replace(BY_KERNELS, half=True)
    without, with_them = (
        training_memory(config, dataclasses.replace(how, bf16=bf16), micro_batch_size=B) for bf16 in (False, True)
    )
    others = sum(part.numel() for name, part in build_model(config).named_parameters() if name != "wte.weight")
    again = 6 * B * config.block_size * config.n_embd  # what norms and GELU give, a block
    assert without.activations - with_them.activations == 2 * (others + config.n_layer * again)
    assert without.holes == 2 * (without.of_step // 4)
    assert with_them.holes == 2 * planner.LIBRARIES  # the loss in one step leaves none


@pytest.mark.parametrize("change", [{"half": False}, {"cpu": False}, {"lora_rank": 4}, {"rms": True}, {"narrow": True}])
def test_what_no_kernel_multiplies_in_bfloat16_needs_as_much_as_without_them(change):
    others = {"position": "rope", "norm": "rms"} if change.pop("rms", False) else {}
    config = dataclasses.replace(shape(**others), n_head=16 if change.pop("narrow", False) else 4)
    options = {"micro_batch_size": B, "lora_rank": change.pop("lora_rank", 0)}
    how = Arithmetic(**{"half": True, "cpu": True, "kernels": True} | change)
    in_bf16 = dataclasses.replace(how, bf16=True)
    assert training_memory(config, in_bf16, **options) == training_memory(config, how, **options)


def test_state_is_what_adamw_keeps():
    config = shape()
    model = build_model(config)
    optimizer = torch.optim.AdamW(model.parameters())
    LossModule(model)(*[torch.zeros(1, 8, dtype=torch.long)] * 2).backward()
    optimizer.step()
    memory = training_memory(config, ON_GPU, micro_batch_size=1)
    assert memory.weights == sum(p.nbytes for p in model.parameters())
    assert memory.gradients == sum(p.grad.nbytes for p in model.parameters())
    moments = [t for state in optimizer.state.values() for name, t in state.items() if name != "step"]
    assert memory.optimizer == sum(t.nbytes for t in moments)


@pytest.mark.parametrize("average", [0.0, 0.99])
def test_state_is_what_muon_and_an_average_keep(average):
    config = shape(position="rope", n_kv_head=2, n_inner=192, ngram=3, ngram_rows=50)
    optim = OptimConfig(name="muon", average=average)
    model = build_model(config)
    optimizers = build_optimizers(model, optim, torch.device("cpu"))
    LossModule(model)(*[torch.zeros(1, 8, dtype=torch.long)] * 2).backward()
    kept = []
    for optimizer in optimizers:
        optimizer.step()
        kept += [t for state in optimizer.state.values() for name, t in state.items() if name != "step"]
    if average:
        kept += WeightAverage(model, average).weights.values()
    assert training_memory(config, ON_GPU, micro_batch_size=1, optim=optim).optimizer == sum(t.nbytes for t in kept)


@pytest.mark.parametrize("name", ["adamw", "muon"])
@pytest.mark.parametrize("switches", [{}, {"position": "rope", "n_kv_head": 2, "n_inner": 192, "tied_head": False}])
def test_state_is_what_a_change_of_low_rank_keeps(name, switches):
    config, optim = shape(**switches), OptimConfig(name=name)
    run = TrainConfig(model=config, optim=optim, lora=LoRAConfig(rank=3), init_from=Path("gpt"), name="x")
    model = build_model(config)
    add_lora(model, rank=3, alpha=6.0, seed=0)
    optimizers = build_optimizers(model, optim, torch.device("cpu"))
    LossModule(model)(*[torch.zeros(1, 8, dtype=torch.long)] * 2).backward()
    for optimizer in optimizers:
        optimizer.step()
    states = [state for optimizer in optimizers for state in optimizer.state.values()]
    memory = memory_of_run(run, config, ON_GPU)(1)
    assert memory.weights == sum(p.nbytes for p in model.parameters())
    assert memory.gradients == sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
    assert memory.optimizer == sum(t.nbytes for state in states for key, t in state.items() if key != "step")


def test_gpus_keep_less_than_cpus():
    plain, dropped = shape(), shape(dropout=0.1)
    for config in (plain, dropped):
        on_cpu = training_memory(config, ON_CPU, micro_batch_size=B)
        assert training_memory(config, ON_GPU, micro_batch_size=B).activations < on_cpu.activations
    masks = [training_memory(c, ON_GPU, micro_batch_size=B).activations for c in (plain, dropped)]
    # One byte an element: twice in each block, once after the embeddings.
    assert masks[1] - masks[0] == (2 * plain.n_layer + 1) * B * plain.block_size * plain.n_embd


def test_the_total_is_the_sum_of_its_parts():
    parts = Memory(weights=1, gradients=2, optimizer=4, activations=8, logits=16, backward=32, holes=64)
    assert (parts.total, parts.of_step) == (127, 58)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kv_cache_is_what_the_model_allocates(dtype):
    config = shape()
    cache = build_model(config).to(dtype).new_cache(3, 20)
    expected = cache.keys.nbytes + cache.values.nbytes
    assert kv_cache_bytes(config, batch_size=3, tokens=20, width=dtype.itemsize) == expected
