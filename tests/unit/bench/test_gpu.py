import json
from types import SimpleNamespace

import pytest

from groundup.bench import gpu as module
from groundup.bench import options
from groundup.bench.gpu import Options, bench, groups
from groundup.cli.main import main
from groundup.config.errors import UsageError
from groundup.contestants import gpu_cases
from groundup.contestants.contest import Timing
from groundup.contestants.gpu_cases import Case, cases, chosen
from groundup.planner.flops import flops_per_token


def test_groups_fill_the_card_in_order():
    listed = [Case(name=str(n)) for n in range(5)]
    need = dict(zip("01234", [4, 3, 5, 99, 1], strict=True))
    cut = groups(listed, lambda case: need[case.name] * module.PROCESS_BYTES, 10 * module.PROCESS_BYTES)
    assert [[case.name for case in group] for group in cut] == [["0", "1"], ["2"], ["3"], ["4"]]


def test_an_h100_is_filled_four_times(monkeypatch):
    monkeypatch.setattr(module.torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=85e9))
    need = module.planned(module.torch.device("cuda"), SimpleNamespace(half=True))
    names = [[case.name for case in group] for group in groups(cases(), need, int(module.SHARE * 84.5e9))]
    assert names[:3] == [["124M", "124M modern"], ["350M", "774M"], ["1.5B", "124M nanoGPT"]]
    assert len(names) == 4


@pytest.fixture
def raced(monkeypatch):
    """No process is started; one contestant fails, the others take two seconds."""
    monkeypatch.setattr(gpu_cases, "find_spec", lambda name: None)
    monkeypatch.setattr(module.generate, "bench", lambda options, say: {"tokens": options.new_tokens})

    def race(contestants, options, *, rounds, runs, warmup, together, failures):
        failures["350M"] = "out of memory"
        return {name: Timing([2.0] * rounds, 3_000_000) for name in contestants if name != "350M"}

    monkeypatch.setattr(module, "race", race)


def test_figures_are_the_arithmetic_of_the_times_and_are_kept(raced, tmp_path):
    lines = []
    result = bench(Options(device="cpu", json=tmp_path / "gpu.json"), lines.append)
    case, row = cases("cpu")[0], result["training"]["124M"]
    assert row["tokens_per_sec"] == case.tokens_per_step / 2
    assert row["mfu"] == pytest.approx(32 * flops_per_token(case.model, 16) / result["peak_flops"], abs=1e-4)
    assert row["times_our_time"] == 1
    assert "350M" not in result["training"]
    assert any(line.startswith("350M") and "out of memory" in line for line in lines)
    assert json.loads((tmp_path / "gpu.json").read_text()) == result
    assert result["decoding"] == {"tokens": 4}


def test_what_does_not_fit_into_the_time_is_told(raced, monkeypatch, tmp_path):
    lines, clock = [], iter([0, 0, *[400] * 99])
    monkeypatch.setattr(module, "groups", lambda listed, *rest: [[case] for case in listed])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    result = bench(Options(device="cpu", seconds=300, json=tmp_path / "gpu.json"), lines.append)
    assert list(result["training"]) == ["124M"]
    assert "1.5B" in result["left_out"]
    assert json.loads((tmp_path / "gpu.json").read_text()) == result
    assert any(line.startswith("1.5B: left out") for line in lines)


@pytest.mark.parametrize(
    ("only", "message"),
    [
        ("x", "no case has 'x' in its name; there are 124M; 124M modern; "),
        ("124M; 12B", "no case has '12B' in its name; there are 124M; "),
        ("nanoGPT", "124M nanoGPT is a program that is not here; it needs --nanogpt, a checkout of it"),
        (
            "350M;transformers",
            "124M transformers is a program that is not here; it needs transformers: pip install 'gr",
        ),
    ],
)
def test_what_chooses_nothing_is_refused_at_once(raced, only, message):
    with pytest.raises(UsageError) as caught:
        Options(only=only)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("words", [[], ["--only=1.5B"]])
def test_no_gpu_is_a_failure_and_no_wrong_usage(monkeypatch, capsys, words):
    monkeypatch.setattr(options, "is_absent", lambda device: device in ("cuda", "mps"))
    assert main(["bench", "gpu", *words]) == 1
    assert capsys.readouterr().err == f"groundup: {options.NO_GPU}\n"


def test_texts_choose_cases_and_peers_that_are_here(monkeypatch):
    monkeypatch.setattr(gpu_cases, "find_spec", lambda name: None)
    assert [case.name for case in chosen(" 1.5B ;350M;", nanogpt=False)] == ["350M", "1.5B"]
    everyone = {case.name for case in cases()}
    assert {case.name for case in chosen("", nanogpt=False)} == everyone - {"124M nanoGPT", "124M transformers"}
    assert {case.name for case in chosen("", nanogpt=True)} == everyone - {"124M transformers"}


def test_a_case_makes_whole_steps(monkeypatch, tmp_path):
    from groundup.contestants import ours

    monkeypatch.setattr(ours, "TOKENS", 2000)
    case = cases("cpu")[1]
    run, peak = module._work(case, Options(device="cpu", profile=tmp_path / "kernels"))
    run()
    assert peak() > 0
    assert "aten::mm" in (tmp_path / "kernels" / "124M-modern.txt").read_text()
    assert case.grad_accum_steps * case.micro_batch_size * case.model.block_size == case.tokens_per_step
