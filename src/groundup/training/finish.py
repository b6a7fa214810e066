"""The end of a whole run: the best weights to model/, the table of losses, a scene, the report, what to do next."""

import shlex
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from groundup.checkpoint.folders import RUN_STEP
from groundup.checkpoint.model_folder import save_model
from groundup.checkpoint.state import Checkpoint
from groundup.config.errors import UserError
from groundup.config.io import dump_json
from groundup.config.presets import RECIPES
from groundup.config.train import TrainConfig
from groundup.files.atomic import write_file
from groundup.files.layout import CONFIG, METRICS, MODEL, PORTRAIT, REPORT, resolved
from groundup.generation.sampling import NoNumbersError
from groundup.generation.text import TextGenerator
from groundup.inspection.portrait import MOST_TOKENS, portrait
from groundup.model.build import Transformer, build_model
from groundup.optim.build import rate_flags
from groundup.records.explain import only_worse
from groundup.records.history import is_finite
from groundup.records.measured import of_whole_split
from groundup.records.metrics import KEPT_STEP, Logger, read_metrics
from groundup.records.report import time_line, write_report
from groundup.terminal.display import clock, quote, say
from groundup.terminal.working import Working
from groundup.training.build import Run

SCENE_TOKENS = 400
"""Length of the sample at the end of a run."""


@dataclass(frozen=True, slots=True)
class Label:
    """What a model folder says of its weights, all of it from their checkpoint."""

    step: int
    val_loss: float | None
    """None where it was not measured at that step, or was not finite."""

    @classmethod
    def of(cls, checkpoint: Checkpoint, rows: list[dict[str, Any]], *, text: str) -> "Label":
        """The step of a checkpoint, and its loss: its own where it is the best, else that of the record.

        Args:
            checkpoint: Where the weights come from.
            rows: The run's metrics.
            text: What losses are measured on now; one on another text does not count.
        """
        train = checkpoint.state["train"]
        losses = [row["val/loss"] for row in rows if row["step"] == train["step"] and "val/loss" in row]
        own = train["best_step"] == train["step"] and train.get("val_text", text) == text
        loss = train["best_loss"] if own else next(reversed(losses), None)
        return cls(train["step"], loss if is_finite(loss) else None)


def finish(run: Run, config: TrainConfig, facts: dict[str, Any], *, log: Logger, prompt: str, console: Console) -> None:
    """Leave what a whole run leaves; rank 0 alone.

    Args:
        run: After its last step.
        config: The run.
        facts: What run.json says.
        log: Where the scene goes.
        prompt: What the scene continues.
        console: Where to print.

    Raises:
        UserError: No checkpoint can be read, the disk refuses, or the weights give no numbers.
    """
    with Working("choosing the best weights", console) as working:
        model, label = _keep_best(run, config, facts, console)
        working.doing("writing a last sample")
        writer, step = TextGenerator(model.eval(), run.tokenizer), run.trainer.state.step
        try:
            scene = prompt + writer.generate(prompt, max_new_tokens=SCENE_TOKENS, seed=config.seed)[0]
        except NoNumbersError as error:
            write_report(config.run_dir)
            raise UserError(
                f"no last sample, and {config.run_dir / MODEL} is of no use: {error}. Begin again with a lower"
                f" {rate_flags(run.trainer.optimizers)} or more --optim.warmup-steps; see {config.run_dir / REPORT}"
            ) from None
        # At the end of the record, whose steps never go back; the weights may be of an earlier step.
        row = {"step": step, "sample": scene} | ({} if label.step == step else {KEPT_STEP: label.step})
        if row not in read_metrics(config.run_dir / METRICS):  # else a run that had ended was resumed
            log.write(**row)
        quote(console, scene, title=f"the weights in {config.run_dir / MODEL} write:")
        working.doing("drawing report.html")
        if (seen := _portrait(run, model)) is not None:
            write_file(config.run_dir / PORTRAIT, dump_json(seen).encode())
        write_report(config.run_dir)
    state, times = run.trainer.state, time_line(read_metrics(config.run_dir / METRICS)) or ""
    say(console, f"\ntrained {state.step} steps in {clock(state.seconds)}\n{times}\n")
    say(console, f"what to try next:\n{_next_steps(config, prompt)}")


def _keep_best(run: Run, config: TrainConfig, facts: dict[str, Any], console: Console) -> tuple[Transformer, Label]:
    """Save the best weights as a model folder, and show how they do."""
    rows = of_whole_split(read_metrics(config.run_dir / METRICS))
    checkpoint = run.store.load_best(partial(say, console))
    label = Label.of(checkpoint, rows, text=run.trainer.state.val_text)
    model = build_model(run.trainer.model.config).to(run.trainer.device)
    model.load_state_dict(checkpoint.model)
    info: dict[str, Any] = {"step": label.step, RUN_STEP: run.trainer.state.step, **config.learned_from}
    if label.val_loss is not None:
        info["val_loss"] = label.val_loss
    save_model(config.run_dir / MODEL, model, run.tokenizer, info)
    console.print(_losses(run, config, facts, label))
    if warning := only_worse(rows, step=label.step, rates=rate_flags(run.trainer.optimizers)):
        say(console, warning)
    return model, label


def _portrait(run: Run, model: Transformer) -> dict[str, Any] | None:
    """How the model reads the first line of its validation text; None where it sees no second token."""
    split = run.dataset.split("val")
    idx = split.read(0, 0, min(len(split.shards[0]), MOST_TOKENS, model.config.block_size))
    return portrait(model, run.tokenizer, torch.tensor(idx, device=run.trainer.device).long()) if len(idx) > 1 else None


def _losses(run: Run, config: TrainConfig, facts: dict[str, Any], label: Label) -> Table:
    most, there = config.eval.max_tokens, run.dataset.split("val").n_tokens
    part = f"{most:,} tokens of the split" if 0 < most < there else "the whole split"
    table = Table(title=f"validation loss, nats per token ({part})", title_justify="left")
    table.add_column("model")
    table.add_column("parameters", justify="right")
    table.add_column("loss", justify="right")
    if facts["bigram_loss"] is not None:
        table.add_row("bigram", f"{run.tokenizer.vocab_size**2:,}", f"{facts['bigram_loss']:.4f}")
    loss = "none" if label.val_loss is None else f"{label.val_loss:.4f}"
    table.add_row(f"GPT, step {label.step}", f"{facts['parameters']:,}", loss)
    return table


def _next_steps(config: TrainConfig, prompt: str) -> str:
    """Commands that fit this run, to be copied."""
    run_dir = shlex.quote(str(config.run_dir))
    # Generation begins a document, or a line, unless told otherwise; not every tokenizer knows either.
    speaker = '"JULIET:"' if prompt.startswith("ROMEO") else shlex.quote(prompt)
    begin = "" if prompt in ("", "\n") else f"--prompt {speaker} "
    if config == RECIPES.get(config.name):
        more = f"{config.name} --model.n-layer {config.model.n_layer + 2}"
    else:
        more = f"--config {shlex.quote(str(config.run_dir / CONFIG))} --name longer"
    return "\n".join(
        [
            f"  open {resolved(config.run_dir / REPORT).as_uri()} in a browser",
            f"  groundup generate {run_dir} {begin}--temperature 0.8 --stream",
            f"  groundup generate {run_dir} --interactive",
            f"  groundup runs list {shlex.quote(str(config.out_dir))}",
            f"  groundup train {more} --max-steps {2 * config.max_steps}",
            "  groundup doctor",
            f"  groundup serve {run_dir}",
        ]
    )
