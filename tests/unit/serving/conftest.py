import pytest
from starlette.testclient import TestClient

from groundup.checkpoint.model_folder import save_model
from groundup.serving.access import Access
from groundup.serving.app import build_app
from groundup.serving.looking import routes
from groundup.serving.loop import EngineLoop
from groundup.serving.models import open_models

HOST = "127.0.0.1:8000"


@pytest.fixture
def folder(tmp_path, tiny_model, alphabet):
    path = tmp_path / "tiny"
    save_model(path, tiny_model, alphabet, {"step": 3})
    return path


@pytest.fixture
def models(folder):
    return open_models([folder])


@pytest.fixture
def loop(models):
    loop = EngineLoop({served.id: served.engine for served in models.values()})
    yield loop
    loop.close()


@pytest.fixture
def client(models, loop):
    app = build_app(models, loop, Access(hosts=frozenset({HOST}), key=None, page_paths=frozenset({"/"})), more=routes)
    with TestClient(app, base_url=f"http://{HOST}", raise_server_exceptions=False) as client:
        yield client
