"""What we write, read by the programs it is for: equal logits, equal tensors, equal ids."""

import json
import subprocess
import sys
from typing import get_args

import numpy as np
import pytest
import torch

from folders_of_models import expected, saved
from forked import ForkedPopen, output_of
from groundup.checkpoint.model_folder import load_model
from groundup.config.errors import UsageError, UserError
from groundup.config.generate import SamplingConfig
from groundup.config.model import ModernConfig
from groundup.export.card import model_card
from groundup.export.export_model import export_model
from groundup.export.formats import ExportFormat
from groundup.export.llama_cpp import llama_ids
from groundup.generation.text import TextGenerator
from groundup.interop.import_model import import_model
from groundup.model.bigram import fit_bigram
from groundup.tokenizer.bpe import ByteBPE
from groundup.tokenizer.char import CharTokenizer


def test_gguf_holds_the_same_tensors(tmp_path, make_model, letters, shape):
    gguf = pytest.importorskip("gguf")
    model = make_model(**shape)
    export_model(saved(tmp_path, model, letters), tmp_path / "out", "gguf")
    reader = gguf.GGUFReader(tmp_path / "out" / "model.gguf")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPT2, shape["n_layer"])
    theirs = {tensor.name: tensor.data for tensor in reader.tensors}
    assert len(theirs) == len(model.state_dict())
    for name, p in model.state_dict().items():
        data = theirs[names.get_name(f"transformer.{name}", try_suffixes=(".weight", ".bias"))]
        assert data.dtype == np.float32
        assert np.array_equal(data, p.numpy()), name
    value = {name: field.contents() for name, field in reader.fields.items()}
    assert value["general.architecture"] == "gpt2"
    assert value["gpt2.block_count"] == shape["n_layer"]
    assert value["gpt2.attention.head_count"] == shape["n_head"]
    assert value["gpt2.embedding_length"] == shape["n_embd"]
    assert value["gpt2.feed_forward_length"] == 4 * shape["n_embd"]
    assert value["gpt2.context_length"] == 32
    assert value["gpt2.attention.layer_norm_epsilon"] == pytest.approx(1e-5)
    assert (value["tokenizer.ggml.model"], value["gpt2.vocab_size"]) == ("rwkv", 27)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are UTF-8")
@pytest.mark.parametrize("kind", get_args(ExportFormat))
def test_a_folder_whose_name_is_no_utf8(tmp_path, make_model, letters, kind):
    source, out = saved(tmp_path, make_model(), letters), tmp_path / "x\udce4"
    if kind in ("gguf", "ct2"):
        with pytest.raises(UserError, match=rf"the libraries of {kind} open files by names in UTF-8 alone, and .*/x"):
            export_model(source, out, kind)
        assert not out.exists()
        return
    if kind == "onnx":
        pytest.importorskip("onnx")
    export_model(source, out, kind)
    assert "x\\udce4" in (out / "README.md").read_text("utf-8")


@pytest.mark.fault(
    "A7",
    "the disk takes no more while a model is exported, as hf, gguf or onnx",
    "one line that names the folder; nothing of it is left",
)
@pytest.mark.skipif(sys.platform == "win32", reason="sets the system's limit of a file's size")
@pytest.mark.parametrize("kind", ["hf", "gguf", "onnx"])
def test_a_disk_that_takes_no_more(tmp_path, make_model, letters, kind):
    import resource

    if kind != "hf":
        pytest.importorskip(kind)
    folder = saved(tmp_path, make_model(), letters)
    export_model(folder, tmp_path / "whole", kind)  # imports what is imported late
    largest = max(file.stat().st_size for file in (tmp_path / "whole").iterdir())
    least, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest - 100, most))  # the kernel refuses what is beyond
    try:
        with pytest.raises(UserError) as refused:
            export_model(folder, tmp_path / "out", kind)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (least, most))
    reasons = ("File too large", "No space left on device")
    assert str(refused.value) in [f"cannot write {tmp_path / 'out'}: {reason}" for reason in reasons]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({folder.name, "whole"})


def test_gguf_carries_a_byte_level_bpe(tmp_path, make_model):
    gguf = pytest.importorskip("gguf")
    tokenizer = ByteBPE([(108, 108), (104, 101), (257, 256)])
    folder = saved(tmp_path, make_model(vocab_size=260), tokenizer)
    export_model(folder, tmp_path / "out", "gguf")
    fields = gguf.GGUFReader(tmp_path / "out" / "model.gguf").fields
    assert fields["tokenizer.ggml.model"].contents() == "gpt2"
    tokens = fields["tokenizer.ggml.tokens"].contents()
    assert tokens[256:] == ["ll", "he", "hell", "<|endoftext|>"]
    assert (tokens[ord("a")], tokens[ord(" ")]) == ("a", "Ġ")
    assert fields["tokenizer.ggml.merges"].contents() == ["l l", "h e", "he ll"]
    assert fields["tokenizer.ggml.eos_token_id"].contents() == 259


@pytest.mark.slow
def test_gguf_carries_gpt2s_tokenizer(tmp_path, make_model, gpt2, hf_gpt2):
    gguf = pytest.importorskip("gguf")
    folder = saved(tmp_path, make_model(n_layer=1, n_embd=2, vocab_size=50257), gpt2)
    export_model(folder, tmp_path / "out", "gguf")
    fields = gguf.GGUFReader(tmp_path / "out" / "model.gguf").fields
    assert fields["tokenizer.ggml.model"].contents() == "gpt2"
    assert fields["tokenizer.ggml.pre"].contents() == "gpt-2"
    tokens = fields["tokenizer.ggml.tokens"].contents()
    assert {token: i for i, token in enumerate(tokens)} == json.loads(hf_gpt2[0]["vocab.json"])
    assert fields["tokenizer.ggml.merges"].contents() == hf_gpt2[0]["merges.txt"].splitlines()[1:]
    kinds = fields["tokenizer.ggml.token_type"].contents()
    assert [i for i, kind in enumerate(kinds) if kind != gguf.TokenType.NORMAL] == [50256]
    assert fields["tokenizer.ggml.eos_token_id"].contents() == 50256


SWITCHES = {
    "smear": True,
    "ngram": 3,
    "norm": "rms",
    "norm_eps": 1e-2,
    "n_inner": 24,
    "activation": "relu2",
    "n_kv_head": 2,
    "qk_norm": True,
    "value_residual": True,
    "stream_scales": True,
    "tied_head": False,
    "logit_softcap": 3.0,
}
VARIANTS = [
    *({"position": position, "bias": bias} for position in ("learned", "rope") for bias in (True, False)),
    {"position": "rope", "rope_share": 0.5},
    *({"position": "learned", name: value} for name, value in SWITCHES.items()),
    *({"position": "learned", "activation": name} for name in ("gelu", "relu")),
    {"position": "rope", "bias": False, **SWITCHES},
]


@pytest.mark.parametrize("options", VARIANTS, ids=lambda options: ",".join(map(str, options.values())))
def test_onnxruntime_gives_the_same_logits(tmp_path, make_model, letters, options):
    assert set(SWITCHES) == set(ModernConfig.AS_GPT2) - {"position", "proj_init"}
    runtime, onnx = pytest.importorskip("onnxruntime"), pytest.importorskip("onnx")
    folder = saved(tmp_path, make_model(**options, n_layer=3, n_head=4), letters)
    export_model(folder, tmp_path / "out", "onnx")
    onnx.checker.check_model(tmp_path / "out" / "model.onnx", full_check=True)
    session = runtime.InferenceSession(tmp_path / "out" / "model.onnx")
    for size in ((1, 1), (2, 32), (3, 7)):
        idx = torch.randint(27, size)
        (logits,) = session.run(None, {"input_ids": idx.numpy()})
        torch.testing.assert_close(torch.from_numpy(logits), expected(folder, idx), atol=2e-5, rtol=1e-4)


def test_onnx_of_the_published_proportions(tmp_path, make_model, letters, shape):
    runtime = pytest.importorskip("onnxruntime")
    folder = saved(tmp_path, make_model(**shape), letters)
    export_model(folder, tmp_path / "out", "onnx")
    idx = torch.randint(27, (2, 32))
    (logits,) = runtime.InferenceSession(tmp_path / "out" / "model.onnx").run(None, {"input_ids": idx.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), expected(folder, idx), atol=2e-5, rtol=1e-4)


def test_large_onnx_weights_lie_beside_the_graph(folder, tmp_path, monkeypatch):
    runtime = pytest.importorskip("onnxruntime")
    monkeypatch.setattr("groundup.export.onnx_graph.ONE_FILE_BYTES", 1000)
    export_model(folder, tmp_path / "out", "onnx")
    assert (tmp_path / "out" / "model.onnx.data").stat().st_size > 10_000
    idx = torch.randint(27, (1, 9))
    (logits,) = runtime.InferenceSession(tmp_path / "out" / "model.onnx").run(None, {"input_ids": idx.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), expected(folder, idx), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_ctranslate2_gives_the_same_logits(tmp_path, make_model, letters, dtype):
    ctranslate2 = pytest.importorskip("ctranslate2")
    folder = saved(tmp_path, make_model(n_layer=3, n_head=4).to(dtype), letters)
    export_model(folder, tmp_path / "out", "ct2")
    generator = ctranslate2.Generator(str(tmp_path / "out"), compute_type="float32")
    idx = torch.randint(27, (2, 32))
    logits = generator.forward_batch([[letters.symbols[i] for i in row] for row in idx.tolist()])
    torch.testing.assert_close(torch.from_numpy(np.array(logits)), expected(folder, idx), atol=2e-5, rtol=1e-4)
    assert {p.name for p in tmp_path.iterdir()} == {"model", "out"}  # nothing is left of the folder in between


@pytest.mark.parametrize(
    "switches", [{"activation": "gelu", "n_inner": 40}, {"activation": "relu"}, {"tied_head": False}], ids=str
)
def test_ctranslate2_takes_other_activations_widths_and_heads(tmp_path, make_model, letters, switches):
    ctranslate2 = pytest.importorskip("ctranslate2")
    folder = saved(tmp_path, make_model(**ModernConfig.AS_GPT2 | switches), letters)
    export_model(folder, tmp_path / "out", "ct2")
    generator = ctranslate2.Generator(str(tmp_path / "out"), compute_type="float32")
    idx = torch.randint(27, (2, 32))
    logits = generator.forward_batch([[letters.symbols[i] for i in row] for row in idx.tolist()])
    torch.testing.assert_close(torch.from_numpy(np.array(logits)), expected(folder, idx), atol=2e-5, rtol=1e-4)


def test_all_that_ctranslate2_has_no_place_for_is_named_at_once(tmp_path, make_model, letters):
    folder = saved(tmp_path, make_model(**ModernConfig.AS_GPT2 | {"activation": "relu2", "norm": "rms"}), letters)
    with pytest.raises(UserError, match=r"--model.norm layer --model.activation gelu_tanh$"):
        export_model(folder, tmp_path / "out", "ct2")


@pytest.mark.parametrize("kind", ["hf", "gguf", "ct2"])
def test_rotary_models_are_refused_with_the_reason(tmp_path, make_model, letters, kind):
    folder = saved(tmp_path, make_model(position="rope"), letters)
    with pytest.raises(UserError, match=r"no place for model.position rope, only for GPT-2's learned") as error:
        export_model(folder, tmp_path / "out", kind)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_context_that_llama_cpp_does_not_take_is_refused_with_the_reason(tmp_path, make_model, letters):
    pytest.importorskip("gguf")
    folder = saved(tmp_path, make_model(block_size=1), letters)
    with pytest.raises(UserError, match=r"llama\.cpp has no place for a context of 1 token; --format onnx takes it"):
        export_model(folder, tmp_path / "out", "gguf")


@pytest.mark.parametrize("kind", get_args(ExportFormat))
def test_a_bigram_is_refused(tmp_path, letters, kind):
    folder = saved(tmp_path, fit_bigram(torch.randint(27, (500,)).numpy(), 27), letters)
    with pytest.raises(UserError, match="is a bigram: only GPTs"):
        export_model(folder, tmp_path / "out", kind)


@pytest.mark.parametrize(("kind", "module"), [("gguf", "gguf"), ("onnx", "onnx"), ("ct2", "ctranslate2.converters")])
def test_a_missing_package_is_named(folder, tmp_path, monkeypatch, kind, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=r"pip install 'groundup\[export\]'"):
        export_model(folder, tmp_path / "out", kind)
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten(folder, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="out is there already"):
        export_model(folder, tmp_path / "out", "hf")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("kind", ["hf", "gguf", "onnx"])
def test_the_card_says_what_the_model_is(folder, tmp_path, kind):
    pytest.importorskip("gguf")
    pytest.importorskip("onnx")
    export_model(folder, tmp_path / "poet", kind)
    card = (tmp_path / "poet" / "README.md").read_text()
    assert card.startswith("---\nlicense: unknown\n")
    for words in ("# poet", "shakespeare", "1.5000 nats per token", "| layers | 2 |", "## License"):
        assert words in card, words
    assert f"{sum(p.numel() for p in load_model(folder).model.parameters()):,} parameters" in card
    assert pytest.importorskip("huggingface_hub").ModelCard(card).data.license == "unknown"


def test_a_name_does_not_break_the_cards_table(folder):
    loaded = load_model(folder)
    loaded.info["data"] = "text: a|b\n.txt"
    card = model_card(loaded, loaded.config, name="poet", kind="hf", scores={"a|b": "1.5"}, curve=None)
    assert "\n| data | text: a\\|b\\n.txt |\n" in card
    assert "\n| a\\|b | 1.5 |\n" in card


@pytest.mark.parametrize(
    ("tokenizer", "prompt"),
    [
        (ByteBPE([(97, 98)], ids=[-1] * 256 + [0, 1]), "ab"),  # of its bytes none has an id
        (ByteBPE([], ids=[-1] * 256 + [0]), "''"),
    ],
)
def test_the_cards_prompt_is_one_that_the_tokenizer_can_express(tmp_path, make_model, tokenizer, prompt):
    loaded = load_model(saved(tmp_path, make_model(vocab_size=tokenizer.vocab_size, block_size=1), tokenizer))
    card = model_card(loaded, loaded.config, name="poet", kind="groundup", scores={}, curve=None)
    assert f"--prompt {prompt}\n" in card


NEEDS = {"hf": "transformers", "gguf": "xllamacpp", "onnx": "onnxruntime", "ct2": "ctranslate2"}


@pytest.mark.parametrize("kind", NEEDS)
@pytest.mark.parametrize(
    ("alphabet", "context", "begins"),
    [("\n abcdefghijklmnopqrstuvwxé", 64, "abc"), (None, 64, "The "), ("\n \"\\'.", 8, "\"\\'")],
)
def test_the_cards_program_runs(tmp_path, make_model, capsys, kind, alphabet, context, begins):
    """The Python code of the card, as it is but for the folder's name and a seed."""
    pytest.importorskip(NEEDS[kind])
    tokenizer = CharTokenizer(alphabet) if alphabet else ByteBPE([(108, 108), (104, 101), (257, 256)])
    folder = saved(tmp_path, make_model(vocab_size=tokenizer.vocab_size, block_size=context), tokenizer)
    export_model(folder, tmp_path / "poet", kind)
    card = (tmp_path / "poet" / "README.md").read_text()
    capsys.readouterr()
    code = card.split("```python\n")[1].split("```")[0].replace("FOLDER", str(tmp_path / "poet"))
    code = code.replace('"max_tokens"', '"seed": 1, "max_tokens"')  # each draw of these two may end the text
    if kind == "gguf":  # threads of llama.cpp would wait at the end, and for each other on a busy machine
        code = code.replace(
            "params.n_ctx", "params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1\nparams.n_ctx"
        )
        ended = "\nimport os, sys\nsys.stdout.flush()\nos._exit(0)"
        text = output_of(code + ended)
    else:
        if kind == "ct2":
            pytest.importorskip("ctranslate2").set_random_seed(2)
        exec(code, {"__name__": "__main__"})
        text = capsys.readouterr().out
    assert kind in ("gguf", "ct2") or text.startswith(begins)  # these two print what is new
    assert len(text) > 5


LLAMA = """
import json, os, sys
from pathlib import Path
from groundup.export.llama_cpp import ask, start_server
server = start_server(Path(sys.argv[1]))
for prompt in json.loads(sys.argv[2]):
    answer = ask(server, "/completion", prompt=prompt, n_predict=40, top_k=1, temperature=0)
    print("\\nANSWER" + json.dumps(answer["content"]))
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.parametrize("alphabet", ["\n abcdefghijklmnopqrstuvwxé▁\\'\"", None])
@pytest.mark.parametrize("switches", [{}, {"n_inner": 40, "norm_eps": 1e-2}, {"tied_head": False}], ids=str)
def test_llama_cpp_writes_the_same_text(tmp_path, make_model, alphabet, switches):
    """Greedily; the ids 1 and 2, at which llama.cpp would like to stop, are characters like any other."""
    pytest.importorskip("xllamacpp")
    tokenizer = CharTokenizer(alphabet) if alphabet else ByteBPE([(108, 108), (104, 101), (257, 256)])
    more = ModernConfig.AS_GPT2 | switches if switches else {}
    folder = saved(tmp_path, make_model(vocab_size=tokenizer.vocab_size, block_size=64, **more), tokenizer)
    export_model(folder, tmp_path / "out", "gguf")
    prompts = ["ab c", "b a", "\n"]
    lines = output_of(LLAMA, str(tmp_path / "out" / "model.gguf"), json.dumps(prompts)).splitlines()
    theirs = [json.loads(line.removeprefix("ANSWER")) for line in lines if line.startswith("ANSWER")]
    loaded, greedy = load_model(folder), SamplingConfig(temperature=0)
    speaker = TextGenerator(loaded.model, loaded.tokenizer)
    ours = [speaker.generate(prompt, max_new_tokens=40, sampling=greedy)[0] for prompt in prompts]
    if alphabet:
        assert theirs == ours
        assert switches or {1, 2} & set(tokenizer.encode("".join(ours)))
    else:  # bytes that are not UTF-8 are shown otherwise
        cut = [text.split("\ufffd")[0] for text in ours]
        assert [text[: len(known)] for text, known in zip(theirs, cut, strict=True)] == cut


def test_the_end_of_a_document_of_characters_is_kept(tmp_path, make_model):
    """Out to transformers and back; in llama.cpp it ends a text, and no text becomes it."""
    pytest.importorskip("xllamacpp")
    transformers = pytest.importorskip("transformers")
    tokenizer = CharTokenizer("\n abcdefghijklmnopqrstuvwxyz<|>_", separates=True)
    model = make_model(vocab_size=tokenizer.vocab_size, block_size=64)
    folder = saved(tmp_path, model, tokenizer)
    export_model(folder, tmp_path / "out", "hf")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert theirs("ab<|endoftext|>c").input_ids == [2, 3, tokenizer.eot_id, 4]
    import_model(str(tmp_path / "out"), tmp_path / "again")
    assert load_model(tmp_path / "again").tokenizer.fingerprint == tokenizer.fingerprint
    export_model(folder, tmp_path / "gguf", "gguf")
    ids = llama_ids(tmp_path / "gguf/model.gguf", "ab<|endoftext|>c")
    assert ids == tokenizer.encode("ab<|endoftext|>c")
    gguf = pytest.importorskip("gguf")
    fields = gguf.GGUFReader(tmp_path / "gguf/model.gguf").fields
    assert fields["tokenizer.ggml.eos_token_id"].contents() == tokenizer.eot_id
    assert len(fields["tokenizer.ggml.tokens"].contents()) == tokenizer.vocab_size


ENDS = """
import sys
from groundup.export import llama_cpp

class Server:
    def __del__(self):
        print("ended", flush=True)

def answer(server, path, **values):
    if sys.argv[1] == "gone":
        raise OSError("nobody answers")
    return {"tokens": [1, 2]}

llama_cpp.start_server, llama_cpp.ask = lambda file: Server(), answer
sys.stdin = open(sys.argv[2])
llama_cpp.main()
"""


@pytest.mark.parametrize(("file", "told"), [("there", "\n[1, 2]\n"), ("gone", "")])
def test_llama_cpp_is_left_and_not_ended(tmp_path, file, told):
    """Its server waits for a loop that may not have begun when it is ended: then nobody ever comes back."""
    (tmp_path / "text").write_text("ab")
    command = [sys.executable, "-c", ENDS, file, str(tmp_path / "text")]
    process = ForkedPopen(command, stdout=subprocess.PIPE, text=True)
    assert process.communicate(240)[0] == told
    assert process.returncode == (file == "gone")


def test_a_run_folder_is_exported_by_its_model(folder, tmp_path):
    export_model(tmp_path, tmp_path / "out", "hf")
    assert (tmp_path / "out" / "config.json").is_file()
