"""What fewer bits per weight cost and bring: bytes, speed, the largest error of a logit, and loss.

All ways to store the weights are held at once and decode in turns, so that a machine that drifts is unfair to none.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float, Int
from torch import Tensor

from groundup.checkpoint.model_folder import LoadedModel, load_model
from groundup.config.data import ReadConfig
from groundup.config.errors import UsageError
from groundup.config.generate import SamplingConfig
from groundup.corpora.local_files import LocalFiles
from groundup.corpora.source import read_all
from groundup.evaluation.own_text import measure_text
from groundup.generation.engine import generate_ids
from groundup.generation.text import prompt_ids
from groundup.runtime.facts import machine_facts
from groundup.runtime.stored import DTYPES
from groundup.studies.options import WeightsOptions as Options

MOST_LOGITS = 1 << 25
"""Of the contexts that are decoded: 128 MB, for each way to store the weights."""


def bench(options: Options, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure every way to store the weights.

    Args:
        options: What to measure.
        say: Called with a line for each.

    Returns:
        For each: bytes of all weights, tokens per second of one text, the loss over the whole text and how much higher
        than fp32's it is. Of a few contexts, decoded token by token with a cache of keys and values: the largest
        difference of a logit to fp32's, and how much higher the loss is.

    Raises:
        UserError: The model or the text cannot be opened.
        UsageError: The model's context has no room for so many tokens.
    """
    device = torch.device("cpu")
    models = {name: load_model(options.model, device=device, rows=1, weights=name, say=say) for name in DTYPES}
    first = models["fp32"]
    room = first.config.block_size - 1
    if options.new_tokens > room:
        raise UsageError(f"new-tokens must be at most {room}, the model's context less one, got {options.new_tokens}")
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(1 + options.rounds):  # the first one warms up
        for name, loaded in models.items():
            seconds[name].append(_decode(loaded, options.new_tokens))
    source = LocalFiles(str(options.text), ReadConfig())
    document = next(document.text for _, document in read_all(source, source.parts(), {}))
    measured = {name: measure_text(m.model, m.tokenizer, source).as_json() for name, m in models.items()}
    contexts = _contexts(first, document)
    logits = {name: _decoded_logits(loaded, contexts) for name, loaded in models.items()}
    decoded = {name: _loss(logits[name], contexts) for name in models}
    rows: dict[str, Any] = {}
    for name, loaded in models.items():
        rows[name] = row = {
            "bytes": sum(parameter.nbytes for parameter in loaded.model.parameters()),
            "tokens_per_sec": round(options.new_tokens / statistics.median(seconds[name][1:]), 1),
            "largest_logit_error": float((logits[name] - logits["fp32"]).abs().max()),
            "decoded_loss_above_fp32": decoded[name] - decoded["fp32"],
            "loss": measured[name]["loss"],
            "loss_above_fp32": measured[name]["loss"] - measured["fp32"]["loss"],
        }
        say(
            f"{name:<6}{row['bytes'] / 1e6:>9,.1f} MB{row['tokens_per_sec']:>9,.1f} tokens/s   largest logit error"
            f" {row['largest_logit_error']:.2g}   loss {row['loss']:.4f} ({row['loss_above_fp32']:+.5f},"
            f" decoded {row['decoded_loss_above_fp32']:+.5f})"
        )
    return {
        "bench": "weights",
        **machine_facts(device),
        "threads": torch.get_num_threads(),
        "model": options.model.name,
        "text_tokens": measured["fp32"]["tokens"],
        "modes": rows,
    }


def _decode(loaded: LoadedModel, new_tokens: int) -> float:
    prompt = prompt_ids(loaded.tokenizer, "")[0]
    start = time.perf_counter()
    for _ in generate_ids(loaded.model, [prompt], max_new_tokens=new_tokens, sampling=SamplingConfig(top_k=50)):
        pass
    return time.perf_counter() - start


def _contexts(loaded: LoadedModel, text: str) -> Int[Tensor, "B T"]:
    """The first contexts of the text; a shorter text is one."""
    size = loaded.config.block_size
    room = max(1, MOST_LOGITS // (size * loaded.config.vocab_size))
    ids = torch.tensor(loaded.tokenizer.encode(text[: 16 * room * size])[: room * size])
    return ids[: len(ids) // size * size].view(-1, size) if len(ids) >= size else ids[None]


@torch.inference_mode()
def _decoded_logits(loaded: LoadedModel, contexts: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
    """At every position, each token read behind those before it, as decoding does."""
    cache = loaded.model.new_cache(*contexts.shape)
    return torch.cat([loaded.model(token, cache=cache).float() for token in torch.split(contexts, 1, dim=1)], dim=1)


def _loss(logits: Float[Tensor, "B T V"], contexts: Int[Tensor, "B T"]) -> float:
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), contexts[:, 1:].flatten()).item()
