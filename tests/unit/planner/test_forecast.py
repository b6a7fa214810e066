import dataclasses
import json
import re
from pathlib import Path

import pytest

from groundup.config.errors import UsageError
from groundup.config.presets import RECIPES
from groundup.planner.flops import flops_per_token
from groundup.planner.forecast import USABLE, Hardware, duration, forecast, parse_hardware
from groundup.planner.hardware import MEMORY_GB, PEAK_TFLOPS
from groundup.planner.memory import Arithmetic, largest_micro_batch, memory_of_run, shared, training_memory
from groundup.planner.plan import plan

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
GPT2 = plan(RECIPES["gpt2-fineweb"], vocab_size=0)
XL = plan(RECIPES["gpt2-xl-fineweb"], vocab_size=0)


@pytest.mark.parametrize(
    ("text", "count", "precision", "tflops"),
    [("T4", 1, "fp16", 65), ("2xT4", 2, "fp16", 65), ("8 x h100", 8, "bf16", 989.4), ("M3", 1, "fp32", 3.5)],
)
def test_hardware_has_a_name_and_a_number(text, count, precision, tflops):
    found = parse_hardware(text)
    assert (found.count, found.precision) == (count, precision)
    assert found.flops == pytest.approx(tflops * 1e12)


@pytest.mark.parametrize("text", ["", "0xT4", "2x", "3090", "here", "-1xT4", "T4x2"])
def test_unknown_hardware_is_refused_with_what_is_known(text):
    with pytest.raises(UsageError, match="RTX 4090"):
        parse_hardware(text)


def test_every_device_with_a_rate_has_a_memory():
    assert PEAK_TFLOPS.keys() == MEMORY_GB.keys()


def test_time_is_flops_divided_by_what_is_reached():
    found = forecast(GPT2, parse_hardware("4xA100"), mfu=0.5)
    assert found.seconds_per_step == pytest.approx(flops_per_token(GPT2.shape, 1024) * 524_288 / (4 * 312e12 * 0.5))
    assert found.seconds == pytest.approx(19_073 * found.seconds_per_step)
    rows = dict(found.rows(dollars_per_hour=2.0))
    assert rows["cost"].startswith(f"${2 * 4 * found.seconds / 3600:,.2f} ")
    assert rows["tokens per second"] == f"{524_288 / found.seconds_per_step:,.0f}"


@pytest.mark.parametrize(
    ("devices", "seconds", "says"),
    [
        (1, 4.0, "4 s"),
        (1, 116.0, "116 s"),
        (8, 4.0, "4 s"),
        (8, 116.0, "116 s, 15.5 device minutes"),
        (8, 7000.0, "117 min, 15.6 device hours"),
        (1, 5400.0, "90 min, 1.5 device hours"),
    ],
)
def test_time_of_devices_is_said_where_it_says_something(devices, seconds, says):
    flops = GPT2.flops_per_step * GPT2.config.max_steps / seconds / devices
    here = Hardware(name="here", count=devices, precision="fp32", flops=flops, memory=64 * 10**9, measured=True)
    rows = dict(forecast(GPT2, here).rows(dollars_per_hour=1e-3))
    assert rows["time in all"] == says
    assert rows["cost"].startswith("$0.02 at " if says.endswith("15.6 device hours") else "less than $0.01 at ")


def test_on_an_h100_it_is_the_share_that_was_measured_and_elsewhere_an_assumption():
    measured = json.loads((BENCHMARKS / "gpu-h100-large.json").read_text())["training"]
    found = forecast(GPT2, parse_hardware("H100"))
    assert found.seconds_per_step == pytest.approx(measured["124M"]["ms_per_step"] / 1000, rel=0.05)
    assert all(row["mfu"] == pytest.approx(found.mfu, rel=0.05) for name, row in measured.items() if "GPT" not in name)
    assert "of which 46% were measured" in dict(found.rows())["hardware"]
    assert "of which 40% are assumed" in dict(forecast(GPT2, parse_hardware("A100")).rows())["hardware"]
    assert forecast(GPT2, parse_hardware("H100"), mfu=0.3).mfu == 0.3


def test_a_measured_rate_loses_no_share():
    here = Hardware(name="here", count=1, precision="fp32", flops=1e12, memory=64 * 10**9, measured=True, cpu=True)
    assert forecast(GPT2, here, mfu=0.1).seconds_per_step == pytest.approx(GPT2.flops_per_step / 1e12)


def test_the_micro_batch_is_the_largest_divisor_that_fits():
    hardware = parse_hardware("2xT4")
    found = forecast(GPT2, hardware, mfu=0.4)
    samples, how = 524_288 // 1024 // 2, Arithmetic(half=True)
    assert samples % found.micro_batch_size == 0
    assert found.memory == training_memory(GPT2.shape, how, micro_batch_size=found.micro_batch_size)
    assert found.memory.total <= hardware.memory == int(USABLE * 16e9)
    larger = next(n for n in range(found.micro_batch_size + 1, samples + 1) if samples % n == 0)
    assert training_memory(GPT2.shape, how, micro_batch_size=larger).total > hardware.memory


def asking(size):
    config = RECIPES["gpt2-fineweb"]
    runtime = dataclasses.replace(config.runtime, micro_batch_size=size)
    return plan(dataclasses.replace(config, runtime=runtime), vocab_size=0)


def gigabytes(text):
    """The first amount that a line names."""
    amount, unit = re.search(r"([\d.]+) (GB|MB)", text).groups()
    return float(amount) * {"GB": 1, "MB": 1e-3}[unit]


@pytest.mark.parametrize(("size", "devices", "runs"), [(16, "A100", 16), ("auto", "A100", 128), (16, "64xA100", 8)])
def test_memory_by_part_is_that_of_the_run_on_this_hardware(size, devices, runs):
    rows = forecast(asking(size), parse_hardware(devices)).rows()
    need = training_memory(GPT2.shape, Arithmetic(half=True, device_memory=80 * 10**9), micro_batch_size=runs)
    (line,) = [value for name, value in rows if name.startswith("memory")]
    assert line.startswith(f"{need.total / 1e9:.2f} GB for {runs} sequences at a time: weights ")
    parts = [gigabytes(part) for part in line.split(":")[1].split(",")]
    assert sum(parts) == pytest.approx(need.total / 1e9, abs=0.02)
    assert not [value for name, value in rows if name == "to make it fit"]
    if size == "auto":
        assert f"need {gigabytes(line):.2f} GB of" in dict(rows)["fits"]


def test_a_run_that_asks_for_more_at_a_time_than_fits_is_told():
    rows = dict(forecast(asking(64), parse_hardware("T4")).rows())
    assert gigabytes(rows["memory"]) > 14.4
    assert rows["fits"].startswith("at most 16 sequences at a time per device, which need ")
    assert rows["to make it fit"] == "--runtime.micro-batch-size 16"


@pytest.mark.parametrize("preset", ["shakespeare", "gpt2-fineweb"])
def test_devices_that_cannot_share_a_step_are_told_of_one_that_they_can(preset):
    config, hardware = RECIPES[preset], parse_hardware("3xT4")
    with pytest.raises(UsageError, match=r"take another number of processes or --tokens-per-step [0-9]+$") as error:
        forecast(plan(config, vocab_size=65), hardware)
    tokens = int(str(error.value).split()[-1])
    assert forecast(plan(dataclasses.replace(config, tokens_per_step=tokens), vocab_size=65), hardware).micro_batch_size


def test_processes_that_cannot_share_micro_batches_are_told_of_smaller_ones():
    config = RECIPES["shakespeare"]
    with pytest.raises(UsageError, match=r"or --runtime.micro-batch-size 8$"):
        config.samples_per_process(2)
    runtime = dataclasses.replace(config.runtime, micro_batch_size=8)
    assert dataclasses.replace(config, runtime=runtime).micro_steps(2) == 1


def test_what_helps_is_tried_before_it_is_advised():
    tight = dataclasses.replace(parse_hardware("4xA100"), memory=int(30e9))  # 24.9 GB are fixed
    found = forecast(XL, tight, mfu=0.4)
    assert found.micro_batch_size == 0
    advice = [value for name, value in found.rows() if name == "to make it fit"]
    assert any(line.startswith("--runtime.parallel fsdp") for line in advice)
    sizes = {line.split(":")[0]: int(line.split()[-4]) for line in advice}
    for flags, size in sizes.items():
        shares = 4 if "fsdp" in flags else 1
        recompute = "recompute" in flags
        how = Arithmetic(half=True, device_memory=int(30e9 / USABLE))
        steps = {b: training_memory(XL.shape, how, micro_batch_size=b, recompute=recompute) for b in range(1, 65)}
        assert size == largest_micro_batch(steps.__getitem__, 64, tight.memory, shares=shares) > 0


def with_flags(config, line):
    """A run that follows a line of advice."""
    parallel = "fsdp" if "--runtime.parallel fsdp" in line else config.runtime.parallel
    recompute = "--runtime.recompute" in line or config.runtime.recompute
    runtime = dataclasses.replace(config.runtime, parallel=parallel, recompute=recompute)
    return dataclasses.replace(config, runtime=runtime)


def test_who_follows_the_advice_is_at_its_end():
    config, hardware = RECIPES["gpt2-xl-fineweb"], parse_hardware("8xT4")
    lines = [value for name, value in forecast(XL, hardware).rows() if name == "to make it fit"]
    assert lines == [
        "--runtime.parallel fsdp: 2 at a time",
        "--runtime.parallel fsdp --runtime.recompute: 16 at a time",
    ]
    one, both = (forecast(plan(with_flags(config, line), vocab_size=0), hardware) for line in lines)
    assert (one.micro_batch_size, both.micro_batch_size) == (2, 16)
    assert dict(one.rows())["to make it fit"] == "--runtime.micro-batch-size 2"  # the preset asks for 4
    assert "to make it fit" not in dict(both.rows())
    needs = training_memory(XL.shape, hardware.arithmetic, micro_batch_size=2)
    kept = needs.weights + needs.gradients + needs.optimizer
    assert one.memory.total == pytest.approx(needs.total - kept * 7 / 8, abs=3)
    assert one.memory.total <= hardware.memory


@pytest.mark.parametrize(
    ("part", "values", "shares"),
    [
        ("optim", {}, True),
        ("optim", {"name": "muon"}, False),
        ("lora", {"rank": 8}, False),
        ("runtime", {"compile": "on"}, False),
        ("checkpoint", {"background": "on"}, False),
    ],
)
def test_fsdp_is_advised_to_no_run_that_is_refused_with_it(part, values, shares):
    config = dataclasses.replace(RECIPES["gpt2-xl-fineweb"], init_from="gpt2-xl")
    config = dataclasses.replace(config, **{part: dataclasses.replace(getattr(config, part), **values)})
    hardware = dataclasses.replace(parse_hardware("8xT4"), memory=int(7e9))
    advice = dict(forecast(plan(config, vocab_size=0), hardware).rows())["to make it fit"]
    assert ("fsdp" in advice) == shares


def test_a_shorter_context_is_advised_with_all_that_it_was_tried_with():
    alone = with_flags(RECIPES["gpt2-xl-fineweb"], "--runtime.recompute")
    together = with_flags(alone, "--runtime.parallel fsdp")
    hardware = parse_hardware("8xT4")
    need = shared(memory_of_run(together, XL.shape, hardware.arithmetic)(1), 8)
    tight = dataclasses.replace(hardware, memory=need.total - 1)
    for config, flags in ((alone, "--runtime.parallel fsdp"), (together, "--runtime.recompute")):
        advice = dict(forecast(plan(config, vocab_size=0), tight).rows())["to make it fit"]
        assert advice == f"--model.block-size 512 with {flags}"


def test_what_nothing_helps_needs_a_smaller_model():
    found = forecast(XL, parse_hardware("T4"), mfu=0.4)
    assert dict(found.rows())["to make it fit"].startswith("a smaller model: weights, gradients and optimizer alone")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.031, "31 ms"), (4.2, "4.2 s"), (119, "119 s"), (750, "12.5 min"), (11_160, "3.1 h"), (207_360, "2.4 days")],
)
def test_durations_read_well(seconds, text):
    assert duration(seconds) == text
