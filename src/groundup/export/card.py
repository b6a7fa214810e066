"""The README.md of an exported folder: what the model is, what it learned from, how well, how to run it."""

from collections.abc import Iterable, Mapping
from typing import Any

from groundup.checkpoint.model_folder import LoadedModel
from groundup.config.errors import UserError
from groundup.config.model import TransformerConfig
from groundup.planner.params import count_parameters, has_position_table
from groundup.tokenizer.base import Tokenizer

_RUN = {
    "groundup": """```
groundup generate FOLDER --prompt "PROMPT"
```""",
    "hf": """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("FOLDER")
model = AutoModelForCausalLM.from_pretrained("FOLDER")
ids = tokenizer("PROMPT", return_tensors="pt").input_ids
print(tokenizer.decode(model.generate(ids, max_new_tokens=50, do_sample=True)[0]))
```""",
    "gguf": """```
llama-cli --model model.gguf --prompt "PROMPT" --predict 50 --no-conversation
```

or in Python, with `pip install 'groundup[llama]'`:

```python
import xllamacpp

params = xllamacpp.CommonParams()
params.model.path = "FOLDER/model.gguf"
params.n_ctx = CONTEXT
server = xllamacpp.Server(params)
answer = server.handle_completions({"prompt": "PROMPT", "max_tokens": 50})
print(answer["choices"][0]["text"])
```""",
    "onnx": """```python
import numpy
import onnxruntime
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file("FOLDER/tokenizer.json")
session = onnxruntime.InferenceSession("FOLDER/model.onnx")
ids = tokenizer.encode("PROMPT").ids
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
tokens = tokenizer.encode("PROMPT").tokens
result = generator.generate_batch([tokens], max_length=50, sampling_topk=0)[0]
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
            _RUN[kind].replace("PROMPT", _prompt(loaded.tokenizer)).replace("CONTEXT", str(config.block_size)),
            "",
        ]
    )


def _prompt(tokenizer: Tokenizer) -> str:
    """A beginning that the tokenizer can express."""
    try:
        tokenizer.encode("The ")
    except UserError:
        letters = [s for s in tokenizer.decode(range(tokenizer.vocab_size)) if s.isalnum()]
        return "".join(letters[:3]) or tokenizer.decode([0])
    return "The "


def _table(rows: Iterable[tuple[str, str]]) -> list[str]:
    return ["| | |", "|---|---|", *(f"| {what} | {value} |" for what, value in rows), ""]


def _facts(info: dict[str, Any], config: TransformerConfig) -> list[tuple[str, str]]:
    facts = []
    if (data := info.get("data")) is not None:
        facts.append(("data", f"{data}"))
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
