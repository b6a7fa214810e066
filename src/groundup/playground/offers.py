"""What the page knows before it asks: models, their steps and vocabularies, the runs beside them, the slots."""

import asyncio
from collections.abc import Hashable
from contextlib import suppress
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from groundup import __version__
from groundup.config.errors import UserError
from groundup.files.layout import CONFIG, METRICS, MODEL, RUN, resolved
from groundup.files.lock import is_held
from groundup.playground.analysis import MAX_TOKENS
from groundup.records.history import RunHistory, find_runs, is_finite, of_curve, read_run, samples
from groundup.serving.app import Server
from groundup.serving.errors import invalid, shown
from groundup.tokenizer.base import Tokenizer
from groundup.tokenizer.char import CharTokenizer

FIRST_TEXT = "ROMEO:\nO, "
"""What the page begins with."""


class Offers:
    """Handlers.

    Args:
        server: Whose models are offered.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self._lines: dict[Path, tuple[Hashable, dict[str, Any]]] = {}
        """What was told of each run, and what it stood on."""

    async def facts(self, request: Request) -> Response:
        """Version and models, for the page's head; with `model`, also that run or kept step, which is loaded."""
        offered = {served.id: served for served in self.server.models}
        if (name := request.query_params.get("model")) is not None:
            offered[name] = await self.server.models.find(name)
        models = [
            {
                "id": name,
                "vocab_size": served.loaded.config.vocab_size,
                "context": served.context,
                "end": served.loaded.tokenizer.eot_id,
                "n_layer": getattr(served.loaded.config, "n_layer", 0),
                "n_head": getattr(served.loaded.config, "n_head", 0),
                "n_embd": getattr(served.loaded.config, "n_embd", 0),
                "info": served.loaded.info,
                "first_text": first_text(served.loaded.tokenizer),
            }
            for name, served in offered.items()
        ]
        return JSONResponse({"version": __version__, "models": models, "max_tokens": MAX_TOKENS})

    async def vocabulary(self, request: Request) -> Response:
        """The text of every id."""
        served = await self.server.models.find(request.query_params.get("model"))
        return JSONResponse({"tokens": await asyncio.to_thread(lambda: served.vocabulary)})

    async def steps(self, request: Request) -> Response:
        """The steps of a model's run that weights were kept of: step 64 of `shakespeare` is `shakespeare@64`."""
        name = self._name(request)
        if await asyncio.to_thread(self.server.models.run_folder, name) is None:
            await self.server.models.find(name)  # 404 where there is no such model, either
        steps = await asyncio.to_thread(self.server.models.steps, name)
        return JSONResponse({"model": name, "steps": list(steps), "ids": [f"{name}@{step}" for step in steps]})

    async def runs(self, _request: Request) -> Response:
        """The runs in the folder of the first served run, each with how far it is."""
        folder = self.server.models.runs_folder
        return JSONResponse({"runs": [] if folder is None else await asyncio.to_thread(self._look, folder)})

    def _look(self, folder: Path) -> list[dict[str, Any]]:
        """Of each run in a folder a line. Only what changed is read: long runs have many lines, and views ask often."""
        lines = {}
        for path in find_runs(folder):
            stands_on = _stands_on(path)
            with suppress(UserError):  # a run that cannot be read is left out
                known = self._lines.get(path)
                lines[path] = known if known and known[0] == stands_on else (stands_on, _line(read_run(path)))
        self._lines = lines
        return [line for _, line in lines.values()]

    async def run(self, request: Request) -> Response:
        """Curves and samples of a run, by its name or by the id of its model; empty where the model lies in none."""
        name = self._name(request)
        folder = await asyncio.to_thread(self.server.models.run_folder, name)
        if folder is None:
            await self.server.models.find(name)  # 404 where there is no such model, either
            return JSONResponse({"state": "", "bigram": None, "train": [], "val": [], "samples": []})
        history = await asyncio.to_thread(read_run, folder)

        def column(key: str) -> list[tuple[int, Any]]:
            return [(row["step"], row[key]) for row in of_curve(history.rows) if key in row and "step" in row]

        return JSONResponse(
            {
                **_line(history),
                "bigram": history.facts.get("bigram_loss"),
                "train": [pair for pair in column("train/loss") if is_finite(pair[1])],
                "val": [pair for pair in column("val/loss") if is_finite(pair[1])],
                "samples": [(sample.step, sample.text) for sample in samples(history.rows)],
            }
        )

    async def slots(self, request: Request) -> Response:
        """What each slot of a model read in the last ticks: those after the number `after`.

        A round is [number, start in seconds, its seconds, lanes]; a lane is [slot, request, choice, position, tokens].
        """
        served = await self.server.models.find(request.query_params.get("model"))
        after = request.query_params.get("after", "0")
        if not (after.isascii() and after.isdecimal() and len(after) < 19):
            raise invalid("after", f"after: the number of a round, got {shown(after)}")
        rounds = [
            [
                tick.number,
                round(tick.start, 6),
                round(tick.seconds, 6),
                [[lane.slot, lane.request, lane.choice, lane.start, lane.n_read] for lane in tick.lanes],
            ]
            for tick in self.server.loop.rounds.copy()
            if tick.engine() is served.engine and tick.number > int(after)
        ]
        return JSONResponse({"n_slots": served.engine.n_slots, "waiting": served.engine.n_waiting, "rounds": rounds})

    def _name(self, request: Request) -> str:
        """Of a run or model; the first one where none is given."""
        name = request.query_params.get("model")
        return next(iter(self.server.models)).id if name is None else name


def routes(server: Server) -> list[Route]:
    """The paths below /api that are asked without a text."""
    offers = Offers(server)
    handlers = (offers.facts, offers.vocabulary, offers.steps, offers.runs, offers.run, offers.slots)
    return [Route(f"/api/{handler.__name__}", handler) for handler in handlers]


def first_text(tokenizer: Tokenizer) -> str:
    """FIRST_TEXT as a model can spell it; the first letters of its alphabet where it lacks letters of that."""
    if not isinstance(tokenizer, CharTokenizer):
        return FIRST_TEXT
    symbols = set(tokenizer.symbols)
    for text in (FIRST_TEXT, FIRST_TEXT.lower()):
        if symbols.issuperset(symbol for symbol in text if symbol.isalpha()):
            return "".join(symbol for symbol in text if symbol in symbols)
    letters = [symbol for symbol in tokenizer.symbols if symbol.isalpha()]
    return "".join((letters or tokenizer.symbols)[:8])


def _stands_on(run: Path) -> Hashable:
    """What a line of a run is made from: when it is as before, so is the line."""
    found: list[Hashable] = [is_held(resolved(run))]
    for name in (CONFIG, RUN, METRICS, MODEL):
        with suppress(OSError):
            stat = (run / name).stat()
            found.append((name, stat.st_ino, stat.st_size, stat.st_mtime_ns))
    return tuple(found)


def _line(history: RunHistory) -> dict[str, Any]:
    """One run in a list."""
    loss = history.best.get("val/loss")
    return {
        "name": history.name,
        "state": history.state,
        "started": started if isinstance(started := history.facts.get("started"), str) else None,
        "step": history.last.get("step"),
        "max_steps": history.max_steps,
        "val_loss": loss if is_finite(loss) else None,
    }
