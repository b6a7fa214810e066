"""groundup finetune MODEL TEXT [flags]: `groundup train finetune`, with the two things it needs as plain words."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from groundup.cli import train
from groundup.config.errors import UsageError
from groundup.records.models_here import holds_model
from groundup.terminal.parse import EMPTY
from groundup.training.own_text import PIPE, piped, plain

USE = "groundup finetune models/gpt2 notes/"

USAGE = """usage: groundup finetune MODEL TEXT [flags of groundup train]

Goes on from a model's weights with a text of yours: a file, a folder, a glob, or a folder of shards.
Steps, learning rate and what learns (all weights, or a low-rank change: LoRA) follow from the size of the text.

  groundup import hf:gpt2                       GPT-2's weights, once
  groundup finetune models/gpt2 notes/          a run in runs/gpt2-notes
  groundup finetune models/gpt2 notes/ --help   every flag with the value that was chosen
  groundup finetune runs/shakespeare more.txt   from a run of yours"""


def main(argv: Sequence[str]) -> int:
    """Fine-tune."""
    words = list(argv)
    if not words or words[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    return train.main(as_training(words))


def as_training(words: Sequence[str]) -> list[str]:
    """The words of `groundup train` that mean the same.

    Raises:
        UsageError: A model or a text is not named, named twice, or the other's place is taken.
    """
    places = plain(words)[:2]
    if len(places) < 2 and {"-h", "--help"} & set(words):
        return ["finetune", "--help"]
    if len(places) < 2:
        raise UsageError(f"name a model and a text: {USE}")
    model, text = (words[at] for at in places)
    if not (model and text):
        raise UsageError(EMPTY)
    if text == PIPE:
        raise piped(f"groundup finetune {shlex.quote(model)}")
    flags = [word for at, word in enumerate(words) if at not in places]
    for flag, named in (("--init-from", "model"), ("--data.path", "text")):
        if any(word.split("=", 1)[0] == flag for word in flags):
            raise UsageError(f"{flag} does not go with finetune: the {named} is named without a flag, {USE}")
    if holds_model(Path(text)) and not holds_model(Path(model)):
        raise UsageError(f"the model comes first: groundup finetune {shlex.join([text, model])}")
    return ["finetune", "--init-from", model, "--data.path", text, *flags]
