"""groundup generate DIR: let a trained model speak."""

import contextlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from groundup.cli.parse import parse
from groundup.config.errors import UsageError, UserError
from groundup.config.generate import SamplingConfig


def main(argv: Sequence[str]) -> int:
    """Draw text from the model in a run, checkpoint or model folder."""
    import tyro

    @dataclass(frozen=True, kw_only=True)
    class Options:
        """Draw text from a trained model."""

        path: Annotated[Path, tyro.conf.Positional]
        """A run, checkpoint or model folder."""
        prompt: str = ""
        """What to continue; empty starts a new text."""
        max_new_tokens: int = 500
        """Tokens to draw for each sample."""
        num_samples: int = 1
        """How many continuations."""
        seed: int = 1337
        """Sample i is drawn with seed + i: the same seed gives the same text."""
        stop: tuple[str, ...] = ()
        """A sample ends before the first of these strings."""
        stream: bool = False
        """Show the text as it is drawn."""
        interactive: bool = False
        """Ask for prompts until end of input (Ctrl-D); Ctrl-C ends a text."""
        sampling: Annotated[SamplingConfig, tyro.conf.arg(name="")] = field(default_factory=SamplingConfig)

        def __post_init__(self) -> None:
            for name in ("max_new_tokens", "num_samples"):
                if getattr(self, name) < 1:
                    raise UsageError(f"{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}")
            if self.num_samples > 1 and (self.stream or self.interactive):
                raise UsageError("--stream and --interactive show one sample; leave --num-samples at 1")

    options = parse(Options, argv, prog="groundup generate")
    from groundup.checkpoint.artifact import load_model
    from groundup.generation.text import TextGenerator

    loaded = load_model(options.path)
    generator = TextGenerator(loaded.model, loaded.tokenizer)

    def speak(prompt: str, seed: int) -> None:
        pieces = generator.stream(
            prompt,
            max_new_tokens=options.max_new_tokens,
            sampling=options.sampling,
            seed=seed,
            stop=options.stop,
        )
        for (piece,) in pieces:
            sys.stdout.write(piece)
            sys.stdout.flush()
        sys.stdout.write("\n")

    if options.interactive:
        return _converse(speak, options.seed)
    if options.stream:
        loaded.tokenizer.encode(options.prompt)
        sys.stdout.write(options.prompt)
        speak(options.prompt, options.seed)
        return 0
    texts = generator.generate(
        options.prompt,
        max_new_tokens=options.max_new_tokens,
        sampling=options.sampling,
        num_samples=options.num_samples,
        seed=options.seed,
        stop=options.stop,
    )
    print("\n---------------\n".join(options.prompt + text for text in texts))
    return 0


def _converse(speak: Callable[[str, int], None], seed: int) -> int:
    """Prompt after prompt, with the arrow keys' history where the terminal has one."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  # input() uses it when it is loaded
    terminal = sys.stdin.isatty()
    if terminal:
        print("Type the beginning of a text; \\n stands for a new line. Ctrl-C ends a text, Ctrl-D the session.")
    while True:
        try:
            prompt = input("> " if terminal else "").replace("\\n", "\n")
        except EOFError:
            return 0
        except KeyboardInterrupt:
            print()
            continue
        try:
            speak(prompt, seed)
        except KeyboardInterrupt:
            print()
        except UserError as error:
            print(f"groundup: {error}", file=sys.stderr)
        seed += 1
