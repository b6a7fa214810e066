import torch

from groundup.runtime.seed import capture_rng, restore_rng, seed_rank


def draws():
    return torch.rand(7), torch.randn(5), torch.randperm(9), torch.nn.functional.dropout(torch.ones(50), 0.5)


def test_restored_generators_draw_the_same_bits():
    torch.manual_seed(5)
    torch.randn(3)  # half way between two states: an odd number of normals leaves one in store
    state = capture_rng()
    first = draws()
    second = draws()
    assert not torch.equal(first[0], second[0])
    restore_rng(state)
    for a, b in zip(first, draws(), strict=True):
        assert torch.equal(a, b)


def test_capturing_draws_nothing_and_keeps_a_copy():
    torch.manual_seed(6)
    expected = torch.rand(4)
    torch.manual_seed(6)
    state = capture_rng()
    before = {name: value.clone() for name, value in state.items()}
    assert torch.equal(torch.rand(4), expected)
    assert all(torch.equal(state[name], before[name]) for name in state)


def test_state_is_tensors_that_a_checkpoint_can_hold(tmp_path):
    from safetensors.torch import load_file, save_file

    torch.manual_seed(7)
    save_file(capture_rng(), tmp_path / "rng.safetensors")
    expected = draws()
    restore_rng(load_file(tmp_path / "rng.safetensors"))
    for a, b in zip(expected, draws(), strict=True):
        assert torch.equal(a, b)


def test_the_gpu_of_this_process_is_captured_and_passed_over_where_there_is_none(monkeypatch):
    kept = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda: torch.tensor([1]))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state: kept.append(state.item()))
    state = capture_rng()
    assert set(state) == {"cpu", "cuda"}
    restore_rng(state)
    assert kept == [1]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    restore_rng(state)
    assert kept == [1]


def test_ranks_and_later_joiners_draw_different_numbers():
    drawn = set()
    for rank, step in [(0, 0), (1, 0), (2, 0), (1, 7), (2, 7)]:
        seed_rank(1337, rank=rank, step=step)
        drawn.add(torch.rand(()).item())
    assert len(drawn) == 5
    seed_rank(1337)
    expected = torch.rand(())
    torch.manual_seed(1337)
    assert torch.equal(torch.rand(()), expected)


def test_the_generator_of_an_apple_gpu_is_kept(monkeypatch):
    kept = []
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: torch.tensor([2]))
    monkeypatch.setattr(torch.mps, "set_rng_state", lambda state: kept.append(state.item()))
    state = capture_rng()
    restore_rng(state)
    assert kept == [2]
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    restore_rng(state)
    assert kept == [2]
