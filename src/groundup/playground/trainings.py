"""Start a small run from the page, watch it, stop it: `groundup train` as a process of its own, one at a time.

A request chooses from tables and bounds; it never names a path or a flag. The run lies beside the one that is served,
under a name that the server gives. A stop is a SIGTERM, as from a terminal: the run saves and can go on later.
"""

import asyncio
import glob
import itertools
import os
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Annotated, Any, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from groundup.config.io import load_object
from groundup.config.presets import RECIPES
from groundup.files.layout import CONFIG
from groundup.files.processes import end_with_parent
from groundup.records.history import flatten
from groundup.serving.app import Server
from groundup.serving.bodies import Body, read_body
from groundup.serving.errors import RequestError
from groundup.terminal.ended import killed_by
from groundup.terminal.waiting import without_our_rounds

SIZES: dict[str, tuple[int, int, int]] = {"tiny": (2, 2, 64), "small": (3, 3, 96), "demo": (4, 4, 128)}
"""Layers, heads and width."""
STOPPED = (129, 130, 143)
"""Exit codes of a run that took a signal for a request to stop; one that a signal killed has a negative one."""
GRACE = 25.0
"""Seconds that a run has to save itself when the server ends."""


class StartBody(Body):
    """POST /api/train."""

    recipe: Literal["shakespeare", "same"] = "shakespeare"
    """The plays, or text and settings of the first served run; from random weights, whatever that one began with."""
    size: Literal["tiny", "small", "demo"] = "small"
    steps: Annotated[int, Field(ge=10, le=5000)] = 500
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1337


class StopBody(Body):
    """POST /api/train/stop: nothing to say."""


@dataclass
class _Training:
    """A process that trains."""

    name: str
    process: "subprocess.Popen[bytes]"
    errors: IO[bytes]
    stopping: bool = field(default=False)

    def facts(self) -> dict[str, Any]:
        """What the page shows of it."""
        exit_code = self.process.poll()
        if exit_code is None:
            state = "stopping" if self.stopping else "running"
        else:
            state = "finished" if exit_code == 0 else "stopped" if exit_code in STOPPED else "failed"
        said = self._why() if state == "failed" else None
        return {"name": self.name, "state": state, "exit_code": exit_code, "said": said}

    def _why(self) -> str | None:
        """Why it failed: what it said last, unless it was killed and could say nothing."""
        code = self.process.returncode
        if code < 0:
            return killed_by(code)
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").splitlines()
        return lines[-1] if lines else None


class Trainings:
    """Handlers, and the run that was started last.

    Args:
        server: Beside whose first run new ones are put.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self._last: _Training | None = None
        self._starting = asyncio.Lock()

    async def show(self, _request: Request) -> Response:
        """What can be started, and what became of what was."""
        sizes = {name: dict(zip(("n_layer", "n_head", "n_embd"), shape, strict=True)) for name, shape in SIZES.items()}
        return JSONResponse(
            {
                "possible": self.server.models.runs_folder is not None,
                "sizes": sizes,
                "training": None if self._last is None else self._last.facts(),
            }
        )

    async def start(self, request: Request) -> Response:
        """Begin a run.

        Raises:
            RequestError: 409 while one goes on; 400 where no run is served, which says where runs lie.
        """
        body = await read_body(request, StartBody)
        async with self._starting:
            if self._last is not None and self._last.process.poll() is None:
                message = f"{self._last.name} is being trained; stop it first, or wait"
                raise RequestError(409, message, code="already_training", headers={"x-should-retry": "false"})
            served = next((served for served in self.server.models if served.run), None)
            if served is None or served.run is None:
                raise RequestError(400, "runs are started beside a served run, and none is served", code="no_runs")
            folder = served.run.parent
            words = _command(body, folder, served.run)
            # Not by another thread: Linux takes the death of the thread that started a process for that of its parent.
            self._last = _begin(_free_name(folder), words)
            return JSONResponse(self._last.facts(), 201)

    async def stop(self, request: Request) -> Response:
        """End the run after the step it is in; it saves first.

        Raises:
            RequestError: 409 where none goes on.
        """
        await read_body(request, StopBody)
        if self._last is None or self._last.process.poll() is not None:
            again = {"x-should-retry": "false"}
            raise RequestError(409, "nothing is being trained", code="not_training", headers=again)
        self._last.stopping = True
        self._last.process.terminate()
        return JSONResponse(self._last.facts())

    def close(self) -> None:
        """End a run that goes on: it saves, unless that takes longer than GRACE."""
        if self._last is None:
            return
        process = self._last.process
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._last.errors.close()

    def routes(self) -> list[Route]:
        """The paths below /api/train."""
        return [
            Route("/api/train", self.show),
            Route("/api/train", self.start, methods=["POST"]),
            Route("/api/train/stop", self.stop, methods=["POST"]),
        ]


def _command(body: StartBody, folder: Path, run: Path) -> list[str]:
    n_layer, n_head, n_embd = SIZES[body.size]
    every = max(1, body.steps // 10)
    begin = _as_in(run) if body.recipe == "same" else [RECIPES["shakespeare"].name]
    return [
        *begin,
        f"--out-dir={folder}",
        f"--max-steps={body.steps}",
        f"--seed={body.seed}",
        f"--model.n-layer={n_layer}",
        f"--model.n-head={n_head}",
        f"--model.n-embd={n_embd}",
        f"--optim.warmup-steps={min(50, body.steps // 5)}",
        f"--eval.every={every}",
        f"--eval.sample-every={every}",
        f"--checkpoint.every={every}",
        "--checkpoint.growth",
    ]


def _as_in(run: Path) -> list[str]:
    """Text and settings of a run, without what fits its own shape alone."""
    words, had = ["--config", str(run / CONFIG)], flatten(load_object(run / CONFIG))
    if had.get("init_from"):  # random weights bear the rate of random weights
        words += ["--init-from=None", "--lora.rank=0", f"--optim.lr={RECIPES['shakespeare'].optim.lr}"]
    words += [f"--model.{name}=0" for name in ("n_kv_head", "n_inner") if had.get(f"model.{name}")]
    home = _begun_in(run, had)
    if home is not None and home != Path.cwd():
        for flag in ("data.path", "data.tokenizer"):
            value = str(had.get(flag) or "")
            if value not in ("char", "gpt2") and _is_there(value, home):
                place = home if (home / value).exists() else Path(glob.escape(str(home)))  # no part of a glob
                words.append(f"--{flag}={place / value}")
    return words


def _begun_in(run: Path, config: dict[str, Any]) -> Path | None:
    """The folder that the paths of a run's config are seen from, which its place tells."""
    below = Path(str(config.get("out_dir", "runs")), str(config.get("name", "")))
    home = Path(*run.resolve().parts[: -len(below.parts)])
    return home if home / below == run.resolve() and not below.is_absolute() else None


def _is_there(path: str, folder: Path) -> bool:
    """Whether a path or glob that is seen from a folder leads to something."""
    return next(glob.iglob(path, root_dir=folder, recursive=True), None) is not None  # noqa: PTH207


def _free_name(folder: Path) -> str:
    return next(name for name in (f"page-{i}" for i in itertools.count(1)) if not (folder / name).exists())


def _begin(name: str, words: list[str]) -> _Training:
    from groundup.terminal.python import fresh_python

    errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the server
    words = ["-m", "groundup", "train", *words, f"--name={name}"]
    command, environment = fresh_python(*words, environ=without_our_rounds(os.environ))
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=errors,
        env=environment,
        start_new_session=True,  # Ctrl-C is for the server, which then asks the run to end
        preexec_fn=end_with_parent,  # should the server be killed, the run saves and ends, too
    )
    return _Training(name, process, errors)
