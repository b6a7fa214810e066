"""Devices that this machine cannot have, known before the seconds that loading PyTorch takes."""

import ctypes
import importlib.util
import re
import sys
from pathlib import Path

from groundup.config.errors import UserError

DEVICES = Path("/dev")


def refuse_absent(device: str) -> None:
    """Refuse a device that is not here for certain; of the rest PyTorch knows, once it is loaded.

    Raises:
        UserError: PyTorch cannot use it on this machine.
    """
    if is_absent(device):
        raise UserError(f"this machine has no {device} device that PyTorch can use; auto takes what it has")


def is_absent(device: str) -> bool:
    """Whether the system, the build of PyTorch or a missing driver rules a device out. False promises nothing."""
    on_mac = sys.platform == "darwin"
    if "torch" in sys.modules or device not in ("cuda", "mps"):
        return False
    if on_mac or device == "mps":
        return on_mac != (device == "mps")
    built = _built_for()
    return built is not None and (not built or (built == {"cuda"} and sys.platform == "linux" and not _has_driver()))


def _built_for() -> set[str] | None:
    """The kinds of GPU that the installed PyTorch was built for, as it writes down; None where it does not say."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return None
    try:
        text = Path(found.origin).with_name("version.py").read_text(encoding="utf-8")
    except OSError:
        return None
    said = dict(re.findall(r"^(cuda|hip)\b[^=\n]*= *(\S+)", text, re.MULTILINE))
    return {name for name, value in said.items() if value != "None"} if "cuda" in said else None


def _has_driver() -> bool:
    """Whether there is a sign of NVIDIA's driver: its library, as PyTorch looks for it, or its devices."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return any(DEVICES.glob("nvidia*"))
    return True
