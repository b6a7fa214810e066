"""Processes of `groundup`, forked from a server that has imported everything: one starts in milliseconds.

They are processes like any other, with an environment, signals, output and an exit code of their own. What they do not
show is how Python starts and imports; a test of that uses subprocess.
"""

import base64
import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from multiprocessing import forkserver, reduction
from pathlib import Path

PRELOADED = [
    "forked", "ranks", "groundup.training.run", "torch._dynamo", "matplotlib.pyplot", "matplotlib.backends.backend_agg",
    "tyro", "ipykernel.kernelapp", "ipykernel.ipkernel", "matplotlib_inline.backend_inline",
    "preloaded",
]  # fmt: skip
SCENE_TOKENS = 20
PLAYS = ("hamlet", "the-tempest")
"""What a lesson reads of Shakespeare in a kernel; the lines that it quotes are among them."""
PEAK_FLOPS = 1e12
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@functools.cache
def server():
    """The server, as a context of multiprocessing; in a process that it has forked, the same one.

    Python 3.11 does not tell it sys.path, so it learns ours from the environment.
    """
    context = multiprocessing.get_context("forkserver")
    running = forkserver._forkserver
    if running._forkserver_pid is None and running._forkserver_address is not None:
        running.ensure_running = lambda: None  # multiprocessing would start another: it asks only for its own child
        return context
    context.set_forkserver_preload(PRELOADED)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    forkserver.ensure_running()
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before
    return context


def shorten(patch):
    """Shorten what a run does besides its steps: no rate is measured, the last scene is short, the picture a pixel.

    Pictures are drawn by tests/unit/records, and by the test of all that a run leaves. No power is cut in any test, so
    nobody waits for the platter; that every fsync is asked for, the tests of files and of crashes show.

    Args:
        patch: `setattr`, or that of a pytest.MonkeyPatch, which takes it back.
    """
    from groundup.records import report
    from groundup.training import between_steps, finish

    patch(os, "fsync", lambda file: None)
    patch(between_steps, "gemm_rate", lambda *_: PEAK_FLOPS)
    patch(finish, "SCENE_TOKENS", SCENE_TOKENS)
    patch(report, "plot_loss", lambda rows, path, **_: path.write_bytes(PIXEL))


class ForkedPopen:
    """The part of subprocess.Popen that tests, the package and Jupyter use, for [python, "-m", MODULE, ...], and for
    [python, "-c", CODE, ...] where it does not matter what the code finds imported."""

    def __init__(
        self,
        command,
        *,
        stdin=None,
        stdout=None,
        stderr=None,
        cwd=None,
        env=None,
        text=False,
        start_new_session=False,
        preexec_fn=None,  # for the parent that a fork of the server has not
    ):
        at = 1 if command[1] == "-c" else command.index("-m") + 1
        module = command[at]
        assert module in MODULES, command
        opened = []

        def stream(wanted, number):
            if wanted is None:
                return number, None
            if wanted == subprocess.DEVNULL:
                opened.append(os.open(os.devnull, os.O_WRONLY))
                return opened[-1], None
            if wanted == subprocess.PIPE:
                ours, theirs = os.pipe()
                opened.append(theirs)
                return theirs, os.fdopen(ours, "r" if text else "rb")
            return wanted if isinstance(wanted, int) else wanted.fileno(), None

        assert stdin in (None, subprocess.DEVNULL, subprocess.PIPE)  # to all of them, nothing is said
        self.stdin = Path(os.devnull).open("wb") if stdin == subprocess.PIPE else None  # noqa: SIM115
        out, self.stdout = stream(stdout, 1)
        err, self.stderr = (out, None) if stderr == subprocess.STDOUT else stream(stderr, 2)
        words, environment = command[at + 1 :], dict(os.environ if env is None else env)
        context = server()
        ready, told = context.Pipe(duplex=False)
        sys.stdout.flush()
        self._process = context.Process(
            target=_enter,
            args=(module, words, _Sent(out), _Sent(err), environment, str(cwd or Path.cwd()), start_new_session, told),
        )
        self._process.start()
        told.close()
        ready.recv()  # it has a session of its own now, if it shall have one
        self.args, self.pid, self.returncode = command, self._process.pid, None
        for fd in opened:
            os.close(fd)

    def __class_getitem__(cls, item):
        return cls  # as in subprocess.Popen[bytes]

    def poll(self):
        self.returncode = self._process.exitcode
        return self.returncode

    def wait(self, timeout=None):
        self._process.join(timeout)
        if self.poll() is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode

    def communicate(self, timeout=None):
        said = [stream.read() if stream else None for stream in (self.stdout, self.stderr)]
        self.wait(timeout)
        return tuple(said)

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)


class _Sent:
    """A file descriptor on its way to a child."""

    def __init__(self, fd):
        self.fd = fd

    def __reduce__(self):
        return _received, (reduction.DupFd(self.fd),)


def _received(fd):
    return fd.detach()


def _enter(module, words, out, err, environment, folder, new_session, told):
    """Become `python -m MODULE WORDS`."""
    if new_session:
        os.setsid()
    told.send(True)
    told.close()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for fd, number in ((out, 1), (err, 2)):
        os.dup2(fd, number)
        os.close(fd)
    # The server's streams know what their files were: perhaps no pipes.
    sys.stdout = sys.__stdout__ = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.argv = [module, *words]
    MODULES[module]()


def _groundup():
    from groundup.cli.main import main
    from groundup.terminal import working

    working.PATIENCE = 1e6  # a sign of life after some seconds is one more line, on a busy machine
    shorten(setattr)
    sys.exit(main())


def _kernel():
    """A kernel of Jupyter, as it begins: with its threads, and pictures that go into the notebook."""
    import matplotlib
    import torch
    from ipykernel.kernelapp import launch_new_instance

    from groundup.corpora.shakespeare import Shakespeare

    shorten(setattr)
    all_plays = Shakespeare.parts
    Shakespeare.parts = lambda self: [part for part in all_plays(self) if part.stem in PLAYS]
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    matplotlib.rcParams["backend"] = os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
    launch_new_instance()


def _code():
    code = sys.argv.pop(1)
    exec(compile(code, "<code of a test>", "exec"), {"__name__": "__main__"})


def _torchrun():
    """The agent of torchrun, which starts its ranks in the same way."""
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler

    subprocess_handler.Popen = lambda args, **options: ForkedPopen(args, **options)
    run.main()


MODULES = {
    "groundup": _groundup,
    "ipykernel_launcher": _kernel,
    "torch.distributed.run": _torchrun,
    "-c": _code,
}


def still_running(processes, seconds=10):
    """Which of some psutil.Process have not ended after so many seconds.

    A zombie has ended. What becomes of it is the business of its parent, or of the first process of the system for an
    orphan; in a container that one may bury nobody.
    """
    end = time.monotonic() + seconds
    while (left := [process for process in processes if _runs(process)]) and time.monotonic() < end:
        time.sleep(0.05)
    return left


def _runs(process):
    import psutil

    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # it ended between two questions
        return False


def start_from_server():
    """In a process of a test: what the package starts by multiprocessing is forked from the server, too."""
    context = server()
    multiprocessing.get_context = lambda _: context


def output_of(code, *words):
    """What Python code prints in a process of its own that ends well."""
    process = ForkedPopen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE, text=True)
    output, _ = process.communicate(240)
    assert process.returncode == 0, output
    return output
