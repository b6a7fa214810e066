"""groundup serve RUN_OR_DIR [more...]: a page that looks inside, and an API that others' clients call."""

import os
import socket
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from groundup.config.errors import UsageError, UserError
from groundup.records.models_here import check_model, missing_model
from groundup.serving.address import check_key, listen, names_of, url_of
from groundup.terminal.parse import parse
from groundup.terminal.say import warn
from groundup.terminal.waiting import before_torch

if TYPE_CHECKING:
    from groundup.terminal.working import Working


@dataclass(frozen=True, kw_only=True)
class Options:
    """Serve trained models on this machine: a page in the browser, and the completions API."""

    paths: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """Runs, checkpoints or model folders; the first one is the default."""
    host: str = "127.0.0.1"
    """Address to listen on; any other than this machine's own needs a key."""
    port: int = 8000
    """Port to listen on; 0 takes a free one."""
    api_key: str = ""
    """What clients must send as Authorization: Bearer KEY; in GROUNDUP_API_KEY no list of processes shows it."""
    open: bool = True
    """Open the page in the browser."""
    weights: Literal["saved", "fp32", "fp16", "bf16", "int8", "auto"] = "saved"
    """Bits per weight: fewer decode faster and round more; saved is as the model has them, auto the fastest here."""
    threads: int = 0
    """CPU threads; 0 takes PyTorch's choice, and fewer while other programs want the cores."""

    def __post_init__(self) -> None:
        """Refuse what has no meaning before a model is loaded."""
        if not self.paths:
            raise missing_model("serve")
        if not 0 <= self.port < 65536:
            raise UsageError(f"port must be 0 (a free one) to 65535, got {self.port}")
        if not 0 <= self.threads <= 1024:
            raise UsageError(f"threads must be 0 (automatic) to 1024, got {self.threads}")
        check_key(self.key, self.host)

    @property
    def key(self) -> str | None:
        """The key, from wherever it was given."""
        return self.api_key or os.environ.get("GROUNDUP_API_KEY") or None


def main(argv: Sequence[str]) -> int:
    """Serve until Ctrl-C."""
    options = parse(Options, argv, prog="groundup serve")
    for path in options.paths:
        check_model(path)
    listener = listen(options.host, options.port)  # before the models: a taken port should not cost their loading
    before_torch(serving=True)
    from groundup.terminal.working import Working

    with Working("loading PyTorch") as working:
        return _serve(options, listener, working)


def _serve(options: Options, listener: socket.socket, working: "Working") -> int:
    try:
        from groundup.playground.start import serve
    except ModuleNotFoundError as error:
        raise UserError(f"serving needs {error.name}: pip install 'groundup[serve]'") from None
    working.doing(f"loading {', '.join(map(str, options.paths))}")
    port = listener.getsockname()[1]
    url = url_of(options.host, port)

    def started(names: Sequence[str]) -> None:
        working.end()
        print(f"serving {', '.join(names)} at {url}  (the API: {url}v1; Ctrl-C ends it)", flush=True)
        if options.open:
            webbrowser.open(url)

    return serve(
        options.paths,
        listener,
        hosts=names_of(options.host, port),
        key=options.key,
        threads=options.threads,
        weights=options.weights,
        say=warn,
        started=started,
    )
