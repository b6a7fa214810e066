import json
import re
import tomllib
import types
from pathlib import Path

import pytest
import torch

from groundup.cli.doctor import WIDTH
from groundup.cli.main import main
from groundup.config.model import GPTConfig
from groundup.planner.flops import flops_per_token
from groundup.runtime import doctor

PYPROJECT = Path(__file__).parents[3] / "pyproject.toml"


@pytest.fixture
def fast(monkeypatch, tmp_path):
    """No measurement takes time, nor does anything else; what they return is known."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(doctor, "time", types.SimpleNamespace(perf_counter=lambda: 0.0))
    rates = {"fp32": 1e11, "bf16": 2e11, "fp16": 2e11}
    for module in (doctor, doctor.pick_precision.__globals__):
        target = module if isinstance(module, dict) else vars(module)
        monkeypatch.setitem(target, "gemm_rate", lambda device, precision: rates[precision])
    speedup = lambda device, precision, *, over: rates[precision] / rates[over]  # noqa: E731
    monkeypatch.setitem(doctor.pick_precision.__globals__, "gemm_speedup", speedup)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"bf16": True}, raising=False)
    monkeypatch.setattr(doctor, "copy_bandwidth", lambda device: 2e10)
    monkeypatch.setattr(doctor, "try_compiler", lambda *args, **options: "works")


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
    rate = {"fp32": 1e11, "bf16": 2e11}[precision]
    ceiling = rate / flops_per_token(GPTConfig(vocab_size=50257), 1024)
    assert float(facts["GPT-2 124M at best"].split()[0]) == pytest.approx(ceiling, rel=0.01)


def test_the_table_has_every_fact(fast, capsys):
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    for name in ("device", "memory bandwidth", "torch.compile", "precision for gpt2", "disk free here"):
        assert name in printed


def test_each_finding_is_printed_before_the_next_is_measured(fast, monkeypatch, capsys):
    printed = {}

    def rate(device, precision):
        printed[precision] = capsys.readouterr().out
        return 1e11

    monkeypatch.setattr(doctor, "gemm_rate", rate)
    assert main(["doctor"]) == 0
    assert "precision for gpt2" in printed["fp32"]
    assert "matrix products, fp32   100 GFLOP/s\n" in printed["bf16"]


def test_what_is_measured_is_said_before(fast):
    said = []
    names = [name for name, _ in doctor.examine(said.append)]
    assert len(set(names)) == len(names)
    assert max(map(len, names)) < WIDTH
    assert said[0] == "comparing the speed of precisions"
    assert said[-1] == "trying torch.compile, for 10 s at most"


def test_what_there_is_no_time_for_is_said_and_not_measured(fast, monkeypatch):
    monkeypatch.setattr(doctor, "LONGEST", 0.0)
    for name in ("gemm_rate", "copy_bandwidth", "try_compiler", "pick_precision"):
        monkeypatch.setattr(doctor, name, lambda *args, **options: pytest.fail("measured"))
    facts = dict(doctor.examine())
    measured = ("precision for gpt2", "matrix products, bf16", "GPT-2 124M at best", "memory bandwidth")
    assert {facts[name] for name in measured} == {doctor.BUSY}
    assert facts["torch.compile"] == "not tried: the machine is too busy to do it in time"
    assert facts["threads"] == str(torch.get_num_threads())


@pytest.mark.skipif(torch.cuda.is_available(), reason="of a CPU")
def test_products_that_a_cpu_would_emulate_take_no_time_from_the_others(fast, monkeypatch):
    measured = []
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    monkeypatch.setattr(doctor, "gemm_rate", lambda device, precision: measured.append(precision) or 1e11)
    facts = dict(doctor.examine())
    assert measured == ["fp32"]
    assert facts["matrix products, bf16"].startswith("not measured: this CPU has none")
    assert facts["memory bandwidth"].startswith("20 GB/s")


def test_the_compiler_has_what_the_measurements_leave(fast, monkeypatch):
    given = []
    monkeypatch.setattr(doctor, "try_compiler", lambda device, longest: given.append(longest) or "works")
    monkeypatch.setattr(doctor, "LONGEST", 700.0)
    monkeypatch.setattr(doctor, "COMPILE_SECONDS", 2000.0)
    dict(doctor.examine())
    assert 0.0 < given[0] <= 700.0


def test_a_missing_compiler_is_a_finding(fast, monkeypatch):
    given = []
    monkeypatch.setattr(doctor, "try_compiler", lambda device, longest: given.append(longest) or "does not work here")
    assert dict(doctor.examine())["torch.compile"] == "does not work here"
    assert given == [doctor.COMPILE_SECONDS]


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
    assert facts["torch.compile"].startswith(
        ("works", "was given up", "does not work", "not tried: the machine is too busy")
    )
