"""Which machine and which versions compute: the facts that numbers depend on."""

import hashlib
import os
import platform
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import groundup
from groundup import __version__
from groundup.runtime.device import device_name


def machine_facts(device: torch.device) -> dict[str, Any]:
    """The machine and the versions that compute a run."""
    return {
        "device": device_name(device),
        "cpu cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "groundup": _version(),
    }


def signed(result: Mapping[str, Any], command: Sequence[str]) -> dict[str, Any]:
    """A result, which may not call anything else so, with what it takes to measure it again: code and command."""
    signature = {"groundup": _version(), "command": shlex.join(command)}
    assert all(isinstance(result.get(key, ""), str) for key in signature)  # versions may differ: by a commit meanwhile
    return {**signature, **result}


def code_fingerprint() -> str:
    """SHA-256 of the source of groundup, with the versions of Python and PyTorch: the same code gives the same."""
    digest = hashlib.sha256(f"{platform.python_version()} {torch.__version__}".encode())
    package = Path(groundup.__file__).parent
    for file in sorted(package.rglob("*.py")):
        digest.update(f"\0{file.relative_to(package).as_posix()}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def _version() -> str:
    return __version__ + (f" ({commit})" if (commit := _commit()) else "")


def _commit() -> str | None:
    """The commit groundup runs from, when it runs from a checkout."""
    here = Path(__file__).parent
    try:
        answer = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty"],
            capture_output=True,
            errors="replace",
            check=True,
            timeout=5,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
