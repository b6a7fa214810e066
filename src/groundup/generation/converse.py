"""groundup generate --interactive: prompt after prompt, and commands that begin with a slash."""

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from groundup.config.errors import UsageError, UserError
from groundup.config.generate import SamplingConfig
from groundup.files.atomic import write_file
from groundup.files.new import refuse_existing, refuse_unwritable
from groundup.terminal.escapes import unescape
from groundup.terminal.say import warn, write

HELP = """\
Type the beginning of a text. A line that ends with a backslash goes on in the next one; \\n stands for a new line.
  /set NAME VALUE   temperature, top-k, top-p, min-p, a penalty or max-new-tokens, from here on
  /seed N           the next text is drawn with this seed, those after it with N + 1, N + 2, ...
  /reset            settings and seed as they were at the start, and nothing to save
  /save FILE        write the texts so far
  /help             these lines
  /quit             end the session
A prompt that begins with a slash is typed with two. Ctrl-C ends a text, Ctrl-D the session.
"""


@dataclasses.dataclass
class Settings:
    """How the next text is drawn."""

    sampling: SamplingConfig
    max_new_tokens: int
    seed: int

    def set(self, name: str, value: str) -> None:
        """Change one of them.

        Raises:
            UsageError: There is no such setting, or it cannot have this value.
        """
        field = name.replace("-", "_")
        kinds = {f.name: f.type for f in dataclasses.fields(SamplingConfig) if f.type in (int, float)}
        kinds["max_new_tokens"] = int
        if field not in kinds:
            raise UsageError(f"there is no setting {name}: {', '.join(kinds).replace('_', '-')}")
        try:
            number = int(value) if kinds[field] is int else float(value)
        except ValueError:
            raise UsageError(f"{name} must be a number, got {value}") from None
        if field != "max_new_tokens":
            change: dict[str, Any] = {field: number}
            self.sampling = dataclasses.replace(self.sampling, **change)
        elif number < 1:
            raise UsageError(f"max-new-tokens must be at least 1, got {value}")
        else:
            self.max_new_tokens = int(number)


Stream = Callable[[str, Settings], Iterator[str]]
"""Continues a prompt piece by piece."""


class Session:
    """Prompts and commands, a line each.

    Args:
        stream: Continues a prompt; the pieces do not repeat it.
        settings: To begin with.
    """

    def __init__(self, stream: Stream, settings: Settings) -> None:
        self._stream, self._first = stream, settings
        self._settings = dataclasses.replace(settings)
        self._texts: list[str] = []
        self._saved: set[Path] = set()
        """Files of this session, which it may write again."""

    def do(self, line: str) -> None:
        """Obey a command, or continue a prompt and show it; Ctrl-C ends the text alone.

        Raises:
            UserError: The line cannot be obeyed or continued.
            EOFError: It ends the session.
        """
        if line.startswith("/") and not line.startswith("//"):
            self._obey(line[1:])
            return
        prompt = unescape(line.removeprefix("/") if line.startswith("//") else line)
        drawn = [prompt]
        try:
            for piece in self._stream(prompt, self._settings):
                drawn.append(piece)
                write(piece)
        except KeyboardInterrupt:
            pass
        finally:
            self._settings.seed = (self._settings.seed + 1) % 2**63
        write("\n")
        self._texts.append("".join(drawn))

    def _obey(self, line: str) -> None:
        command, *words = line.split() or [""]
        match command, words:
            case "help", []:
                write(HELP)
            case "set", [name, value]:
                self._settings.set(name, value)
            case "seed", [number] if number.isdecimal() and int(number) < 2**63:
                self._settings.seed = int(number)
            case "reset", []:
                self._settings, self._texts = dataclasses.replace(self._first), []
            case "save", [_, *_]:
                name = line.partition(command)[2].strip()  # which may hold spaces
                try:
                    self._save(Path(name).expanduser().absolute())
                except UserError:
                    raise
                except (OSError, RuntimeError, ValueError) as error:  # too long, closed; a home of nobody; a zero byte
                    raise UserError(f"cannot save in {name}: {getattr(error, 'strerror', None) or error}") from error
                write(f"{len(self._texts)} texts are in {name}\n")
            case "quit" | "exit", []:
                raise EOFError
            case _:
                raise UsageError(f"cannot do /{' '.join((command, *words))}; /help lists what can be done")

    def _save(self, path: Path) -> None:
        refuse_unwritable(path)
        if path not in self._saved:
            refuse_existing(path)
        write_file(path, "\n\n".join([*self._texts, ""]).encode())
        self._saved.add(path)


def converse(session: Session, *, first: Iterable[str]) -> int:
    """Read lines until the end of input, or /quit.

    Returns:
        1 if lines came from a pipe and one of them could not be obeyed or continued, else 0.
    """
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    failed, line = False, None
    for line in _lines(first, terminal=terminal):
        try:
            session.do(line)
        except EOFError:
            break
        except UserError as error:
            warn(str(error))
            failed = True
    if line is None and not terminal:
        warn("no prompt was given, and standard input is empty")
    return int(failed and not terminal)


def _lines(first: Iterable[str], *, terminal: bool) -> Iterator[str]:
    """The lines given already, then those that are typed; one that ends with a backslash goes on in the next."""
    yield from first
    if terminal:
        with contextlib.suppress(ImportError):  # Windows has none
            import readline  # noqa: F401  # loaded, it gives input() a history and the arrow keys
        write("Type the beginning of a text, or /help. Ctrl-C ends a text, /quit the session.\n")
    begun = ""
    while True:
        try:
            line = begun + input(("... " if begun else "> ") if terminal else "")
        except EOFError:
            if begun:
                yield begun
            if terminal:
                write("\n")
            return
        except KeyboardInterrupt:
            if not terminal:
                raise
            begun = ""
            write("\n")
            continue
        backslashes = len(line) - len(line.rstrip("\\"))
        if backslashes % 2:
            begun = line[:-1] + "\\n"
        else:
            begun = ""
            yield line
