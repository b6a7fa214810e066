"""GGUF, the file of llama.cpp: keys, then tensors, in one file."""

from pathlib import Path
from typing import Any

from groundup import __version__
from groundup.checkpoint.model_folder import LoadedModel
from groundup.config.errors import UserError
from groundup.config.model import TransformerConfig
from groundup.interop.byte_bpe import published
from groundup.interop.hf_config import NORM_EPS, as_gpt2
from groundup.interop.names import to_gguf, with_biases
from groundup.tokenizer.base import Tokenizer
from groundup.tokenizer.bpe import GPT2_PATTERN
from groundup.tokenizer.char import CharTokenizer


def write_gguf(path: Path, loaded: LoadedModel, config: TransformerConfig, name: str, *, q8_0: bool = False) -> None:
    """Write a model in float32, or its matrices in llama.cpp's 8 bits (Q8_0: a scale for each 32 weights).

    llama.cpp cuts words as GPT-2 does; a tokenizer that does not is left out of the file (`tokenizer.ggml.model` is
    none), and the program that runs the model deals in ids.

    Raises:
        UserError: The model is not a plain GPT-2, or the gguf package is missing.
    """
    config = as_gpt2(config, "the GPT-2 of llama.cpp")
    try:
        import gguf
    except ImportError:
        raise UserError("--format gguf needs the gguf package: pip install 'groundup[export]'") from None
    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_name(name)
    writer.add_description(f"exported by groundup {__version__}")
    writer.add_block_count(config.n_layer)
    writer.add_context_length(config.block_size)
    writer.add_embedding_length(config.n_embd)
    writer.add_feed_forward_length(4 * config.n_embd)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(NORM_EPS)
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0 if q8_0 else gguf.LlamaFileType.ALL_F32)
    _add_tokenizer(writer, loaded.tokenizer, gguf.TokenType)
    state = with_biases(loaded.model.state_dict(), config)
    for tensor_name, tensor in to_gguf(state, config.n_layer).items():
        values = tensor.float().numpy()
        if q8_0 and tensor.dim() == 2 and "position" not in tensor_name:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(tensor_name, gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(tensor_name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: Any, tokenizer: Tokenizer, kind: Any) -> None:
    bpe = None if isinstance(tokenizer, CharTokenizer) else published(tokenizer)
    if bpe is None or bpe.pattern != GPT2_PATTERN:
        writer.add_tokenizer_model("none")
        return
    ids = bpe.vocab | bpe.specials
    words = sorted(ids, key=ids.__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(words)
    writer.add_token_types([kind.CONTROL if word in bpe.specials else kind.NORMAL for word in words])
    writer.add_token_merges([" ".join(pair) for pair in bpe.merges])
    if tokenizer.eot_id is not None:
        writer.add_bos_token_id(tokenizer.eot_id)
        writer.add_eos_token_id(tokenizer.eot_id)
