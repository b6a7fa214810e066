"""groundup generate --prompts-file IN --out OUT: many prompts, side by side; a killed command goes on where it was.

A line of OUT is written when all lines before it are, into OUT.KEY.part, which becomes OUT at the end. KEY is a hash of
the prompts and of all that decides the texts, so a part is only gone on with by a command that would write it again.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from rich.console import Console

from groundup.config.errors import UserError
from groundup.files.lock import one_at_a_time
from groundup.files.new import refuse_existing, refuse_unwritable
from groundup.formats.decode import read_text
from groundup.terminal.display import Bar
from groundup.terminal.escapes import unescape
from groundup.terminal.say import warn

if TYPE_CHECKING:  # which need PyTorch; prompts are read before it is loaded
    from groundup.generation.text import TextCompletion, TextGenerator, TextRequest

AT_A_TIME = 256
"""Requests that are given to the engine together."""


def read_prompts(path: Path) -> list[str]:
    r"""The prompts of a file: `prompt` of every object in .jsonl, else every line, where \n stands for a new line.

    Raises:
        UserError: The file cannot be read, has no prompt, or has a line that is none.
    """
    lines = read_text(path).removesuffix("\n").split("\n")
    if path.suffix != ".jsonl":
        prompts = [unescape(line) for line in lines]
    else:
        prompts = [_prompt_of(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not any(prompts):
        raise UserError(f"{path} has no prompts")
    return prompts


def complete_file(
    generator: "TextGenerator",
    prompts: Sequence[str],
    out: Path,
    *,
    request: Callable[[int, str], "TextRequest"],
    settings: str,
) -> int:
    """Continue every prompt and write the texts, a JSON object a line in the order of the prompts.

    Args:
        generator: Draws them.
        prompts: To continue.
        out: The file to write.
        request: Of a place and its prompt; raises a UserError for what cannot be continued.
        settings: All that decides the texts beside the prompts.

    Returns:
        How many texts were there already.

    Raises:
        UserError: `out` exists or has no place, another process is writing it, or a prompt cannot be continued:
            nothing is drawn then. Or the disk refuses; the same call goes on after what was written.
    """
    refuse_unwritable(out)
    refuse_existing(out)
    requests = []
    for place, prompt in enumerate(prompts):
        try:
            requests.append(request(place, prompt))
        except UserError as error:
            raise UserError(f"prompt {place + 1}: {error}") from None
    key = hashlib.sha256(json.dumps([settings, list(prompts)]).encode()).hexdigest()[:8]
    part = out.with_name(f"{out.name}.{key}.part")
    console = Console(stderr=True)
    with (
        one_at_a_time(part, wait=False),
        _opened(part) as file,
        Bar("{task.completed:.0f}/{task.total:.0f} prompts", console) as bar,
    ):
        refuse_existing(out)  # another process may just have ended
        done = _texts_of(file, prompts)
        task = bar.add_task("", total=len(prompts), completed=done)
        if done:
            warn(f"{done} of {len(prompts)} texts are there already; going on after them")
        for completion in _in_order(generator, requests, done):
            line = {
                "prompt": prompts[completion.request],
                "texts": completion.texts,
                "finish_reasons": completion.finishes,
            }
            file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
            file.flush()
            bar.advance(task)
        os.fsync(file.fileno())
        part.replace(out)
    return done


def _in_order(generator: "TextGenerator", requests: "Sequence[TextRequest]", start: int) -> "Iterator[TextCompletion]":
    """The completions from a place on, in the order of the requests, each as soon as those before it are through."""
    for first in range(start, len(requests), AT_A_TIME):
        waiting: "dict[int, TextCompletion]" = {}
        place = first
        for completion in generator.complete(requests[first : first + AT_A_TIME]):
            waiting[first + completion.request] = completion
            while place in waiting:
                yield waiting.pop(place)._replace(request=place)
                place += 1


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """A file to add to; an error of the disk, then or later, names it."""
    try:
        with path.open("a+b") as file:
            yield file
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def _texts_of(file: BinaryIO, prompts: Sequence[str]) -> int:
    """How many of the prompts have their line; what follows, the half line or the zeros of a crash, is cut off."""
    done = end = 0
    file.seek(0)
    for prompt, line in zip(prompts, file, strict=False):
        if not (line.endswith(b"\n") and _is_of(prompt, line)):
            break
        done, end = done + 1, end + len(line)
    file.truncate(end)
    file.seek(end)
    return done


def _is_of(prompt: str, line: bytes) -> bool:
    try:
        return bool(json.loads(line)["prompt"] == prompt)
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def _prompt_of(line: str, where: str) -> str:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise UserError(f"{where} is not JSON") from None
    if not isinstance(value, dict) or not isinstance(value.get("prompt"), str):
        raise UserError(f'{where} must be an object with a text under "prompt"')
    return value["prompt"]
