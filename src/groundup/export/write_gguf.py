"""GGUF, the file of llama.cpp: keys, then tensors, in one file."""

import errno
import os
from pathlib import Path
from typing import Any

from groundup import __version__
from groundup.checkpoint.model_folder import LoadedModel
from groundup.config.errors import UserError
from groundup.config.model import TransformerConfig
from groundup.export.llama_cpp import llama_ids
from groundup.interop.hf_config import fitting
from groundup.interop.names import to_gguf, with_biases
from groundup.tokenizer.added import ALWAYS
from groundup.tokenizer.base import Tokenizer
from groundup.tokenizer.bpe import GPT2_PATTERN
from groundup.tokenizer.char import CharTokenizer
from groundup.tokenizer.probe import check_same, probe
from groundup.tokenizer.published import published


def write_gguf(path: Path, loaded: LoadedModel, config: TransformerConfig, name: str, *, q8_0: bool = False) -> None:
    """Write a model, and where llama.cpp is installed (xllamacpp), compare its ids with ours.

    Matrices are in float32, or in llama.cpp's 8 bits (Q8_0: a scale for each 32 weights).

    Raises:
        UserError: llama.cpp has no place for a part of the model or for its tokenizer, or the package is missing.
    """
    config = fitting(config, "the GPT-2 of llama.cpp", ("n_inner", "norm_eps", "tied_head"))
    if config.block_size == 1:
        raise UserError("llama.cpp has no place for a context of 1 token; --format onnx takes it")
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
    writer.add_feed_forward_length(config.mlp_width)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(config.norm_eps)
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
    end = writer.fout[0].tell()
    writer.close()
    if path.stat().st_size < end:  # NumPy does not tell what a disk refuses of the last bytes it holds back
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if (ids := llama_ids(path, probe(loaded.tokenizer))) is not None:
        check_same(loaded.tokenizer, ids, "llama.cpp")


def _add_tokenizer(writer: Any, tokenizer: Tokenizer, kind: Any) -> None:
    """Write the vocabulary in a form from which llama.cpp makes the same ids.

    Raises:
        UserError: It has no such form.
    """
    if isinstance(tokenizer, CharTokenizer):
        # RWKV's: the longest token that fits. Of llama.cpp's kinds it alone makes no id the end of a text by itself.
        writer.add_tokenizer_model("rwkv")
        ends = ["\\xff"] * tokenizer.separates  # a byte that is in no UTF-8: special tokens are found in text as well
        symbols = ["".join(f"\\x{byte:02x}" for byte in symbol.encode()) for symbol in tokenizer.symbols]
        writer.add_token_list(symbols + ends)
        writer.add_token_scores([0.0] * tokenizer.vocab_size)
        writer.add_token_types([kind.NORMAL] * len(symbols) + [kind.CONTROL] * len(ends))
        _add_ends(writer, tokenizer)
        return
    bpe = published(tokenizer)
    if bpe.pattern != GPT2_PATTERN:
        raise UserError(
            "llama.cpp cuts words by patterns of its own, and this tokenizer's is not GPT-2's: its ids would differ;"
            " --format hf and --format onnx take it"
        )
    ids = bpe.vocab | bpe.specials
    words = sorted(ids, key=ids.__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(words)
    always = {i for token, i in bpe.added.items() if ALWAYS in bpe.matching.get(token, ())}
    writer.add_token_types(
        [
            kind.USER_DEFINED if ids[word] in always else kind.CONTROL if word in bpe.specials else kind.NORMAL
            for word in words
        ]
    )
    writer.add_token_merges([" ".join(pair) for pair in bpe.merges])
    _add_ends(writer, tokenizer)


def _add_ends(writer: Any, tokenizer: Tokenizer) -> None:
    if tokenizer.eot_id is not None:
        writer.add_bos_token_id(tokenizer.eot_id)
        writer.add_eos_token_id(tokenizer.eot_id)
