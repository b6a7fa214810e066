import json
import os
import re
import tomllib
from pathlib import Path

import pytest
import torch

from groundup.cli.main import main
from groundup.config.errors import UserError
from groundup.config.model import GPTConfig
from groundup.planner.flops import flops_per_token
from groundup.runtime import doctor

PYPROJECT = Path(__file__).parents[3] / "pyproject.toml"


@pytest.fixture
def fast(monkeypatch):
    """No measurement takes time; what they return is known."""
    rates = {"fp32": 1e11, "bf16": 3e11, "fp16": 2e11}
    for module in (doctor, doctor.pick_precision.__globals__):
        target = module if isinstance(module, dict) else vars(module)
        monkeypatch.setitem(target, "gemm_rate", lambda device, precision: rates[precision])
    speedup = lambda device, precision, *, over: rates[precision] / rates[over]  # noqa: E731
    monkeypatch.setitem(doctor.pick_precision.__globals__, "gemm_speedup", speedup)
    monkeypatch.setattr(doctor, "copy_bandwidth", lambda device: 2e10)
    monkeypatch.setattr(doctor, "maybe_compile", lambda *args, **options: None)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the figures below are a CPU's")
def test_json_says_what_was_measured(fast, capsys):
    assert main(["doctor", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["torch"] == torch.__version__
    assert facts["threads"] == str(torch.get_num_threads())
    assert facts["matrix products, fp32"] == "100 GFLOP/s"
    assert facts["memory bandwidth"].startswith("20 GB/s")
    assert facts["torch.compile"] == "works"
    assert facts["precision for nano"].startswith("fp32: ")
    precision = facts["precision for gpt2"].split(":")[0]
    rate = {"fp32": 1e11, "bf16": 3e11}[precision]
    ceiling = rate / flops_per_token(GPTConfig(vocab_size=50257), 1024)
    assert float(facts["GPT-2 124M at best"].split()[0]) == pytest.approx(ceiling, rel=0.01)


def test_the_table_has_every_fact(fast, capsys):
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    for name in ("device", "memory bandwidth", "torch.compile", "precision for gpt2", "disk free here"):
        assert name in printed


def test_a_missing_compiler_is_a_finding_and_no_failure(fast, monkeypatch, capsys):
    def refuse(*args, **options):
        raise UserError("torch.compile does not work here: no C++ compiler")

    monkeypatch.setattr(doctor, "maybe_compile", refuse)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "before")
    assert main(["doctor", "--json"]) == 0
    assert "no C++ compiler" in json.loads(capsys.readouterr().out)["torch.compile"]
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "before"


def test_compiling_is_tried_in_a_cache_of_its_own(fast, monkeypatch):
    seen = []
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    monkeypatch.setattr(
        doctor, "maybe_compile", lambda *args, **options: seen.append(os.environ["TORCHINDUCTOR_CACHE_DIR"])
    )
    doctor.examine()
    assert len(seen) == 1
    assert not Path(seen[0]).exists()
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ


def test_extras_are_pyprojects():
    extras = tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"]
    assert set(doctor.EXTRAS) == set(extras) - {"dev"}
    for extra, package in doctor.EXTRAS.items():
        assert package in [re.split(r"\W*[<>=]", line)[0] for line in extras[extra]], extra


@pytest.mark.slow
def test_measures_this_machine(capsys):
    assert main(["doctor", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert "FLOP/s" in facts["matrix products, fp32"]
    assert facts["torch.compile"].startswith(("works", "does not work"))
