import pytest
import torch

from groundup.config.errors import UsageError
from groundup.runtime import precision as module
from groundup.runtime.precision import Precision, pick_precision

CPU = torch.device("cpu")


@pytest.fixture
def cpu(monkeypatch, tmp_path):
    """A CPU whose bf16 products are `gain` times as fast as its fp32 ones, by what it has."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def install(gain, *features):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(features, True), raising=False)
        monkeypatch.setattr(module, "gemm_speedup", lambda device, precision, over: gain)

    return install


@pytest.mark.parametrize(
    ("gain", "feature", "width", "name", "why"),
    [
        (3.0, "bf16", 768, "bf16", "measured at least 1.5 times as fast"),
        (1.5, "amx_bf16", 256, "bf16", "measured at least 1.5 times as fast"),
        (3.0, "bf16", 255, "fp32", "below a width of 256"),
        (1.5, "avx512_bf16", 128, "bf16", "measured at least 1.5 times as fast"),
        (1.4, "avx512_bf16", 768, "fp32", "measured less than 1.5 times as fast"),
        (0.2, "bf16", 768, "fp32", "measured less than 1.5 times as fast"),
        (3.0, "avx512_bf16", 127, "fp32", "below a width of 128"),
        (3.0, "avx512", 768, "fp32", "no bf16 products"),
    ],
)
def test_auto_on_a_cpu_takes_what_measures_faster(gain, feature, width, name, why, cpu):
    cpu(gain, feature)
    chosen = pick_precision("auto", CPU, n_embd=width)
    assert chosen.name == name
    assert why in chosen.why


def test_a_machine_measures_once(cpu):
    cpu(1.6, "avx512_bf16")
    assert pick_precision("auto", CPU, n_embd=128).name == "bf16"
    cpu(1.4, "avx512_bf16")  # as another run may find it: near the bound, that would change what it computes
    assert pick_precision("auto", CPU, n_embd=768).name == "bf16"


@pytest.mark.parametrize(
    ("capability", "name"), [((9, 0), "bf16"), ((8, 0), "bf16"), ((7, 5), "fp16"), ((6, 0), "fp16")]
)
def test_auto_on_a_gpu_takes_what_its_matrix_units_know(capability, name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    chosen = pick_precision("auto", torch.device("cuda"), n_embd=64)
    assert chosen.name == name
    assert ".".join(map(str, capability)) in chosen.why


def test_auto_on_apple_is_fp32():
    assert pick_precision("auto", torch.device("mps"), n_embd=768).name == "fp32"


@pytest.mark.parametrize("name", ["tf32", "fp16"])
def test_what_a_cpu_has_not_is_refused(name):
    with pytest.raises(UsageError, match=f"^precision {name} is for GPUs; take fp32, bf16 or auto on a CPU$"):
        pick_precision(name, CPU, n_embd=768)


@pytest.mark.parametrize("name", ["fp32", "bf16"])
def test_what_is_asked_for_is_taken(name, cpu):
    cpu(1.0)
    chosen = pick_precision(name, CPU, n_embd=768)
    assert chosen.name == name
    assert ("asked for" in chosen.why) == (name != "fp32")  # fp32 is what the machine would take anyway


def test_an_unknown_precision_is_wrong_usage():
    """Not computed in fp32 under another name."""
    with pytest.raises(UsageError, match=r"^precision must be one of auto, fp32, tf32, bf16, fp16, got 'fp8'$"):
        pick_precision("fp8", CPU, n_embd=768)


@pytest.mark.parametrize(
    ("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_autocast_narrows_products_and_nothing_else(name, dtype):
    a = torch.randn(4, 4)
    with Precision(name, CPU, "").autocast():
        product = a @ a
        total = a + a
    assert product.dtype is dtype
    assert total.dtype is torch.float32
    assert (a @ a).dtype is torch.float32


def test_tf32_is_set_for_the_products_and_put_back():
    before = torch.get_float32_matmul_precision()
    tf32 = Precision("tf32", CPU, "")
    with tf32.autocast():
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == before
    with pytest.raises(ZeroDivisionError), tf32.autocast():
        1 / 0  # noqa: B018
    assert torch.get_float32_matmul_precision() == before


def test_only_fp16_needs_a_loss_scale():
    needs = [Precision(name, CPU, "").needs_scaler for name in ("fp32", "tf32", "bf16", "fp16")]
    assert needs == [False, False, False, True]
