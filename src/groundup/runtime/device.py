"""Where to compute."""

import contextlib
import platform
import subprocess
import sys
from pathlib import Path

import torch

from groundup.config.errors import UsageError, UserError


def pick_device(name: str) -> torch.device:
    """The device of this name; `auto` takes cuda, then mps, then cpu.

    Raises:
        UsageError: There is no such device.
        UserError: The machine does not have it.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(device for device, there in available.items() if there)
    if name not in available:
        raise UsageError(f"device must be one of auto, {', '.join(available)}, got {name!r}")
    if not available[name]:
        others = ", ".join(device for device, there in available.items() if there)
        raise UserError(f"this machine has no {name} device that PyTorch can use; it has {others}")
    return torch.device(name)


def device_name(device: torch.device) -> str:
    """What the maker calls it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return cpu_name() if device.type == "cpu" else f"{cpu_name()} GPU"


def cpu_name() -> str:
    """The processor, as the system names it."""
    if sys.platform == "darwin":
        ask = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        with contextlib.suppress(OSError):
            if name := subprocess.run(ask, capture_output=True, errors="replace", check=False).stdout.strip():
                return name
    facts: dict[str, str] = {}
    with contextlib.suppress(OSError):
        first, _, _ = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")
        for line in first.splitlines():
            fact, _, value = line.partition(":")
            facts.setdefault(fact.strip(), value.strip())
    name = facts.get("model name") or platform.processor() or platform.machine()
    if any(letter.isdigit() for letter in name) or not {"cpu family", "model"} <= facts.keys():
        return name
    # A virtual machine may hide which of a maker's processors it is ("AMD EPYC").
    return f"{name}, family {facts['cpu family']}, model {facts['model']}"
