from types import SimpleNamespace

import pytest
import torch

from groundup.config.errors import UsageError, UserError
from groundup.runtime import device as module
from groundup.runtime.device import cpu_name, device_name, pick_device


@pytest.fixture
def has(monkeypatch):
    def install(*, cuda=False, mps=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return install


@pytest.mark.parametrize(
    ("machine", "best"),
    [({}, "cpu"), ({"mps": True}, "mps"), ({"cuda": True}, "cuda"), ({"cuda": True, "mps": True}, "cuda")],
)
def test_auto_takes_the_fastest_there_is(machine, best, has):
    has(**machine)
    assert pick_device("auto").type == best
    assert pick_device("cpu").type == "cpu"


def test_what_the_machine_has_not_is_an_error_that_says_what_it_has(has):
    has(mps=True)
    with pytest.raises(UserError, match=r"^this machine has no cuda device that PyTorch can use; it has mps, cpu$"):
        pick_device("cuda")
    has()
    with pytest.raises(UserError, match=r"^this machine has no mps device that PyTorch can use; it has cpu$"):
        pick_device("mps")


def test_what_nobody_has_is_wrong_usage():
    with pytest.raises(UsageError, match=r"^device must be one of auto, cuda, mps, cpu, got 'tpu'$"):
        pick_device("tpu")


def test_the_cpu_is_named_as_the_system_names_it(monkeypatch, tmp_path):
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nmodel name\t: Intel(R) Xeon(R): Gold\nmodel name\t: second\n")
    monkeypatch.setattr(module, "Path", lambda name: info)
    assert cpu_name() == "Intel(R) Xeon(R): Gold"
    assert device_name(torch.device("cpu")) == "Intel(R) Xeon(R): Gold"


@pytest.mark.parametrize(
    ("name", "told"),
    [("AMD EPYC", "AMD EPYC, family 25, model 17"), ("AMD EPYC 9354", "AMD EPYC 9354")],
)
def test_what_a_virtual_machine_hides_is_told_by_family_and_model(name, told, monkeypatch, tmp_path):
    info = tmp_path / "cpuinfo"
    info.write_text(f"cpu family\t: 25\nmodel\t\t: 17\nmodel name\t: {name}\n\ncpu family\t: 26\n")
    monkeypatch.setattr(module, "Path", lambda name: info)
    assert cpu_name() == told


def test_a_system_without_proc_still_has_a_name(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "Path", lambda name: tmp_path / "none")
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert cpu_name() == "arm64"


def test_a_mac_and_its_gpu_have_the_name_of_the_chip(monkeypatch):
    monkeypatch.setattr(module, "sys", SimpleNamespace(platform="darwin"))
    told = SimpleNamespace(stdout="Apple M3\n")
    monkeypatch.setattr("subprocess.run", lambda words, **_: told if words[-1] == "machdep.cpu.brand_string" else None)
    assert cpu_name() == "Apple M3"
    assert device_name(torch.device("mps")) == "Apple M3 GPU"
