"""Where the work of a preparation is done: what Ctrl-C meets."""

import os
import signal
import threading
import time

import pytest

from groundup.prepare import executors


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="signals of POSIX")
def test_interrupted_while_a_process_starts_waits_for_it():
    """Other threads take the signal where this one has masked it: half a start would be a traceback in the process."""
    done = threading.Event()
    other = threading.Thread(target=done.wait)
    other.start()
    steps = []

    def start():
        with executors._no_interrupt():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)
            steps.append("started")

    try:
        with pytest.raises(KeyboardInterrupt):
            start()
    finally:
        done.set()
        other.join()
    assert steps == ["started"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
