"""Triton's kernels of a decoding step compute what the modules of gpt.py do."""

import pytest
import torch

from groundup.config.model import GPTConfig
from groundup.inference import recorded
from groundup.inference.decode_step import decode_step_works
from groundup.inference.recorded import RecordedBlocks, use_decode_kernels
from groundup.model.build import build_model
from groundup.model.init import init_weights

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_the_kernels_work_on_this_card(dtype):
    assert decode_step_works(torch.device("cuda"), dtype) is None


@pytest.mark.parametrize("few", [3, 0])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("n_embd", [64, 36])
def test_a_recorded_step_is_that_of_the_modules(few, bias, n_embd, monkeypatch):
    monkeypatch.setattr(recorded, "FEW", few)
    config = GPTConfig(n_layer=3, n_head=4, n_embd=n_embd, block_size=400, vocab_size=31, bias=bias)
    model = init_weights(build_model(config), seed=0).double().cuda().eval()
    ids = torch.randint(31, (3, 160), device="cuda")
    told = []
    for swapped in (False, True):
        if swapped:
            use_decode_kernels(model, pytest.fail)
            assert type(model.h) is RecordedBlocks
        cache = model.new_cache(3, 300, static=True)
        with torch.no_grad():
            for p in model.parameters():
                p.copy_(p * 8 if p.dim() == 2 and not swapped else p)
            model(ids[:, :150], cache=cache)
            cache.truncate([0, 150, 77])
            logits = torch.stack([model(ids[:, 150 + i : 151 + i], cache=cache) for i in range(3)])
        told.append((logits, cache.keys.clone(), cache.values.clone()))
        assert cache.held == [3, 153, 80]
    torch.testing.assert_close(*told, rtol=1e-6, atol=1e-6)
