"""Flags to typed values by tyro, with every mistake answered in one line.

tyro draws a box for each error; a box is pleasant for one mistake at a desk and useless in a log. `parse` keeps
tyro's parser and help, and turns what the box says into a `UsageError`.
"""

import contextlib
import difflib
import io
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from groundup.config.errors import UsageError
from groundup.terminal.ended import Ended

T = TypeVar("T")

NARROWEST = 20
"""Columns that help is laid out for at least."""
EMPTY = "an empty word is no path; is it a variable that is not set?"
PLAINLY = (
    (r"^Error parsing (--\S+): invalid literal for int\(\) with base 10: (.*)$", r"\1 must be a whole number, got \2"),
    (r"^Error parsing (--\S+): could not convert string to float: (.*)$", r"\1 must be a number, got \2"),
    (r"^Error parsing (--\S+): Could not find valid parse for arguments: \['(.*)'\]$", r"\1 cannot take '\2'"),
    (r"^Error parsing (--\S+): .*a path is empty$", rf"\1: {EMPTY}"),
    (r"^.*a path is empty$", EMPTY),
    (r"^(?:Error parsing .*: )?Could not find valid parse for arguments: \[(.*)\]$", r"cannot take \1"),
    (r"^Missing value for argument '(--\S+)'.*$", r"\1 needs a value"),
    (r"^Invalid choice (.*) for argument '(\S+)'\. Expected one of \((.*?),?\)$", r"\2 must be one of \3, got \1"),
)
"""What tyro says in Python's words, in those of the person who types."""
SYNONYMS = {
    "--learning-rate": "--optim.lr",
    "--min-lr": "--optim.min-lr-ratio",
    "--muon-lr": "--optim.muon-lr-ratio",
    "--layers": "--model.n-layer",
    "--heads": "--model.n-head",
    "--context": "--model.block-size",
    "--iterations": "--max-steps",
    "--max-iters": "--max-steps",
    "--temp": "--temperature",
    "--length": "--max-new-tokens",
    "--n": "--num-samples",
    "--samples": "--num-samples",
    "--output": "--out",
}
"""Flags of other programs, and what they are called here; those names are looked up without their section."""
_NO = re.compile(r"(^--|[.])no-")


@contextlib.contextmanager
def _plain_boxes() -> Iterator[tuple[io.TextIOWrapper, io.StringIO]]:
    """Catch what tyro writes, in one form: no colors, lines drawn in Unicode, and a width in which nothing wraps.

    How it writes depends on sys.stdout (a terminal? which encoding?) even for what goes to stderr, so both are
    replaced. Yields them.
    """
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "10000"
    output, errors = io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), io.StringIO()
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            yield output, errors
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


def _widen() -> None:
    """Have a width that words fit into: tyro would look for a place to break its lines for ever."""
    import shutil

    if shutil.get_terminal_size().columns < NARROWEST:
        os.environ["COLUMNS"] = str(NARROWEST)


def parse(
    spec: type[T],
    argv: Sequence[str],
    *,
    prog: str,
    default: Any = None,
    also: Sequence[str] = (),
    missing: Mapping[str, Callable[[], UsageError]] | None = None,
) -> T:
    """Read flags into a dataclass.

    Args:
        spec: A dataclass; its docstrings are the help.
        argv: The words after the command.
        prog: The command, as the user typed it.
        default: An instance whose values stand where no flag is given.
        also: Flags that the command takes out of argv by itself, for typos.
        missing: What to say where a word is missing, by the word's name in the help.

    Raises:
        UsageError: A flag or value is wrong; the message is one line and names the nearest flag.
        SystemExit: With code 0, after `--help` was printed.
    """
    import tyro

    # Of several classes for one field the default's is meant: its flags stay flat.
    options: dict[str, Any] = {"prog": prog, "config": (tyro.conf.AvoidSubcommands,), "registry": _rules()}
    if default is not None:
        options["default"] = default
    if {"-h", "--help"} & set(argv):
        _widen()
        return tyro.cli(spec, args=list(argv), **options)
    try:
        with _plain_boxes() as (output, errors):
            return tyro.cli(spec, args=list(argv), **options)
    except Ended:  # a signal is no wrong flag
        raise
    except SystemExit as stop:
        if not stop.code:
            output.seek(0)
            print(output.read(), end="")  # a completion script, for which tyro has flags of its own
            raise
    message = one_line(errors.getvalue())
    if (first := re.match(r"missing (\w+)", message)) and (said := (missing or {}).get(first[1])):
        raise said()
    # Of --stream=yes, tyro names what it is left with.
    value = message.removeprefix("unrecognized options: ")
    if word := next((word for word in argv if word.startswith("--") and word.endswith(f"={value}")), None):
        name = " ".join(word.removesuffix(f"={value}").split())
        no = re.sub(r"([.]|^--)([^.]+)$", r"\1no-\2", name)
        raise UsageError(f"{name} takes no value, got {value!r}: write {name} or {no}")
    if message.startswith(("missing value for argument '", "unrecognized options: -")):
        with _plain_boxes() as (output, _), contextlib.suppress(SystemExit):
            tyro.cli(spec, args=["--help"], **options)
        output.seek(0)
        message = _unknown(message, argv, re.findall(r"--\w[\w.\-]*", output.read()), also)
        if "did you mean" in message:
            raise UsageError(message)
    raise UsageError(f"{message} (see {prog} --help)")


def _rules() -> Any:
    """How words become paths: an empty one, as of a variable that is not set, would mean the working folder."""
    from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

    def path(words: list[str]) -> Path:
        if not words[0]:
            raise ValueError("a path is empty")
        return Path(words[0])

    def rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Path] | None:
        if info.type is not Path:
            return None
        return PrimitiveConstructorSpec(1, "PATH", path, lambda value: isinstance(value, Path), lambda p: [str(p)])

    registry = ConstructorRegistry()
    registry.primitive_rule(rule)
    return registry


def _unknown(message: str, argv: Sequence[str], flags: Sequence[str], also: Sequence[str]) -> str:
    """Name a flag that there is not, and the nearest: of one where a word is missing, tyro says that a value is."""
    known = [*also, *flags]
    if message.startswith("missing"):
        odd = (word for word in argv if re.match(r"--?[a-z]", word) and word.split("=")[0] not in known)
        message = " ".join(next((f"unrecognized options: {word}" for word in odd), message).split())
    flag = re.match(r"unrecognized options: (--[\w.\-]+)", message)
    if flag and flag[1] in known and "--" in argv:
        return f"{message}; they stand behind a -- alone: leave it out"
    # A command's own switches have no negation, and --no-dry-run means none of them.
    near = nearest(flag[1], flags if _NO.search(flag[1]) else known) if flag else None
    return f"{message}; did you mean {near}?" if near else message


def one_line(box: str) -> str:
    """Condense tyro's error box to its first paragraph."""
    rows = [row.strip(" │") for row in box.splitlines() if row.startswith("│")]
    rule = next((i for i, row in enumerate(rows) if row and set(row) == {"─"}), len(rows))
    message = " ".join(row for row in rows[:rule] if row).rstrip(".")
    message = re.sub(r"^Error parsing (?!--)[\w.\-]+: ", "", message)  # a class of ours says the whole sentence
    if message.startswith("Missing from"):  # what is missing stands deeper than the sentences about it
        message = "missing " + ", ".join(re.findall(r"^│ {5}(\S.*?) *│$", box.split("│ ──")[0], re.MULTILINE))
    for pattern, said in PLAINLY:
        message = re.sub(pattern, said, message, flags=re.IGNORECASE)
    message = message or " ".join(box.split()) or "wrong usage"
    return f"{message[0].lower()}{message[1:]}"


def nearest(flag: str, flags: Sequence[str]) -> str | None:
    """The flag that was probably meant: one that only lacks its section (--lr, --optim.lr), else the most similar.

    A negation is taken for no flag without one, nor the other way round; but a flag that has none takes a value.
    """
    flag = re.sub(r"^--no-(.+[.])([^.]+)$", r"--\1no-\2", flag.replace("_", "-"))
    if (negation := re.sub(r"(^--|[.])no(?=\w+$)", r"\1no-", flag)) in flags:
        return negation
    name = flag.removeprefix("--")
    if (meant := SYNONYMS.get(f"--{name.rpartition('.')[2]}")) in flags:
        return meant
    if (plain := _NO.sub(r"\1", flag)) != flag and plain in flags:  # it has a value, which says off
        return plain
    # Of --no-compile, the second.
    ends = [known for end in (name, name.removeprefix("no-")) for known in flags if known.rpartition(".")[2] == end]
    alike = [known for known in flags if bool(_NO.search(known)) == bool(_NO.search(flag))]
    return next(iter(ends or difflib.get_close_matches(flag, alike, n=1)), None)


def values_in(word: str, *, most: int) -> list[str]:
    """The values that a word lists: between commas, or as a range of whole numbers, as 1..3; of a file's name, one.

    Raises:
        UsageError: A range of more than `most` numbers, or one that runs backwards; nothing between two commas.
    """
    if ends := re.fullmatch(r"(\d{1,9})\.\.(\d{1,9})", word):
        first, last = int(ends[1]), int(ends[2])
        if last < first:
            raise UsageError(f"a range runs upwards: {last}..{first}, got {word}")
        if last - first >= most:
            raise UsageError(f"{word} are more than {most} values")
        return [str(value) for value in range(first, last + 1)]
    if os.path.exists(word):  # noqa: PTH110  (of a long list, Path raises an error)
        return [word]
    values = [value.strip() for value in word.split(",")]
    if len(values) > 1 and not all(values):
        raise UsageError(f"a value is missing beside a comma in {word!r}; write the values as in 1e-3,3e-3")
    return values
