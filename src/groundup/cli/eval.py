"""groundup eval DIR: measure a trained model."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from glob import has_magic
from pathlib import Path
from typing import Annotated, Literal

import tyro

from groundup.config.data import ReadConfig
from groundup.config.errors import UsageError, UserError
from groundup.config.train import DeviceChoice
from groundup.corpora.patterns import nothing_there
from groundup.files.layout import RUN
from groundup.records.models_here import check_model, missing_model
from groundup.records.results import TASKS, add_results, is_diverged, read_results, result_line
from groundup.terminal.parse import parse
from groundup.terminal.say import say, warn
from groundup.terminal.waiting import before_torch


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measure a trained model, and write what comes out into eval.json beside it."""

    path: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """A run, checkpoint or model folder."""
    tasks: str = "val"
    """By commas: val, hellaswag, lambada, wikitext, .jsonl of examples (all choices, or all completions), texts."""
    stride: int = 0
    """For text: tokens between windows, each a context long; 0 is half the context, smaller is slower and better."""
    reading: Annotated[ReadConfig, tyro.conf.arg(name="")] = field(default_factory=ReadConfig)
    limit: int = 0
    """Measure on the first so many examples of each task (val: blocks of a context; wikitext: pages); 0 is all."""
    batch_tokens: int = 0
    """Tokens per forward pass; 0 takes what suits the device."""
    data: Path | None = None
    """For val: prepared data, not the run's own; for the others: where their files are or go (data/ unless given)."""
    device: DeviceChoice = "auto"
    """Where to compute; auto takes a GPU where there is one."""
    weights: Literal["saved", "fp32", "fp16", "bf16", "int8", "auto"] = "saved"
    """Bits per weight, as `generate` has them; saved is as the model has them, auto the fastest here."""

    def __post_init__(self) -> None:
        """Refuse what has no meaning before a model is loaded."""
        for flag, value in (("limit", self.limit), ("batch-tokens", self.batch_tokens), ("stride", self.stride)):
            if value < 0:
                raise UsageError(f"{flag} must be 0 or more, got {value}")

    @property
    def names(self) -> list[str]:
        """The tasks, each once."""
        return list(dict.fromkeys(name.strip() for name in self.tasks.split(",")))


def main(argv: Sequence[str]) -> int:
    """Measure task by task; each is written down as soon as it is done."""
    options = parse(Options, argv, prog="groundup eval", missing={"DIR": lambda: missing_model("eval")})
    for name in options.names:
        if name not in TASKS and not (has_magic(name) or (name and Path(name).exists())):
            known = f"unknown task {name!r}; the tasks are {', '.join(TASKS)}, .jsonl examples, and files of text"
            raise nothing_there(name, "name a file, folder or glob of text, or .jsonl examples", no_name=known)
    check_model(options.path)

    from groundup.records.report import write_report
    from groundup.terminal.working import Working

    before_torch(options.device)
    with Working("loading PyTorch") as working:
        from groundup.checkpoint.model_folder import load_model
        from groundup.evaluation.scoring import BATCH_TOKENS
        from groundup.evaluation.tasks import How, run_task
        from groundup.runtime.allocator import keep_freed_memory
        from groundup.runtime.device import pick_device
        from groundup.runtime.threads import FollowCores

        device = pick_device(options.device)
        working.doing(f"loading {options.path}")
        rows = options.batch_tokens or BATCH_TOKENS[device.type]
        loaded = load_model(options.path, device=device, rows=rows, weights=options.weights, say=warn)
        read_results(options.path)  # a damaged file is better known before the work than after
        if device.type == "cpu":
            keep_freed_memory()
        how = How(
            data=options.data,
            limit=options.limit,
            batch_tokens=options.batch_tokens,
            stride=options.stride,
            reading=options.reading,
            progress=FollowCores().before(working.share),
            say=warn,
        )
        code = 0
        for name in options.names:
            working.doing(f"measuring {name}")
            result = run_task(name, loaded, options.path, how)
            try:
                add_results(options.path, {name: result}, options.names)
            except UserError as error:  # what took hours is not lost where it cannot be written
                warn(str(error))
                code = 1
            if not is_diverged(result):
                say(f"{name}: {result_line(result)}")
    if (options.path / RUN).is_file() and not code:
        write_report(options.path)
    return code
