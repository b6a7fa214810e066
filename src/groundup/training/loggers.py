"""Where metrics go: always to metrics.jsonl, and to TensorBoard and Weights & Biases when asked.

`metrics.jsonl` is the record; the others are views of it that may
fail (a full disk, a service that is away) without ending a run.
"""

import html
import importlib.util
import secrets
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from groundup.config.errors import UserError, first_line
from groundup.config.train import LogConfig
from groundup.files.layout import METRICS, TENSORBOARD, WANDB
from groundup.records.metrics import KEPT_STEP, Logger


class TensorBoard:
    """Event files for TensorBoard.

    Args:
        folder: Where they go.
        step: Where the run starts: what an earlier session wrote for later steps will be hidden.
    """

    def __init__(self, folder: Path, *, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=step + 1 if step else None, flush_secs=30)

    def write(self, **values: Any) -> None:
        """Numbers become scalars, samples become texts that keep their lines."""
        step = values["step"]
        for name, number in _numbers(values):
            self._writer.add_scalar(name, number, step)
        if "sample" in values:
            self._writer.add_text("sample", _sample(values), step)

    def close(self, *, failed: bool) -> None:
        """Write what is buffered."""
        self._writer.close()


class WeightsAndBiases:
    """A run of Weights & Biases.

    Args:
        folder: The run folder; files go to `wandb/` in it.
        mode: `offline` writes files for `wandb sync`, `online` also sends them.
        project: What the run is listed under.
        config: What the service shows as the run's settings.

    Raises:
        UserError: The service does not take the run.
    """

    def __init__(
        self, folder: Path, *, mode: Literal["offline", "online"], project: str, config: dict[str, Any]
    ) -> None:
        import wandb

        self._wandb = wandb
        try:
            self._run = wandb.init(
                project=project,
                name=folder.name,
                id=_identity(folder / WANDB / "groundup-id"),
                dir=str(folder),
                mode=mode,
                config=config,
                resume="allow",
                # Our terminal stays ours: no banners, and nothing that is printed is sent.
                settings=wandb.Settings(console="off", silent=True),
            )
        except wandb.Error as error:
            raise UserError(
                f"Weights & Biases: {first_line(error)}; try `wandb login`, or --log.wandb offline"
            ) from error
        self._run.define_metric("val/loss", summary="min")

    def write(self, **values: Any) -> None:
        """Log one row; of a step that an earlier session has logged already, the service keeps the first."""
        row: dict[str, Any] = dict(_numbers(values))
        if "sample" in values:
            row["sample"] = self._wandb.Html(_sample(values), inject=False)
        if row:
            self._run.log(row, step=values["step"])

    def close(self, *, failed: bool) -> None:
        """End the session; a resumed run goes on under the same id."""
        self._run.finish(exit_code=int(failed))


def _numbers(values: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """What can be drawn; `step` is the axis, and of which step kept weights are stands above what they wrote."""
    return ((k, v) for k, v in values.items() if isinstance(v, int | float) and k not in ("step", KEPT_STEP))


def _sample(values: dict[str, Any]) -> str:
    """A sample in HTML: below the step of its weights, where that is not the line's."""
    kept = values.get(KEPT_STEP)
    by = "" if kept is None else f"<p>by the weights that were kept, of step {kept:,}</p>"
    return f"{by}<pre>{html.escape(values['sample'])}</pre>"


def _identity(path: Path) -> str:
    """The id that the run has kept since its first session."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(secrets.token_hex(4), encoding="utf-8")
    return path.read_text(encoding="utf-8").strip()


class Loggers:
    """One logger of several: the record, and views of it.

    Args:
        record: What must be written.
        views: What may fail: a view that does is left out from then on.
        say: Called when that happens.
    """

    def __init__(self, record: Logger, views: Sequence[Logger], say: Callable[[str], None]) -> None:
        self._record, self._views, self._say = record, list(views), say

    def write(self, **values: Any) -> None:
        """Hand a row to each."""
        self._record.write(**values)
        for view in tuple(self._views):
            self._guard(view, partial(view.write, **values))

    def close(self, *, failed: bool) -> None:
        """Close each."""
        self._record.close(failed=failed)
        for view in tuple(self._views):
            self._guard(view, partial(view.close, failed=failed))

    def __enter__(self) -> "Loggers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(failed=kind is not None)

    def _guard(self, view: Logger, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # whatever ails a view, days of training are worth more
            self._views.remove(view)
            self._say(f"{type(view).__name__} is left out from here on ({error}); {METRICS} goes on")


def require_extras(config: LogConfig) -> None:
    """Refuse before a run begins what would fail in its middle.

    Raises:
        UserError: A package is not installed; the message names the extra.
    """
    for asked, package in ((config.tensorboard, "tensorboard"), (config.wandb != "off", "wandb")):
        if asked and importlib.util.find_spec(package) is None:
            raise UserError(f"--log.{package} needs {package}: pip install 'groundup[{package}]'")


def open_loggers(
    config: LogConfig,
    run_dir: Path,
    record: Logger,
    *,
    step: int,
    facts: dict[str, Any],
    say: Callable[[str], None],
) -> Loggers:
    """The loggers that a config asks for, around the record.

    Args:
        config: Which ones.
        run_dir: The run folder.
        record: metrics.jsonl.
        step: Where the run starts.
        facts: What run.json says; Weights & Biases shows it beside the curves.
        say: Called when one of them fails.

    Raises:
        UserError: One of them cannot begin.
    """
    views: list[Logger] = []
    try:
        if config.tensorboard:
            views.append(TensorBoard(run_dir / TENSORBOARD, step=step))
        if config.wandb != "off":
            views.append(WeightsAndBiases(run_dir, mode=config.wandb, project=config.wandb_project, config=facts))
    except BaseException:
        Loggers(record, views, say).close(failed=True)
        raise
    return Loggers(record, views, say)
