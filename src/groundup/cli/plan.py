"""groundup plan PRESET: a run on paper, and on hardware that is named."""

import math
import re
from collections.abc import Sequence
from dataclasses import replace

from groundup.cli.train import read_request
from groundup.config.errors import UsageError
from groundup.planner.forecast import forecast, parse_hardware
from groundup.terminal.tables import facts, print_table
from groundup.terminal.waiting import before_torch
from groundup.terminal.words import split_equals, take_value

OWN_FLAGS = ("--hardware", "--tokens", "--mfu", "--dollars-per-hour")
UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
MOST_TOKENS = 10**18
"""A million times what anybody has trained on."""

USAGE = """usage: groundup plan PRESET [options] [flags of groundup train]
       groundup plan --config FILE [options] [flags of groundup train]

Parameters, FLOPs, memory, time and cost of a run, before anything is computed.

  --hardware WHAT       a device and how many of it (2xT4, A100, 8xH100, RTX 4090, M3), or here: measured (default)
  --tokens N            train on so many tokens (300M, 10B) instead of the preset's
  --mfu SHARE           share of the data sheet's rate that training reaches (default 0.4, for an H100 the measured
                        0.46); not used for here
  --dollars-per-hour D  price of a device hour, for the cost"""


def main(argv: Sequence[str]) -> int:
    """Print a plan."""
    words = split_equals(list(argv), *OWN_FLAGS)
    where = take_value(words, "--hardware") or "here"
    tokens = take_value(words, "--tokens")
    if tokens is not None and {"--max-steps", "--max_steps"} & {word.partition("=")[0] for word in words}:
        raise UsageError("--tokens and --max-steps both say how long the run is: give one of them")
    share = take_value(words, "--mfu")
    price = take_value(words, "--dollars-per-hour")
    run = [word for word in words if word not in ("-h", "--help")]
    if len(run) < len(words) or not argv:
        print(USAGE)
        if run:
            print()
            read_request([*run, "--help"], also=OWN_FLAGS)  # prints the flags, and leaves
        return 0
    mfu = None if share is None else _number("--mfu", share, least=1e-3, most=1.0)
    dollars = None if price is None else _number("--dollars-per-hour", price, least=1e-3, most=1e6)
    named = None if where == "here" else parse_hardware(where)
    config = read_request(words, also=OWN_FLAGS).config
    if tokens is not None:
        config = replace(config, max_steps=max(1, math.ceil(_quantity(tokens) / config.tokens_per_step)))

    from groundup.planner.plan import plan
    from groundup.prepare.vocabulary import known_vocabulary

    vocab_size, assumed = known_vocabulary(config)
    paper = plan(config, vocab_size=vocab_size, assumed=assumed)
    if named is None:
        from groundup.terminal.working import Working

        before_torch(config.runtime.device, fewer=not config.runtime.threads)
        with Working("loading PyTorch") as working:
            from groundup.contestants.ours import this_machine

            working.doing("timing some steps on this machine")
            named = this_machine(config, paper.shape)
    found = forecast(paper, named, mfu=mfu)
    print_table(facts(found.rows(dollars_per_hour=dollars)))
    return 0


def _quantity(text: str) -> int:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([KMBT]?)", text, re.IGNORECASE)
    n = float(match[1]) * UNITS[match[2].upper()] if match else 0.0
    if not 0 < n < MOST_TOKENS:
        raise UsageError(f"--tokens must be a number such as 300M or 10B, got {text!r}")
    return round(n)


def _number(flag: str, text: str, *, least: float, most: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not least <= value <= most:
        raise UsageError(f"{flag} must be a number from {least:,g} to {most:,g}, got {text!r}")
    return value
