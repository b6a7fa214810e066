"""What a run was and what came of it, as the words and numbers of a table."""

from typing import Any

from groundup.records.history import MISSING, RunHistory, differences, is_finite, last_row, median_mfu
from groundup.terminal.display import clock, quantity


def run_facts(run: RunHistory) -> dict[str, str]:
    """What a run was and what came of it, as text."""
    shape, last, best = run.shape, run.last, run.best
    mfu = median_mfu(run.rows)
    return {
        "state": run.state,
        "model": f"{shape.n_layer}L {shape.n_head}H {shape.n_embd}C {shape.block_size}T" if shape else MISSING,
        "parameters": _quantity(run.facts.get("parameters")),
        "steps": _steps(run),
        "tokens": _quantity(last.get("tokens")),
        "best val loss": f"{best['val/loss']:.4f} at {best['step']:,}" if best else _early(run.latest_look),
        "last val loss": number(last_row(run.rows, run.config).get("val/loss")),
        "bits per byte": number(best.get("val/bpb")),
        "training time": clock(last["seconds"]) if is_finite(last.get("seconds")) else MISSING,
        "tokens/s": _quantity(run.tokens_per_sec),
        "MFU": MISSING if mfu is None else f"{mfu:.1%}",
    }


def settings_that_differ(configs: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Dotted keys that differ; that runs have different names is no news."""
    return {key: row for key, row in differences(configs).items() if key not in ("name", "out_dir")}


def machine_of(run: RunHistory) -> dict[str, Any]:
    """What computed a run, and from which data."""
    return {key: run.facts[key] for key in ("groundup", "machine", "resolved", "data_fingerprint") if key in run.facts}


def _early(look: dict[str, Any]) -> str:
    """What is known of a run that has not come to a validation of the whole split."""
    if not look:
        return MISSING
    return f"about {look['val/loss']:.2f} at {look['step']:,}, from {look['val/tokens']:,} tokens"


def _steps(run: RunHistory) -> str:
    """Steps made, and of how many, where some are missing."""
    step = run.last.get("step")
    if step is None:
        return MISSING
    return f"{step:,}" if run.max_steps in (None, step) else f"{step:,}/{run.max_steps:,}"


def number(value: Any) -> str:
    """Four decimals, or that there is no such value."""
    return f"{value:.4f}" if is_finite(value) else MISSING


def _quantity(value: Any) -> str:
    return quantity(value) if is_finite(value) else MISSING
