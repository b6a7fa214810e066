"""The command table. Every command is a module with `main(argv) -> int`, imported only when it is called."""

import atexit
import difflib
import gc
import importlib
import keyword
import re
import sys
from collections.abc import Sequence

from groundup import __version__
from groundup.config.errors import UsageError, UserError
from groundup.terminal.ended import Ended, ended_by_signals
from groundup.terminal.meant import COMMAND_MEANT
from groundup.terminal.output import discard, mend_surroundings
from groundup.terminal.say import warn

COMMANDS = {
    "train": "train a model: groundup train shakespeare, or groundup train notes/",
    "finetune": "go on from a model's weights with a text of yours",
    "sweep": "train every combination of settings and seeds, and compare them",
    "scaling": "train one recipe at several sizes, and fit the loss against the parameters",
    "plan": "what a run needs and how long it takes, here or on hardware you name",
    "serve": "look inside a model in the browser, and serve it to other programs",
    "runs": "list, compare and plot what has been trained",
    "report": "draw a run's report.html again, and open it",
    "generate": "draw text from a trained model",
    "eval": "measure a trained model: loss, HellaSwag, LAMBADA, files of your own",
    "import": "make a model folder of a GPT-2 of Hugging Face, nanoGPT or llm.c",
    "export": "write a model for transformers, llama.cpp, onnxruntime or CTranslate2",
    "tokenizer": "train tokenizers, encode text, look at tokens",
    "prepare": "turn text into token shards",
    "data": "inspect and verify prepared shards",
    "bench": "measure speed, with peers side by side",
    "doctor": "show what this machine can do",
}


def usage() -> str:
    """The help of the whole program."""
    width = max(map(len, COMMANDS)) + 2
    rows = [f"  {name:<{width}}{what}" for name, what in COMMANDS.items()]
    return "\n".join(
        [
            f"groundup {__version__}: GPT-2 from the ground up",
            "",
            "usage: groundup COMMAND [options]",
            "",
            *rows,
            "",
            "groundup COMMAND --help explains a command.",
        ]
    )


@ended_by_signals()
def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 wrong usage, 128 + signal that asked it to end."""
    words = list(sys.argv[1:] if argv is None else argv)
    atexit.register(gc.freeze)  # else Python looks through all objects again and again before it ends: seconds
    try:
        mend_surroundings()
        code = run(words[0], words[1:]) if words else run("help", [])
        sys.stdout.flush()  # a full disk is reported below, and not by Python at exit
        return code
    except UserError as error:
        for line in error.lines:
            warn(line)
        return error.exit_code
    except (KeyboardInterrupt, Ended) as error:
        warn(str(error) or "interrupted")
        return error.code if isinstance(error, Ended) else 130
    except BrokenPipeError:
        _drop_output()  # the reader of our output is gone (`| head`)
        return 1
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        if "No usable temporary directory" in reason:
            reason += "; TMPDIR may name one"
        warn(f"{f'cannot use {error.filename}: ' if error.filename else ''}{reason}")
        _drop_output()
        return 1
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError):
            from groundup.runtime.memory import is_out_of_memory

            if not is_out_of_memory(error):
                raise
        asked = re.search(r"(tried|unable) to allocate [\d.,]+ \w+", str(error), re.IGNORECASE)
        said = f" ({asked[0][0].lower()}{asked[0][1:]})" if asked else ""
        warn(f"out of memory{said}; a smaller batch, context or model needs less")
        return 1


def _drop_output() -> None:
    """Drop what is left to print where the output is closed."""
    try:
        sys.stdout.flush()
    except OSError:
        discard(sys.stdout)


def run(command: str, argv: list[str]) -> int:
    """Import and call one command.

    Raises:
        UsageError: There is no such command.
    """
    if command in ("-h", "--help", "help"):
        if argv and argv[0] in COMMANDS:
            return run(argv[0], [*argv[1:], "--help"])
        print(usage())
        return 0
    if command in ("-V", "--version", "version"):
        print(f"groundup {__version__}")
        return 0
    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, n=1)
        known = f"did you mean {near[0]}?" if near else f"the commands are {', '.join(COMMANDS)}"
        hint = COMMAND_MEANT.get(command, known)
        raise UsageError(f"unknown command {command!r}; {hint}")
    file = f"{command}_" if keyword.iskeyword(command) else command
    module = importlib.import_module(f"groundup.cli.{file}")
    return int(module.main(argv))
