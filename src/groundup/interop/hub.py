"""The Hugging Face hub: fetch a model's files, push a folder (datasets: `corpora/hub.py`)."""

import re
from pathlib import Path
from typing import Any

from groundup.config.errors import UsageError, UserError, first_line
from groundup.files.hub_listing import SHORT_NAMES, repository
from groundup.files.layout import is_plain_name, resolved
from groundup.files.manifest import has_digest
from groundup.interop.read_tokenizer import FILES

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_SHARDS = {"model.safetensors.index.json": ".safetensors", "pytorch_model.bin.index.json": ".bin"}
_ETAG = re.compile(r"[0-9A-Za-z_-]{1,200}")
"""A hash, as hubs send it. huggingface_hub names files after it, so it must not be a path."""


def fetch(name: str, *, endpoint: str | None = None, cache_dir: Path | None = None) -> tuple[Path, str]:
    """Bring config, weights and tokenizer of a model into the hub's cache; what is there already is not fetched again.

    A download that was cut goes on where it ended. Every file is checked against the hash the hub lists for it.

    Args:
        name: A short name (gpt2, ...) or owner/name.
        endpoint: Another hub than the public one.
        cache_dir: Another cache than the user's.

    Returns:
        The folder of the files, and the commit they are of.

    Raises:
        UsageError: The name is neither a short one nor owner/name.
        UserError: The hub cannot be reached or has no such model, or a file is not what the hub says it is.
    """
    repo = SHORT_NAMES.get(name, name)
    if repo.count("/") != 1:
        raise UsageError(f"hf:{name} is not known; the names are {', '.join(SHORT_NAMES)}, or owner/name of a model")
    hub = _hub()
    try:
        info = repository("models", repo, endpoint=endpoint)
        files = {file.rfilename: file for file in info.siblings}
        paths = {}
        for name in _wanted(list(files), repo):
            url = hub.hf_hub_url(repo, name, revision=info.sha, endpoint=endpoint)
            if not _ETAG.fullmatch(tag := hub.get_hf_file_metadata(url).etag or ""):
                raise UserError(f"{repo} is not fetched: the hub calls its file {name} {tag[:100]!r}, which is no hash")
            path = hub.hf_hub_download(repo, name, revision=info.sha, endpoint=endpoint, cache_dir=cache_dir)
            paths[name] = Path(path)
    except Exception as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"cannot fetch {repo} from the Hugging Face hub: {first_line(error)};"
            " offline, give a folder with its config.json and model.safetensors"
        ) from error
    for name, path in paths.items():
        _check_hash(path, files[name])
    return paths["config.json"].parent, info.sha


def push(folder: Path, repo: str, *, endpoint: str | None = None) -> str:
    """Upload a folder to a model repository of the hub, which is made when it is not there.

    Args:
        folder: What to upload, all of it.
        repo: owner/name.
        endpoint: Another hub than the public one.

    Returns:
        Where to look at it.

    Raises:
        UserError: The hub cannot be reached, or refuses.
    """
    api = _hub().HfApi(endpoint=endpoint)
    try:
        url = api.create_repo(repo, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Upload a model of groundup")
    except Exception as error:
        raise UserError(
            f"cannot push to {repo}: {first_line(error)}; the export is in {folder}, `hf auth login` names you to the"
            " hub"
        ) from error
    return str(url)


def _wanted(files: list[str], repo: str) -> list[str]:
    """The files of a repository that an import reads: the weights in one format, the best it has.

    Raises:
        UserError: There are no weights among them.
    """
    weights = next((name for name in _WEIGHTS if name in files), None)
    if weights is None or "config.json" not in files:
        raise UserError(f"{repo} holds no model: it needs config.json and one of {', '.join(_WEIGHTS)}")
    shards = [file for file in files if weights in _SHARDS and "-of-" in file and file.endswith(_SHARDS[weights])]
    return ["config.json", weights, *filter(is_plain_name, shards), *[file for file in FILES if file in files]]


def _check_hash(path: Path, listed: Any) -> None:
    """Compare a file with what the hub lists: the SHA-256 of a large file, git's hash of a small one.

    Raises:
        UserError: They differ; the file is removed from the cache, so that the next try fetches it again. What the
            cache's link leads to elsewhere is not ours to remove.
    """
    if not has_digest(path, listed.lfs.sha256 if listed.lfs is not None else listed.blob_id):
        blobs = path.parents[2] / "blobs"  # of CACHE/models--OWNER--NAME/snapshots/COMMIT/FILE
        if path.is_symlink() and resolved(path).parent == resolved(blobs):
            resolved(path).unlink()
        path.unlink(missing_ok=True)
        raise UserError(f"{path.name} is not the file the hub lists: its hash differs; it was removed, try again")


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise UserError("the Hugging Face hub needs a package: pip install 'groundup[hub]'") from None
    return huggingface_hub
