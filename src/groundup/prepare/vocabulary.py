"""The vocabulary of a run, before the run: known where text or shards are there, else assumed."""

from groundup.config.data import DataConfig
from groundup.config.errors import UserError
from groundup.config.model import with_vocabulary
from groundup.config.presets import GPT2_VOCAB
from groundup.config.train import TrainConfig
from groundup.data.index import load_index
from groundup.files.layout import INDEX
from groundup.tokenizer.io import resolve_tokenizer

ALPHABETS = {"shakespeare": 62, "tiny-shakespeare": 65}
"""Characters of the corpora that are always the same."""
ASSUMED_VOCAB = 65
"""Characters of a text that is not read: Tiny Shakespeare's."""
COUNTED_BYTES = 64 << 20
"""Characters of a text up to this size are counted, which takes a second; of a larger one where it is prepared."""


def known_vocabulary(config: TrainConfig) -> tuple[int, bool]:
    """Ids of the tokenizer, and whether they are assumed: the text or the shards are not there, or it is too long.

    Raises:
        UserError: They are known, and the model's config names another number.
    """
    data = config.data
    if data.source == "shards":
        if not (data.path and (data.path / INDEX).is_file()):
            return GPT2_VOCAB, True
        ids = load_index(data.path).vocab_size
    elif data.tokenizer == "char":
        if (counted := ALPHABETS.get(data.source) or _counted(data)) is None:
            return ASSUMED_VOCAB, True
        ids = counted
    else:
        ids = GPT2_VOCAB if data.tokenizer == "gpt2" else resolve_tokenizer(data.tokenizer).vocab_size
    return with_vocabulary(config.model, ids).vocab_size, False


def _counted(data: DataConfig) -> int | None:
    """Ids of an alphabet of its own, as the run will have it; None where the text cannot be read, or is long."""
    from groundup.corpora.local_files import LocalFiles
    from groundup.prepare.corpus import make_tokenizer, prepared_folder

    source = LocalFiles(str(data.path), data)
    try:
        if not all(path.is_file() for path in source.files()):  # what comes through a pipe can be read once
            return None
        if source.text_bytes() <= COUNTED_BYTES:
            return make_tokenizer("char", source).vocab_size
        folder = prepared_folder(data, source)
        return load_index(folder).vocab_size if (folder / INDEX).is_file() else None
    except UserError:  # which the run will tell
        return None
