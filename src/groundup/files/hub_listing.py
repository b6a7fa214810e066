"""What the Hugging Face Hub says of a repository, in bounded memory whatever it sends."""

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Literal
from urllib.parse import quote

from groundup.config.limits import JSON_BYTES

HUB = "hf:"
"""Before names of what lies on the hub."""
SHORT_NAMES = {
    "gpt2": "openai-community/gpt2",
    "gpt2-medium": "openai-community/gpt2-medium",
    "gpt2-large": "openai-community/gpt2-large",
    "gpt2-xl": "openai-community/gpt2-xl",
    "distilgpt2": "distilbert/distilgpt2",
}
"""Models that need no owner."""
PIECE = 1 << 20


def on_hub(name: str) -> str | None:
    """As what `groundup import` takes a model of the hub, where a name is one of the hub; else None."""
    if name in SHORT_NAMES:
        return HUB + name
    return name if name.startswith(HUB) else None


def repository(
    kind: Literal["models", "datasets"], name: str, *, revision: str | None = None, endpoint: str | None = None
) -> Any:
    """Commit, files with sizes and hashes, and card of a repository, as huggingface_hub's objects.

    Its own client reads an answer to the end, however long that is.

    Args:
        kind: Of the repository.
        name: OWNER/NAME.
        revision: A branch, tag or commit; None is the newest.
        endpoint: Another hub than the one that is set.

    Raises:
        UserError: The list is longer than any honest one.
        Exception: What huggingface_hub raises where the hub cannot be reached or refuses.
    """
    from huggingface_hub import constants, hf_api, utils

    at = f"/revision/{quote(revision, safe='')}" if revision else ""
    url = f"{endpoint or constants.ENDPOINT}/api/{kind}/{name}{at}?blobs=true"
    data = bytearray()
    with _answer(utils.get_session(), url, utils.build_hf_headers()) as answer:
        utils.hf_raise_for_status(answer)
        for piece in pieces(answer):
            data += piece
            JSON_BYTES.check(len(data), f"the list of files of {name}")
    return (hf_api.ModelInfo if kind == "models" else hf_api.DatasetInfo)(**json.loads(data))


def _answer(session: Any, url: str, headers: dict[str, str]) -> AbstractContextManager[Any]:
    """An answer whose body is not read yet, by either of the libraries that versions of the client use."""
    if hasattr(session, "stream"):
        return session.stream("GET", url, headers=headers)
    return session.get(url, headers=headers, stream=True)


def pieces(answer: Any) -> Iterator[bytes]:
    """The body of an answer, by either of the libraries."""
    return answer.iter_bytes() if hasattr(answer, "iter_bytes") else answer.iter_content(PIECE)
