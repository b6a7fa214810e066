import json
import re
from urllib.parse import quote

import pytest
import torch
from starlette.testclient import TestClient

import needs
from groundup.checkpoint.model_folder import save_model
from groundup.playground.start import page_api
from groundup.playground.trainings import Trainings
from groundup.serving.access import Access
from groundup.serving.app import Server, build_app
from groundup.serving.loop import EngineLoop
from groundup.serving.models import Models
from page_runs import TEXT, served_page, write_runs

HOST = "127.0.0.1:8000"


@pytest.fixture
def folder(tmp_path, tiny_model, alphabet):
    path = tmp_path / "tiny"
    save_model(path, tiny_model, alphabet, {"step": 3})
    return path


@pytest.fixture
def models(folder):
    return Models([folder])


@pytest.fixture
def served(models):
    return next(iter(models))


@pytest.fixture
def loop():
    loop = EngineLoop()
    yield loop
    loop.close()


@pytest.fixture
def serve(loop):
    """A client of a server with these models."""
    running = []

    def begin(models, *, key=None):
        server = Server(models, loop)
        trainings = Trainings(server)
        access = Access(hosts=frozenset({HOST}), key=key, page_paths=frozenset({"/"}))
        app = build_app(server, access, more=page_api(server, trainings))
        client = TestClient(app, base_url=f"http://{HOST}", raise_server_exceptions=False)
        running.append((client, trainings))
        return client.__enter__()

    yield begin
    for client, trainings in running:
        client.__exit__(None, None, None)
        trainings.close()


@pytest.fixture
def client(models, serve):
    return serve(models)


def save_step(run, kind, step, model, tokenizer):
    with torch.no_grad():
        model.ln_f.bias.fill_(step / 10)
    save_model(run / kind / f"step-{step:07d}", model, tokenizer, {"step": step})


@pytest.fixture
def run(tmp_path, tiny_model, alphabet):
    """A run with weights of steps 0, 1, 2, 4, 8 and a checkpoint of step 9, and another run beside it."""
    run = tmp_path / "runs" / "mine"
    for step in (0, 1, 2, 4, 8):
        save_step(run, "growth", step, tiny_model, alphabet)
    save_step(run, "checkpoints", 9, tiny_model, alphabet)
    save_model(run / "model", tiny_model, alphabet, {"step": 9})
    rows = [{"step": 1, "train/loss": 3.0, "tokens": 5}, {"step": 9, "val/loss": 2.0, "tokens": 50}, {"sample": "x"}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run / "run.json").write_text('{"bigram_loss": 2.5}')
    (run / "config.json").write_text('{"max_steps": 20}')
    other = run.parent / "other"
    save_step(other, "checkpoints", 3, tiny_model, alphabet)
    (other / "run.json").write_text("{}")
    (run.parent / "no run").mkdir()
    return run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs that the page is opened over."""
    folder = tmp_path_factory.mktemp("runs")
    write_runs(folder)
    return folder


@pytest.fixture(scope="module")
def url(runs):
    with served_page(runs / "mine") as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    with needs.browser() as browser:
        yield browser


@pytest.fixture
def open_page(browser, url):
    """Open the page at a view; any error of a script fails the test. No answer, or one that refuses, is none.

    Whoever ends a server closes its page before: it may be asking for something still.
    """
    pages = []

    def begin(width=1280, scheme="light", server=url, motion="no-preference", **state):
        page = browser.new_page(
            viewport={"width": width, "height": 900},
            color_scheme=scheme,
            reduced_motion=motion,
            permissions=["clipboard-read", "clipboard-write"],
        )
        errors = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        no_error = re.compile("status of 4|net::ERR_FAILED")
        page.on(
            "console", lambda told: told.type == "error" and not no_error.search(told.text) and errors.append(told.text)
        )
        pages.append((page, errors))
        words = {"text": TEXT, "seed": 1} | state
        page.goto(
            server + "#" + "&".join(f"{name}={quote(str(value))}" for name, value in words.items() if value is not None)
        )
        page.wait_for_selector("nav")
        return page

    yield begin
    for page, errors in pages:
        page.close()
        assert errors == []
