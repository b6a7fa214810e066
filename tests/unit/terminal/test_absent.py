"""A device is ruled out by what the machine shows without PyTorch; what it does not show is left to PyTorch."""

import sys
import types

import pytest

from groundup.config.errors import UserError
from groundup.terminal import absent as module
from groundup.terminal.absent import is_absent, refuse_absent
from groundup.terminal.waiting import before_torch

CPU = "from typing import Optional\n__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\nhip: Optional[str] = None\n"
CUDA = CPU.replace("cuda: Optional[str] = None", "cuda: Optional[str] = '13.0'")
ROCM = CPU.replace("hip: Optional[str] = None", "hip: Optional[str] = '6.4'")


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """machine(system, version.py of its PyTorch, whether NVIDIA's library is there, devices): one like that."""

    def be(system="linux", version=CPU, *, library=False, devices=()):
        def load(name):
            assert name == "libcuda.so.1"
            if not library:
                raise OSError

        monkeypatch.delitem(sys.modules, "torch", raising=False)
        monkeypatch.setattr(sys, "platform", system)
        (tmp_path / "torch").mkdir()
        if version is not None:
            (tmp_path / "torch" / "version.py").write_text(version)
        found = types.SimpleNamespace(origin=str(tmp_path / "torch" / "__init__.py"))
        monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: found)
        monkeypatch.setattr(module.ctypes, "CDLL", load)
        for name in devices:
            (tmp_path / name).touch()
        monkeypatch.setattr(module, "DEVICES", tmp_path)

    return be


@pytest.mark.parametrize(
    ("how", "cuda", "mps"),
    [
        ({}, True, True),
        ({"version": CUDA}, True, True),
        ({"version": CUDA, "library": True}, False, True),
        ({"version": CUDA, "devices": ["nvidiactl"]}, False, True),
        ({"version": CUDA, "system": "win32"}, False, True),
        ({"version": ROCM}, False, True),
        ({"version": "__version__ = '9'\n"}, False, True),
        ({"version": None}, False, True),
        ({"system": "win32"}, True, True),
        ({"system": "darwin"}, True, False),
    ],
)
def test_what_is_ruled_out(machine, how, cuda, mps):
    machine(**how)
    assert (is_absent("cuda"), is_absent("mps"), is_absent("cpu"), is_absent("auto")) == (cuda, mps, False, False)


def test_a_command_is_told_in_one_line(machine):
    machine()
    with pytest.raises(
        UserError, match=r"^this machine has no cuda device that PyTorch can use; auto takes what it has$"
    ):
        before_torch("cuda")
    refuse_absent("cpu")


def test_once_pytorch_is_loaded_it_is_asked(machine, monkeypatch):
    machine()
    monkeypatch.setitem(sys.modules, "torch", types.ModuleType("torch"))
    assert not is_absent("mps")
