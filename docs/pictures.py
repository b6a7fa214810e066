"""Draw the README's pictures from a real run (make pictures): the demo in a terminal, its curve, its attention.

Takes as long as `make demo`. An earlier runs/shakespeare is set aside, as always.
"""

import fcntl
import io
import os
import pty
import re
import shutil
import struct
import sys
import termios
from pathlib import Path

import pyte
import torch
from rich.console import Console
from rich.text import Text

from groundup.checkpoint.model_folder import load_model
from groundup.inspection.attention import attention_patterns, draw_attention
from groundup.model.bigram import Bigram

IMAGES = Path(__file__).parent / "images"
RUN = Path("runs/shakespeare")
COLUMNS, ROWS = 96, 30
MOMENT = 0.6
"""Part of the run after which the terminal is photographed."""
LINE = "O Romeo, Romeo! wherefore"
LAYER = 1


def main() -> None:
    """Run the demo in a terminal, then draw."""
    frame = run_in_terminal([sys.executable, "-m", "groundup", "train", "shakespeare"])
    (IMAGES / "terminal.svg").write_text(svg(frame, title="groundup train shakespeare"), "utf-8")
    shutil.copyfile(RUN / "loss.png", IMAGES / "demo-loss.png")
    loaded = load_model(RUN)
    assert not isinstance(loaded.model, Bigram)
    patterns = attention_patterns(loaded.model, torch.tensor(loaded.tokenizer.encode(LINE)))
    figure = draw_attention(patterns, list(LINE), layers=[LAYER])
    figure.savefig(IMAGES / "attention.png", bbox_inches="tight")


def run_in_terminal(command: list[str]) -> pyte.Screen:
    """Run a command to its end in a terminal that nobody sees.

    Returns:
        The terminal at MOMENT.

    Raises:
        SystemExit: The command failed, or never came to that moment.
    """
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(command[0], command, {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS)})
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.ByteStream(screen)
    frame = None
    while output := _read(terminal):
        stream.feed(output)
        steps = re.search(r"^step (\d+)/(\d+) ", "\n".join(screen.display), re.MULTILINE)
        if frame is None and steps and int(steps[1]) >= MOMENT * int(steps[2]):
            frame = pyte.Screen(COLUMNS, ROWS)
            for row, cells in screen.buffer.items():
                frame.buffer[row].update(cells)
    _, status = os.waitpid(pid, 0)
    if status or frame is None:
        sys.exit("\n".join(line.rstrip() for line in screen.display).strip() or "nothing came to be photographed")
    return frame


def _read(terminal: int) -> bytes:
    """What came, or nothing when the other side has closed."""
    try:
        return os.read(terminal, 1 << 16)
    except OSError:
        return b""


def svg(screen: pyte.Screen, *, title: str) -> str:
    """A terminal as a picture that loads no font from elsewhere."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    rows = [row for row in range(ROWS) if screen.display[row].strip()]
    for row in range(rows[0], rows[-1] + 1):
        line = Text(no_wrap=True)
        for column in range(COLUMNS):
            cell = screen.buffer[row][column]
            line.append(cell.data, style=_style(cell))
        line.rstrip()
        console.print(line)
    return re.sub(r"@font-face \{.*?\}\s*", "", console.export_svg(title=title), flags=re.DOTALL)


def _style(cell: pyte.screens.Char) -> str:
    color = {"default": "", "brown": "yellow"}.get(cell.fg, cell.fg)
    if re.fullmatch(r"[0-9a-f]{6}", color):
        color = f"#{color}"
    return " ".join(filter(None, ("bold" * cell.bold, "reverse" * cell.reverse, color))) or "none"


if __name__ == "__main__":
    main()
