import os
from types import SimpleNamespace

import torch

from groundup.runtime import memory


def test_a_mac_is_taken_to_have_half_of_its_memory_free(monkeypatch):
    monkeypatch.setattr(memory, "sys", SimpleNamespace(platform="darwin"))
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 1 << 20, "SC_PAGE_SIZE": 1 << 14}.__getitem__)
    assert memory.free_memory(torch.device("cpu")) == 8 << 30


def test_a_system_that_does_not_tell_has_little(monkeypatch):
    monkeypatch.setattr(memory, "sys", SimpleNamespace(platform="win32"))
    assert memory.free_memory(torch.device("cpu")) == 4 << 30
