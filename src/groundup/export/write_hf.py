"""A folder that transformers' Auto classes open as the same model with the same tokenizer."""

from pathlib import Path

from groundup.checkpoint.model_folder import LoadedModel
from groundup.checkpoint.tensor_file import save_tensors
from groundup.config.io import dump_json
from groundup.config.model import TransformerConfig
from groundup.export.hf_tokenizer import tokenizer_files
from groundup.files.atomic import write_synced
from groundup.files.layout import CONFIG, WEIGHTS
from groundup.interop.hf_config import SWITCHES, fitting, hf_config
from groundup.interop.names import to_hf, with_biases
from groundup.tokenizer.base import Tokenizer
from groundup.tokenizer.published import published

METADATA = {"format": "pt"}
"""Some versions of transformers refuse safetensors that do not say which library laid the tensors out."""


def write_hf(folder: Path, loaded: LoadedModel, config: TransformerConfig) -> None:
    """Write config.json, model.safetensors, generation_config.json and the tokenizer's files.

    Raises:
        UserError: transformers has no place for a part of the model.
    """
    config = fitting(config, "the GPT-2 of transformers", SWITCHES)
    state = with_biases(loaded.model.state_dict(), config)
    dtype = str(state["wte.weight"].dtype).removeprefix("torch.")
    eot_id = loaded.tokenizer.eot_id
    ends = {"bos_token_id": eot_id, "eos_token_id": eot_id, **_ids_of_roles(loaded.tokenizer)}
    values = hf_config(config, dtype=dtype, eot_id=eot_id) | ends
    write_synced(folder / CONFIG, dump_json(values).encode())
    write_synced(folder / "generation_config.json", dump_json(ends).encode())
    save_tensors(folder / WEIGHTS, to_hf(state, config.n_layer), metadata=METADATA)
    for name, text in tokenizer_files(loaded.tokenizer, config.block_size).items():
        write_synced(folder / name, text.encode())


def _ids_of_roles(tokenizer: Tokenizer) -> dict[str, int]:
    """The ids of the tokens that begin, end and pad a text, where an import has said them."""
    if not getattr(tokenizer, "settings", None):
        return {}
    bpe = published(tokenizer)
    ids = bpe.added
    tokens = ((role, bpe.settings.get(role)) for role in ("bos_token", "eos_token", "pad_token"))
    return {f"{role}_id": ids[token] for role, token in tokens if token in ids}
