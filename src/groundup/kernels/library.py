"""The C++ files here as a shared library, compiled at first use and for this machine.

It is called through ctypes: that takes a compiler and some seconds (10 on a Xeon), where an extension of PyTorch takes
its headers, Python's, ninja and longer. It lies in the user's cache under a hash of all that it was made from, so a new
version or another machine with the same home folder makes its own; and under a hash of its bytes.
"""

import contextlib
import ctypes
import hashlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from groundup.config.errors import UserError
from groundup.files.atomic import write_file
from groundup.files.manifest import sha256_file
from groundup.runtime.remember import cache_folder, machine_id

SOURCES = tuple(Path(__file__).with_name(name) for name in ("training.cpp", "block.cpp", "products.cpp"))
"""Include the others, and are compiled side by side: the longest first."""
COMPILERS = ("c++", "g++", "clang++")
ARITHMETIC = ("-fno-math-errno", "-fno-trapping-math", "--param=avoid-fma-max-bits=0")
"""Without the second, GCC makes no vectors of loops with conditions where vectors have no masks (AVX2). Without the
third it adds products in two steps in some loops for some CPUs (Zen 3), in others in one: their last bits differ."""
SECONDS = 300
"""A compiler that takes longer is ended."""


def shared_library(say: Callable[[str], None]) -> Path:
    """The shared library, compiled if it is not there yet.

    Raises:
        OSError: There is no compiler, or the cache cannot be read.
        UserError: The cache cannot be written.
        SubprocessError: The compiler fails.
    """
    name, command = _made_from()
    if path := _whole(name):
        return path
    name.parent.mkdir(parents=True, exist_ok=True)
    say("compiling the kernels for this machine, once")
    with FileLock(name.with_suffix(".lock")):  # the system frees it, however its holder ends
        if path := _whole(name):
            return path
        with tempfile.TemporaryDirectory() as folder:
            made, objects = Path(folder, "made.so"), [str(Path(folder, f"{path.stem}.o")) for path in SOURCES]
            pairs = zip(SOURCES, objects, strict=True)
            _run_together([[*command, "-c", str(source), "-o", to] for source, to in pairs], folder)
            _run_together([[*command, "-shared", *objects, "-o", str(made)]], folder)
            path = name.with_suffix(f".{_digest(made)}.so")
            write_file(path, made.read_bytes())
    return path


def compile_ahead() -> None:
    """Begin with what `shared_library` will wait for, if it is not there yet, in a process of its own.

    That process goes on when this one ends early, and says nothing: what fails is tried again by who needs it.
    """
    with contextlib.suppress(OSError, UserError):
        name, _ = _made_from()
        if _whole(name) is None:
            code = f"from {__name__} import shared_library; shared_library(lambda _: None)"
            none = subprocess.DEVNULL
            _AHEAD.append(subprocess.Popen([sys.executable, "-c", code], stdin=none, stdout=none, stderr=none))


_AHEAD: list[subprocess.Popen[bytes]] = []
"""Python warns of processes that are forgotten before they have ended."""


def _made_from() -> tuple[Path, list[str]]:
    """A library's name for these sources, this compiler and machine, less the hash of its bytes; and how to make it."""
    names = (os.environ["CXX"],) if os.environ.get("CXX") else COMPILERS
    compiler = next(filter(None, map(shutil.which, names)), None)
    if compiler is None:
        raise FileNotFoundError(f"there is no C++ compiler ({', '.join(names)})")
    native = "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"
    command = [compiler, "-std=c++17", "-O3", *ARITHMETIC, native, "-fopenmp", "-fPIC"]
    sources = b"".join(path.read_bytes() for path in sorted(SOURCES[0].parent.glob("*.cpp")))
    made_from = sources + "\0".join([*command, machine_id()]).encode()
    return cache_folder() / f"kernels-{hashlib.sha256(made_from).hexdigest()[:16]}", command


def _run_together(commands: Sequence[Sequence[str]], folder: str) -> None:
    """Some commands side by side, which write what they need for a while into a folder.

    None goes on when one has failed, or this process is interrupted, nor do the programs that they have started.

    Raises:
        OSError: One of them does not start.
        SubprocessError: One of them fails, or takes more than SECONDS.
    """
    with contextlib.ExitStack() as stack:
        running = []
        for command in commands:
            process = stack.enter_context(
                subprocess.Popen(
                    command,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    text=True,
                    env=os.environ | {"TMPDIR": folder},
                    start_new_session=True,
                )
            )
            stack.callback(_end_group, process)
            running.append(process)
        for process in running:
            _, said = process.communicate(timeout=SECONDS)
            if process.returncode:
                raise subprocess.CalledProcessError(process.returncode, process.args, stderr=said)


def _end_group(process: subprocess.Popen[str]) -> None:
    """A compiler calls others, who would go on without it; nothing happens where all have ended."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def _whole(name: Path) -> Path | None:
    """The library of this name whose bytes are those that were written; others are removed: whoever calls them dies."""
    for path in name.parent.glob(f"{name.name}.*.so"):
        if path.suffixes[0] == f".{_digest(path)}":
            return path
        path.unlink(missing_ok=True)
    return None


def _digest(path: Path) -> str:
    return sha256_file(path)[:16]


def why_not(error: Exception) -> str:
    """What to say of an error of `shared_library`, or of opening what it made."""
    if isinstance(error, subprocess.CalledProcessError):
        lines = error.stderr.splitlines() or ["it says nothing"]
        return f"the compiler fails: {next((line for line in lines if 'error' in line), lines[0])}"
    of_the_cache = isinstance(error, UserError) or (
        isinstance(error, OSError) and (error.filename or "failed to map" in str(error))  # the latter: noexec
    )
    return f"{error}; XDG_CACHE_HOME may name another folder for them" if of_the_cache else str(error)


def declare(function: Any, *takes: Any, gives: Any = None) -> Any:
    """A function of the library, whose types ctypes knows from then on."""
    function.argtypes, function.restype = takes, gives
    return function


def numbers(values: Sequence[int]) -> Any:
    """Integers of 64 bits, one behind the other: sizes, or addresses."""
    return (ctypes.c_int64 * len(values))(*values)
