"""What is seen of a model to import before PyTorch is loaded."""

from pathlib import Path

from groundup.checkpoint.folders import is_model_folder
from groundup.config.errors import UserError
from groundup.files.hub_listing import HUB, on_hub
from groundup.records.history import is_run


def check_source(path: Path) -> None:
    """See that there is something to import.

    Raises:
        UserError: It is of groundup already, or nothing is there.
    """
    if is_run(path) or is_model_folder(path) or (path.is_file() and is_model_folder(path.parent)):
        what = "run" if is_run(path) else "model"
        raise UserError(f"{path} is a {what} of groundup already; there is nothing to import")
    if not path.is_dir() and not path.is_file():
        if there := on_hub(str(path)):
            whose = "OpenAI's" if path.name.startswith("gpt2") else "its"
            raise UserError(f"{path} does not exist here; {whose} weights are {there}")
        raise UserError(f"{path} does not exist; name a folder, a file or {HUB}NAME")
