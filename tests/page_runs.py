"""Runs that the tests of the page look at, and a server of them."""

import contextlib
import json
import socket
import threading

import torch
import uvicorn

from groundup.checkpoint.model_folder import save_model
from groundup.config.model import GPTConfig
from groundup.model.gpt import GPT
from groundup.model.init import init_weights
from groundup.playground.start import page_api
from groundup.playground.trainings import Trainings
from groundup.serving.access import Access
from groundup.serving.app import Server, build_app
from groundup.serving.loop import EngineLoop
from groundup.serving.models import Models
from groundup.serving.page import page_files, page_routes
from groundup.tokenizer.char import CharTokenizer

TOKENIZER = CharTokenizer("\n abcdefghijklmnopqrstuvwxy")
TEXT = "hello world"
STEPS = (0, 1, 2, 4)
TABS = ("write", "surprise", "attention", "lens", "heads", "growth", "compare", "push", "tokens", "slots", "training")


def model_of(step: int) -> GPT:
    """Weights that differ from step to step, large enough for heads to look somewhere."""
    model = init_weights(GPT(GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=32, vocab_size=27)), seed=step)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    return model.eval()


def write_runs(folder):
    """Two runs, one of them with several kept steps."""
    for name, steps in (("mine", STEPS), ("other", (3,))):
        run = folder / name
        for step in steps:
            save_model(run / "growth" / f"step-{step:07d}", model_of(step), TOKENIZER, {"step": step})
        save_model(run / "model", model_of(steps[-1]), TOKENIZER, {"step": steps[-1]})
        rows = [{"step": s, "tokens": s + 1, "train/loss": 3 - s / 2, "val/loss": 3.1 - s / 2} for s in steps]
        rows += [{"step": step, "sample": f"{name} says <b>{step}</b>"} for step in steps]
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (run / "run.json").write_text('{"bigram_loss": 2.5}')
        (run / "config.json").write_text(f'{{"max_steps": {steps[-1]}}}')


@contextlib.contextmanager
def served_page(path, key=None):
    """The address of a server of a run, in a thread."""
    listener = socket.create_server(("127.0.0.1", 0))
    host = f"127.0.0.1:{listener.getsockname()[1]}"
    loop, files = EngineLoop(), page_files()
    shared = Server(Models([path]), loop)
    training = Trainings(shared)
    access = Access(hosts=frozenset({host}), key=key, page_paths=frozenset(files))
    app = build_app(shared, access, more=[*page_api(shared, training), *page_routes(files)])
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    yield f"http://{host}/"
    server.should_exit = True
    thread.join(10)
    loop.close()
    training.close()


def texts(locator):
    """Of elements that stay where they are; `cells` for a table that is drawn again while it is read."""
    return [each.strip() for each in locator.all_inner_texts()]


def cells(table):
    """What stands in the cells of a table, row by row, all at one moment.

    `all_inner_texts` of rows first finds them and then reads them. A row that left the page in between has no layout
    any more, and its innerText has no tabs.
    """
    return table.evaluate(
        "table => [...table.tBodies[0].rows].map((row) => [...row.cells].map((cell) => cell.textContent.trim()))"
    )


def wait_for_names(page):
    """Until tokens are shown by their texts; before the vocabulary has come, they are shown by numbers, as #5."""
    page.wait_for_function(
        """() => {
          const shown = [...document.querySelectorAll(".token")].map((each) => each.textContent);
          return shown.length > 0 && !shown.some((each) => /^#\\d/.test(each));
        }"""
    )


def probability(written: str) -> float:
    """A probability as the page writes it, as a number."""
    if written.startswith("1 in 10^"):
        return 10 ** -float(written[8:])
    return 1 / float(written[5:].replace(",", "")) if written.startswith("1 in ") else float(written.strip("> %")) / 100
