import os

import pytest


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch):
    """No power is cut here, so nobody waits for the platter; that every fsync is asked for, fault points show."""
    monkeypatch.setattr(os, "fsync", lambda file: None)
