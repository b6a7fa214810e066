"""The C++ files here as two shared libraries, compiled at first use and for this machine.

They are called through ctypes: that takes a compiler and some seconds, where an extension of PyTorch takes its headers,
Python's, ninja and longer. They lie in the user's cache under a hash of all that they were made from, so a new version
or another machine with the same home folder makes its own; and under a hash of their bytes.
"""

import contextlib
import ctypes
import hashlib
import os
import platform
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock

from groundup.config.errors import UserError
from groundup.files.atomic import write_file
from groundup.files.manifest import sha256_file
from groundup.runtime.remember import cache_folder, machine_id


class Library(NamedTuple):
    """A shared library."""

    name: str
    sources: tuple[Path, ...]
    """Include the others of their folder, and are compiled side by side."""
    level: str
    """Of optimization."""


FOLDER = Path(__file__).parent
TRAINING = Library("training", (FOLDER / "training.cpp", FOLDER / "training_bf16.cpp"), "-O2")
"""A person waits for it when a run begins. At -O3 it would take half as long again to compile, for steps that are a
fiftieth shorter at most, as its loops say themselves what that level finds out."""
DECODING = Library("decoding", (FOLDER / "products.cpp", FOLDER / "block.cpp"), "-O3")
COMPILERS = ("g++", "c++", "clang++")
"""GCC first: PyTorch on Linux has its OpenMP, and with another one beside it a step takes half as long again."""
ARITHMETIC = ("-fno-math-errno", "-fno-trapping-math", "--param=avoid-fma-max-bits=0")
"""Without the second, GCC makes no vectors of loops with conditions where vectors have no masks (AVX2). Without the
third it adds products in two steps in some loops for some CPUs (Zen 3), in others in one: their last bits differ."""
SECONDS = 300
"""A compiler that takes longer is ended."""


def shared_library(library: Library, say: Callable[[str], None]) -> Path:
    """The shared library, compiled if it is not there yet.

    Raises:
        OSError: There is no compiler, or the cache cannot be read.
        UserError: The cache cannot be written.
        SubprocessError: The compiler fails.
    """
    name, command = _made_from(library)
    if path := _whole(name):
        return path
    name.parent.mkdir(parents=True, exist_ok=True)
    say(f"compiling the kernels of {library.name} for this machine, once")
    with FileLock(name.with_suffix(".lock")):  # the system frees it, however its holder ends
        if path := _whole(name):
            return path
        with tempfile.TemporaryDirectory() as folder:
            made, objects = Path(folder, "made.so"), [str(Path(folder, f"{path.stem}.o")) for path in library.sources]
            pairs = zip(library.sources, objects, strict=True)
            _run_together([[*command, "-c", str(source), "-o", to] for source, to in pairs], folder)
            _run_together([[*command, "-shared", *objects, "-o", str(made)]], folder)
            path = name.with_suffix(f".{_digest(made)}.so")
            write_file(path, made.read_bytes())
    return path


def compile_ahead() -> None:
    """Begin with what `shared_library` will wait for, if it is not there yet, in a process of its own.

    That process goes on when this one ends early, and says nothing: what fails is tried again by who needs it.
    """
    from groundup.terminal.python import fresh_python

    with contextlib.suppress(OSError, UserError):
        if not all(_whole(_made_from(library)[0]) for library in (TRAINING, DECODING)):
            code = f"from {__name__} import _compile_all; _compile_all()"
            (command, environment), none = fresh_python("-c", code), subprocess.DEVNULL
            _AHEAD.append(subprocess.Popen(command, env=environment, stdin=none, stdout=none, stderr=none))


def _compile_all() -> None:
    shared_library(TRAINING, lambda _: None)
    if hasattr(os, "nice"):
        os.nice(10)  # training has begun, and has a use for the cores
    shared_library(DECODING, lambda _: None)


_AHEAD: list[subprocess.Popen[bytes]] = []
"""Python warns of processes that are forgotten before they have ended."""


def _made_from(library: Library) -> tuple[Path, list[str]]:
    """Its name for these sources, this compiler and machine, less the hash of its bytes; and how to make it."""
    names = (os.environ["CXX"],) if os.environ.get("CXX") else COMPILERS
    compiler = next(filter(None, map(shutil.which, names)), None)
    if compiler is None:
        raise FileNotFoundError(f"there is no C++ compiler ({', '.join(names)})")
    native = "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"
    command = [compiler, "-std=c++17", library.level, *ARITHMETIC, native, "-fopenmp", "-fPIC"]
    sources = b"".join(path.read_bytes() for path in sorted(library.sources[0].parent.glob("*.cpp")))
    made_from = sources + "\0".join([*command, machine_id()]).encode()
    return cache_folder() / f"{library.name}-{hashlib.sha256(made_from).hexdigest()[:16]}", command


def _run_together(commands: Sequence[Sequence[str]], folder: str) -> None:
    """Some commands side by side, which write what they need for a while into a folder.

    None goes on when one has failed, or this process is interrupted, nor do the programs that they have started. All
    stay in the session: Linux divides cores among sessions first, so in its own each would get as much as this process.

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
                    errors="replace",  # a message need not be of this locale
                    env=os.environ | {"TMPDIR": folder},
                    process_group=0,
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
