"""The README.md of an exported folder: what the model is, what it learned from, how well, how to run it."""

import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from groundup.checkpoint.model_folder import LoadedModel
from groundup.config.errors import UserError
from groundup.config.model import TransformerConfig
from groundup.config.printable import printable
from groundup.planner.params import count_parameters, has_position_table
from groundup.tokenizer.base import Tokenizer

_RUN = {
    "groundup": """```
groundup generate FOLDER --prompt SHELL
```""",
    "hf": """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("FOLDER")
model = AutoModelForCausalLM.from_pretrained("FOLDER")
ids = tokenizer(PROMPT, return_tensors="pt").input_ids
print(tokenizer.decode(model.generate(ids, max_new_tokens=NEW, do_sample=True)[0]))
```""",
    "gguf": """```
llama-cli --model model.gguf --prompt SHELL --predict NEW --no-conversation
```

or in Python, with `pip install 'groundup[llama]'`:

```python
import xllamacpp

params = xllamacpp.CommonParams()
params.model.path = "FOLDER/model.gguf"
params.n_ctx = CONTEXT
server = xllamacpp.Server(params)
answer = server.handle_completions({"prompt": PROMPT, "max_tokens": NEW})
print(answer["choices"][0]["text"])
```""",
    "onnx": """```python
import numpy
import onnxruntime
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file("FOLDER/tokenizer.json")
session = onnxruntime.InferenceSession("FOLDER/model.onnx")
ids = tokenizer.encode(PROMPT).ids
for _ in range(50):
    (logits,) = session.run(None, {"input_ids": numpy.array([ids[-CONTEXT:]])})  # (batch, tokens, vocabulary)
    ids.append(int(logits[0, -1].argmax()))
print(tokenizer.decode(ids))
```""",
    "ct2": """```python
import ctranslate2
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file("FOLDER/tokenizer.json")
generator = ctranslate2.Generator("FOLDER")
tokens = tokenizer.encode(PROMPT).tokens
result = generator.generate_batch([tokens], max_length=NEW, sampling_topk=0)[0]
print(tokenizer.decode(result.sequences_ids[0]))
```""",
}


def model_card(
    loaded: LoadedModel,
    config: TransformerConfig,
    *,
    name: str,
    kind: str,
    scores: Mapping[str, str],
    curve: str | None,
) -> str:
    """The text of README.md.

    Args:
        loaded: The model and what training noted of it.
        config: Its shape.
        name: The title.
        kind: The format of the folder, which decides how it is run.
        scores: Task, and what was measured.
        curve: The file beside the card that shows its loss, if there is one.
    """
    facts = _table(_facts(loaded.info, config))
    measured = _table(scores.items()) if scores else ["None were measured: `groundup eval` does it.", ""]
    picture = ["## Training", "", f"![Loss of training and validation]({curve})", ""] if curve else []
    return "\n".join(
        [
            "---",
            "license: unknown",
            *(["library_name: transformers"] if kind == "hf" else []),
            "pipeline_tag: text-generation",
            "tags: [gpt2, groundup]",
            "---",
            "",
            f"# {name}",
            "",
            f"A GPT-2 of {count_parameters(config):,} parameters, exported by groundup.",
            "",
            *facts,
            *picture,
            "## Scores",
            "",
            *measured,
            "## License",
            "",
            "None has been chosen. Name it here and in the first lines of this file before you share the model; the",
            "license of the data it learned from may bind you.",
            "",
            "## How to run it",
            "",
            _program(kind, loaded.tokenizer, config.block_size),
            "",
        ]
    )


def _program(kind: str, tokenizer: Tokenizer, context: int) -> str:
    """How to run it: with a prompt, and as many tokens more as the context holds."""
    prompt = _prompt(tokenizer)
    while len(prompt) > 1 and len(tokenizer.encode(prompt)) >= max(2, context):
        prompt = prompt[:-1]
    new = max(1, min(50, context - len(tokenizer.encode(prompt))))
    program = _RUN[kind].replace("NEW", str(new)).replace("CONTEXT", str(context))
    return program.replace("SHELL", shlex.quote(prompt)).replace("PROMPT", repr(prompt))


def _prompt(tokenizer: Tokenizer) -> str:
    """A beginning that the tokenizer can express, of symbols that can be seen where it has any."""

    def can(text: str) -> bool:
        try:
            return bool(tokenizer.encode(text))
        except UserError:
            return False

    if can("The "):
        return "The "
    texts = list(filter(can, map(tokenizer.decode, ([i] for i in range(tokenizer.vocab_size)))))
    symbols = [text for text in texts if len(text) == 1]
    letters = [s for s in symbols if s.isalnum()] or [s for s in symbols if s.isprintable() and s.strip()]
    return "".join(letters[:3]) or next(iter(symbols or texts), "")  # bytes of a BPE may have no ids


def _table(rows: Iterable[tuple[str, str]]) -> list[str]:
    return ["| | |", "|---|---|", *(f"| {_cell(what)} | {_cell(value)} |" for what, value in rows), ""]


def _cell(text: str) -> str:
    """Text in a table of Markdown, in which a bar or a new line would end the cell."""
    return printable(text).replace("\n", "\\n").replace("|", "\\|")


def _facts(info: dict[str, Any], config: TransformerConfig) -> list[tuple[str, str]]:
    facts = []
    if (data := info.get("data")) is not None:
        facts.append(("data", f"{data}"))
    if (before := info.get("init_from")) is not None:
        facts.append(("went on from", f"{before}"))
    if (source := info.get("source")) is not None:
        facts.append(("imported from", f"{source}"))
    if (step := info.get("step")) is not None:
        facts.append(("trained steps", f"{step:,}"))
    loss = info.get("val_loss")
    facts.append(("validation loss", "not measured" if loss is None else f"{loss:.4f} nats per token"))
    facts += [
        ("layers", f"{config.n_layer}"),
        ("heads", f"{config.n_head}"),
        ("width", f"{config.n_embd}"),
        ("context", f"{config.block_size} tokens"),
        ("vocabulary", f"{config.vocab_size} ids"),
        ("positions", "learned" if has_position_table(config) else "rotary"),
        ("biases", "yes" if config.bias else "no"),
    ]
    return facts
