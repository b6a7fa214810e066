"""groundup export DIR OUT: write a model for another program."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from groundup.config.errors import UsageError
from groundup.export.formats import ExportFormat
from groundup.files.new import refuse_existing, refuse_unwritable
from groundup.records.models_here import check_model, missing_model
from groundup.terminal.parse import parse
from groundup.terminal.say import say


@dataclass(frozen=True, kw_only=True)
class Options:
    """Write a trained model in the format of another program, with a model card."""

    path: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """A run, checkpoint or model folder."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """The folder to make."""
    format: ExportFormat = "hf"
    """groundup: a model folder like DIR's; hf: transformers; gguf: llama.cpp; onnx: onnxruntime; ct2: CTranslate2."""
    weights: Literal["saved", "fp32", "fp16", "bf16", "int8"] = "saved"
    """For --format groundup: bits per weight. int8 is for `generate`, `eval`, `serve` alone; saved changes nothing."""
    push_to_hub: str | None = None
    """Upload the folder to this model repository, OWNER/NAME, of the Hugging Face hub; it is made if need be."""

    def __post_init__(self) -> None:
        """Refuse a wrong name before there is anything to upload, and weights that a format does not have."""
        if self.weights != "saved" and self.format != "groundup":
            raise UsageError(f"--weights is for --format groundup, got {self.weights} for {self.format}")
        if self.push_to_hub is not None and self.push_to_hub.count("/") != 1:
            raise UsageError(f"push-to-hub must be OWNER/NAME, got {self.push_to_hub!r}")


def main(argv: Sequence[str]) -> int:
    """Export, and upload where a flag says so."""
    options = parse(Options, argv, prog="groundup export", missing={"DIR": lambda: missing_model("export", "OUT")})
    check_model(options.path)
    refuse_existing(options.out)
    refuse_unwritable(options.out, folder=True)

    from groundup.terminal.working import Working

    with Working("loading PyTorch") as working:
        from groundup.checkpoint.folders import find_model
        from groundup.export.export_model import export_model
        from groundup.records.results import result_line, results_of

        working.doing(f"writing {options.out}")
        scores = {task: result_line(result) for task, result in results_of(find_model(options.path)).items()}
        weights = None if options.weights == "saved" else options.weights
        export_model(options.path, options.out, options.format, weights=weights, scores=scores)
    for file in sorted(options.out.iterdir()):
        say(f"{file}  {file.stat().st_size:,} bytes")
    if options.push_to_hub is not None:
        from groundup.interop.hub import push

        say(push(options.out, options.push_to_hub))
    return 0
