import torch

from groundup.data.noise import with_random_tokens


def test_a_share_is_replaced_by_any_id():
    torch.manual_seed(0)
    idx = torch.full((200, 100), 7)
    noisy = with_random_tokens(idx, 0.2, 10)
    changed = noisy[noisy != 7]
    assert 0.16 < len(changed) / idx.numel() < 0.2  # a tenth of those drawn are what was there
    assert set(changed.tolist()) == set(range(10)) - {7}
    assert (idx == 7).all()
    torch.manual_seed(0)
    assert torch.equal(with_random_tokens(idx, 0.2, 10), noisy)
