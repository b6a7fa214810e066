"""The vocabulary of a run, as far as it can be known before its text is read."""

from groundup.config.model import with_vocabulary
from groundup.config.presets import GPT2_VOCAB
from groundup.config.train import TrainConfig
from groundup.data.index import load_index
from groundup.files.layout import INDEX
from groundup.tokenizer.io import resolve_tokenizer

GUESSED_VOCAB = 65
"""A character vocabulary is known when the text has been read; a plan on paper takes Tiny Shakespeare's."""


def known_vocabulary(config: TrainConfig) -> int:
    """Ids of the tokenizer; guessed where the text or the shards are not there yet.

    Raises:
        UserError: They are known, and the model's config names another number.
    """
    data = config.data
    if data.source == "shards":
        if not (data.path and (data.path / INDEX).is_file()):
            return GPT2_VOCAB
        ids = load_index(data.path).vocab_size
    elif data.tokenizer == "char":
        return GUESSED_VOCAB
    else:
        ids = GPT2_VOCAB if data.tokenizer == "gpt2" else resolve_tokenizer(data.tokenizer).vocab_size
    return with_vocabulary(config.model, ids).vocab_size
