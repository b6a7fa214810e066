"""Other programs that decode on CPUs, given the weights of ours by our own exports."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from groundup.checkpoint.model_folder import load_model, save_model
from groundup.config.io import load_json
from groundup.config.model import GPTConfig
from groundup.export.export_model import export_model
from groundup.export.llama_cpp import start_server
from groundup.export.write_gguf import write_gguf
from groundup.model.gpt import GPT
from groundup.model.init import init_weights
from groundup.tokenizer.char import CharTokenizer

FIRST = 0x10000
"""Characters from here on are the tokens: nobody reads what random weights write."""


def write_models(folder: Path, config: GPTConfig, contestants: Collection[str]) -> None:
    """Random weights as a model folder, and as what the contestants read.

    Args:
        folder: Gets `groundup`, and for those who need them `ct2`, `f32.gguf` and `q8_0.gguf`.
        config: The shape.
        contestants: Their names.
    """
    ours = folder / "groundup"
    tokenizer = CharTokenizer("".join(chr(FIRST + i) for i in range(config.vocab_size)))
    save_model(ours, init_weights(GPT(config), seed=0), tokenizer, {})
    if "CTranslate2" in contestants:
        export_model(ours, folder / "ct2", "ct2")
    if "llama.cpp F32" in contestants:
        loaded = load_model(ours)
        write_gguf(folder / "f32.gguf", loaded, config, "f32")
        write_gguf(folder / "q8_0.gguf", loaded, config, "q8_0", q8_0=True)


def ctranslate2_decoder(
    folder: Path, prompt: Sequence[int], *, new_tokens: int, samples: int, threads: int, compute_type: str
) -> Callable[[], None]:
    """A function that continues a prompt by CTranslate2.

    Args:
        folder: An export for it.
        prompt: Ids.
        new_tokens: How many tokens to draw.
        samples: Continuations, side by side.
        threads: Of the CPU.
        compute_type: float32 or int8: how the weights are stored when the model is loaded.
    """
    import ctranslate2

    generator = ctranslate2.Generator(
        str(folder), device="cpu", compute_type=compute_type, inter_threads=1, intra_threads=threads
    )
    words = load_words(folder)
    tokens = [words[i] for i in prompt]

    def run() -> None:
        generator.generate_batch(
            [tokens] * samples,
            max_batch_size=samples,
            max_length=new_tokens,
            min_length=new_tokens,
            sampling_topk=min(50, len(words)),
            sampling_temperature=0.8,
            include_prompt_in_result=False,
        )

    return run


def load_words(folder: Path) -> list[str]:
    """The tokens of a CTranslate2 folder, by id."""
    return load_json(folder / "vocabulary.json")


def llamacpp_decoder(path: Path, prompt: Sequence[int], *, new_tokens: int, threads: int) -> Callable[[], None]:
    """A function that continues a prompt by llama.cpp.

    Args:
        path: A GGUF file.
        prompt: Ids.
        new_tokens: How many tokens to draw.
        threads: Of the CPU.
    """
    server = start_server(path, room=len(prompt) + new_tokens, threads=threads)
    request: dict[str, Any] = {
        "prompt": list(prompt),
        "max_tokens": new_tokens,
        "temperature": 0.8,
        "top_k": 50,
        "ignore_eos": True,
        "cache_prompt": False,
    }

    def run() -> None:
        answer = server.handle_completions(request)
        drawn = answer["usage"]["completion_tokens"]
        if drawn != new_tokens:
            raise RuntimeError(f"llama.cpp drew {drawn} tokens instead of {new_tokens}")

    return run
