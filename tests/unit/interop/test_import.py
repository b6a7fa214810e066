"""Models of transformers, nanoGPT and llm.c, made here with random weights, against what they compute themselves."""

import json
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from safetensors.torch import save_model as save_model_of_safetensors

from folders_of_models import assert_same_function, bring, nanogpt_checkpoint
from groundup.checkpoint.model_folder import load_model, save_model
from groundup.config.errors import UsageError, UserError
from groundup.config.model import ModernConfig
from groundup.export.export_model import export_model
from groundup.files.foreign import other_programs
from groundup.interop.import_model import import_model
from groundup.tokenizer.bpe import GPT2_PATTERN, ByteBPE


def test_a_folder_of_transformers(place, make_hf, shape):
    theirs = make_hf(**shape)
    theirs.save_pretrained("theirs")
    loaded = bring("theirs")
    assert_same_function(loaded.model, theirs)
    assert loaded.info == {"source": "theirs"}
    assert sum(p.numel() for p in loaded.model.parameters()) == sum(p.numel() for p in theirs.parameters())


@pytest.mark.parametrize(
    "options",
    [
        {"activation_function": "gelu"},
        {"activation_function": "relu"},
        {"activation_function": "gelu_fast"},
        {"activation_function": "gelu_accurate"},
        {"n_inner": 24},
        {"layer_norm_epsilon": 1e-2},
        {"activation_function": "relu", "n_inner": 80, "layer_norm_epsilon": 1e-3},
    ],
    ids=str,
)
def test_another_activation_width_or_epsilon_there_and_back(place, make_hf, options):
    transformers = pytest.importorskip("transformers")
    theirs = make_hf(**options)
    theirs.save_pretrained("theirs")
    loaded = bring("theirs")
    assert_same_function(loaded.model, theirs)
    assert isinstance(loaded.config, ModernConfig) == (
        options not in ({"activation_function": "gelu_fast"}, {"activation_function": "gelu_accurate"})
    )
    export_model(Path("ours"), Path("again"), "hf")
    again = transformers.AutoModelForCausalLM.from_pretrained("again")
    assert_same_function(loaded.model, again)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "options",
    [
        {"scale_attn_by_inverse_layer_idx": True},
        {"scale_attn_weights": False},
        {"scale_attn_weights": False, "scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True},
        {"reorder_and_upcast_attn": True},
    ],
    ids=str,
)
def test_another_scale_of_attention_becomes_one_of_queries(place, make_hf, options, dtype):
    transformers = pytest.importorskip("transformers")
    made = make_hf(n_layer=3, attn_implementation="eager", **options)
    with torch.no_grad():
        for block in made.transformer.h:
            block.attn.c_attn.weight *= 4  # else all scores are near zero, and no scale matters
            block.attn.c_attn.bias.normal_()
    made.to(dtype).save_pretrained("theirs")
    theirs = transformers.GPT2LMHeadModel.from_pretrained("theirs", dtype=torch.float32, attn_implementation="eager")
    foreign = import_model("theirs", Path("ours"), tokenizer="letters.json")
    assert_same_function(load_model(Path("ours")).model, theirs.eval(), atol=3e-5)
    assert ("scale of attention stands in the weights" in foreign.note) == (
        len(options) > 1 or "reorder" not in str(options)
    )
    for name in options:
        setattr(theirs.config, name, name == "scale_attn_weights")
    usual = transformers.GPT2LMHeadModel(theirs.config).eval()
    usual.load_state_dict(theirs.state_dict())
    if foreign.note:  # the switches of the case do change the function
        with pytest.raises(AssertionError):
            assert_same_function(load_model(Path("ours")).model, usual, atol=1e-2)


@pytest.mark.parametrize("name", ["attn.c_attn.weight", "attn.c_attn.bias", "mlp.c_fc.weight"])
def test_a_number_in_place_of_a_matrix_is_one_line(place, make_hf, name):
    made = make_hf(scale_attn_by_inverse_layer_idx=True)
    made.save_pretrained("theirs")
    state = made.state_dict() | {f"transformer.h.0.{name}": torch.tensor(1.0)}
    del state["lm_head.weight"]
    save_file(state, "theirs/model.safetensors")
    torch.save(state, "theirs.pt")
    for source in ("theirs", "theirs.pt"):
        with pytest.raises(UserError, match=rf"h.0.{name}.*(shape|is \(\))"):
            import_model(source, Path("ours"), tokenizer="letters.json", n_head=None if source == "theirs" else 2)


def test_weights_of_64_bits_keep_them_with_another_scale(place, make_hf):
    make_hf(n_layer=2, scale_attn_weights=False).double().save_pretrained("theirs")
    import_model("theirs", Path("ours"), tokenizer="letters.json")
    assert {tensor.dtype for tensor in load_file("ours/model.safetensors").values()} == {torch.float64}


@pytest.mark.parametrize("told", [False, True, None], ids=["untied", "tied", "nothing"])
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin", "shards"])
def test_a_head_of_its_own_there_and_back(place, make_hf, told, file):
    """Where the config says that the head is tied and the tensors differ, transformers believes the tensors."""
    transformers = pytest.importorskip("transformers")
    make_hf(tie_word_embeddings=False).save_pretrained("theirs", max_shard_size="8KB" if file == "shards" else "1GB")
    config = json.loads(Path("theirs/config.json").read_text())
    said = {} if told is None else {"tie_word_embeddings": told}
    Path("theirs/config.json").write_text(json.dumps({k: v for k, v in config.items() if k[:3] != "tie"} | said))
    if file == "pytorch_model.bin":
        torch.save(load_file("theirs/model.safetensors"), "theirs/pytorch_model.bin")
        Path("theirs/model.safetensors").unlink()
    theirs = transformers.AutoModelForCausalLM.from_pretrained("theirs").eval()
    assert not torch.equal(theirs.lm_head.weight, theirs.transformer.wte.weight)
    loaded = bring("theirs")
    assert_same_function(loaded.model, theirs)
    assert loaded.config == replace(ModernConfig.of(loaded.config), **ModernConfig.AS_GPT2 | {"tied_head": False})
    export_model(Path("ours"), Path("again"), "hf")
    again = transformers.AutoModelForCausalLM.from_pretrained("again")
    assert_same_function(loaded.model, again)


@pytest.mark.parametrize("lacking", ["lm_head.weight", "transformer.wte.weight"])
def test_a_head_that_is_said_to_be_its_own_and_is_not_there(place, make_hf, lacking):
    make_hf(tie_word_embeddings=False).save_pretrained("theirs")
    state = load_file("theirs/model.safetensors")
    del state[lacking]
    save_file(state, "theirs/model.safetensors")
    fault = f"says tie_word_embeddings false, and there is no {lacking.removeprefix('transformer.')}"
    with pytest.raises(UserError, match=fault):
        bring("theirs")


def test_a_head_under_which_the_embedding_was_saved(place, make_hf):
    theirs = make_hf()
    theirs.config.save_pretrained("theirs")
    save_model_of_safetensors(theirs, "theirs/model.safetensors")
    assert "transformer.wte.weight" not in load_file("theirs/model.safetensors")
    assert_same_function(bring("theirs").model, theirs)


def test_shards(place, make_hf):
    theirs = make_hf()
    theirs.save_pretrained("theirs", max_shard_size="8KB")
    assert len(list(Path("theirs").glob("model-*-of-*.safetensors"))) > 1
    assert_same_function(bring("theirs").model, theirs)


def test_an_index_that_lies(place, make_hf):
    make_hf().save_pretrained("theirs", max_shard_size="8KB")
    path = Path("theirs/model.safetensors.index.json")
    index = json.loads(path.read_text())
    shard = sorted(set(index["weight_map"].values()))[-1]
    index["weight_map"]["transformer.ln_f.extra"] = shard
    path.write_text(json.dumps(index))
    with pytest.raises(UserError, match=rf"{shard} lacks transformer.ln_f.extra"):
        bring("theirs")
    index["weight_map"]["transformer.ln_f.extra"] = "../secret"
    path.write_text(json.dumps(index))
    with pytest.raises(UserError, match="must name files of its folder"):
        bring("theirs")


@pytest.mark.parametrize("prefix", ["transformer.", ""])
def test_pytorch_bin(place, make_hf, prefix):
    theirs = make_hf()
    theirs.config.save_pretrained("theirs")
    state = {prefix + name.removeprefix("transformer."): p for name, p in theirs.state_dict().items()}
    if not prefix:
        del state["lm_head.weight"]
    torch.save(state, "theirs/pytorch_model.bin")
    assert_same_function(bring("theirs").model, theirs)


def test_half_precision_stays_as_it_is(place, make_hf):
    theirs = make_hf().to(torch.bfloat16)
    theirs.save_pretrained("theirs")
    import_model("theirs", Path("ours"), tokenizer="letters.json")
    stored = load_model(Path("ours"), dtype=None).model.state_dict()
    assert torch.equal(stored["wte.weight"], theirs.state_dict()["transformer.wte.weight"])


class Canary:
    def __reduce__(self):
        return (open, ("canary", "w"))


@pytest.mark.fault(
    "B1",
    "a pickle that opens a file inside a .pt or .bin that is imported",
    "refused in one line; it never runs",
)
@pytest.mark.parametrize("name", ["theirs/pytorch_model.bin", "evil.pt"])
def test_code_in_a_file_never_runs(place, make_hf, name):
    make_hf().config.save_pretrained("theirs")
    torch.save({"model": Canary(), "model_args": {}, "transformer.wte.weight": Canary()}, name)
    with pytest.raises(UserError, match="is not a plain PyTorch file of tensors, and nothing else is read") as error:
        bring("theirs" if name.startswith("theirs") else name)
    assert "\n" not in str(error.value)
    # A bare pickle is refused as well; that it would have worked shows that the canary is alive.
    Path(name).write_bytes(pickle.dumps(Canary(), protocol=2))
    with pytest.raises(UserError):
        bring("theirs" if name.startswith("theirs") else name)
    assert not Path("canary").exists()
    subprocess.run([sys.executable, "-c", f"import pickle; pickle.load(open({name!r}, 'rb'))"], check=True)
    assert Path("canary").exists()


@pytest.mark.fault(
    "A6",
    "a file to import is cut, emptied or no model at all",
    "one line that names it",
)
@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_damaged_files_are_one_line(place, make_hf, damage):
    make_hf().save_pretrained("theirs")
    path = Path("theirs/model.safetensors")
    data = {"cut": path.read_bytes()[:-100], "empty": b"", "text": b"hello" * 100}[damage]
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"cannot read theirs/model.safetensors") as error:
        bring("theirs")
    assert "\n" not in str(error.value)
    path.unlink()
    Path("theirs/pytorch_model.bin").write_bytes(data)
    with pytest.raises(UserError, match="is not a plain PyTorch file") as error:
        bring("theirs")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_weights_beside_their_config_lead_to_the_folder(place, make_hf, name):
    """The activation and the heads stand there, and not in the file."""
    theirs = make_hf(n_embd=128, n_head=4, activation_function="relu")
    theirs.save_pretrained("their model")
    if name == "pytorch_model.bin":
        torch.save(load_file("their model/model.safetensors"), f"their model/{name}")
    with pytest.raises(UsageError, match=r"name the folder: groundup import 'their model' OUT$"):
        bring(f"their model/{name}")
    told = other_programs(Path("their model", name))
    assert told == f"their model/{name} is a file of tensors; bring it in first: groundup import 'their model' OUT"
    assert_same_function(bring("their model").model, theirs)
    Path("their model/config.json").unlink()
    assert bring(f"their model/{name}", out="guessed").config.n_head == 2


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 548105171\n"


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "config.json", "tokenizer.json", "shards"])
@pytest.mark.parametrize("exported", [True, False])
def test_a_clone_without_git_lfs_is_told(place, make_hf, make_model, letters, name, exported):
    """Also where the exporter's manifest lies beside it."""
    if exported:
        save_model(place / "model", make_model(), letters, {})
        export_model(place / "model", place / "theirs", "hf")
    else:
        make_hf().save_pretrained("theirs", max_shard_size="8KB" if name == "shards" else "1GB")
    if name == "pytorch_model.bin":
        Path("theirs/model.safetensors").unlink()
    if name == "shards":
        name = sorted(path.name for path in Path("theirs").glob("model*.safetensors"))[-1]
    Path("theirs", name).write_bytes(POINTER)
    with pytest.raises(
        UserError, match=rf"theirs/{name} is a pointer of git-lfs and not the file itself: git lfs pull"
    ):
        bring("theirs", tokenizer=None)


@pytest.mark.parametrize("name", ["model.bin", "ckpt.pt", "model.safetensors"])
def test_a_file_of_tensors_that_is_a_pointer_of_git_lfs(place, name):
    Path(name).write_bytes(POINTER)
    with pytest.raises(UserError, match=f"^{name} is a pointer of git-lfs"):
        bring(name)


def test_a_model_of_ours_that_is_a_pointer_of_git_lfs(place, make_model, letters):
    save_model(place / "model", make_model(), letters, {})
    Path("model/model.safetensors").write_bytes(POINTER)
    with pytest.raises(UserError, match=r"model/model\.safetensors is a pointer of git-lfs"):
        load_model(place / "model")


def test_every_mismatch_in_one_line(place, make_hf):
    theirs = make_hf()
    theirs.save_pretrained("theirs")
    config = json.loads(Path("theirs/config.json").read_text())
    Path("theirs/config.json").write_text(json.dumps({**config, "n_layer": 3, "n_positions": 64}))
    with pytest.raises(UserError) as error:
        bring("theirs")
    assert "h.2.ln_1.weight is missing" in str(error.value)
    assert "wpe.weight is (32, 16) instead of (64, 16)" in str(error.value)
    assert "\n" not in str(error.value)
    assert not Path("ours").exists()


def test_the_tokenizer_beside_the_model(place, make_hf, gpt2):
    theirs = make_hf(vocab_size=50257, n_layer=1, n_embd=2)
    theirs.save_pretrained("theirs")
    assert bring("theirs", tokenizer=None).tokenizer.fingerprint == gpt2.fingerprint
    Path("theirs/vocab.json").write_text(json.dumps({f"word {i}": i for i in range(50257)}))
    with pytest.raises(UserError, match=r"groundup cannot be: there is no merges.txt beside its vocab.json"):
        bring("theirs", out="more", tokenizer=None)


@pytest.mark.parametrize("specials", [[], ["<|endoftext|>"], ["<|endoftext|>", "<|user|>"]])
@pytest.mark.parametrize("pattern", [GPT2_PATTERN, r"\s+|\S+"])
def test_a_byte_pair_encoding_of_ours_comes_back(place, make_model, specials, pattern):
    merges = [(108, 108), (104, 101), (111, 32), (257, 256), (97, 97), (260, 260)]
    ours = ByteBPE(merges, specials=specials, pattern=pattern)
    save_model(place / "poet", make_model(vocab_size=ours.vocab_size), ours, {})
    export_model(place / "poet", place / "theirs", "hf")
    back = bring("theirs", tokenizer=None)
    assert isinstance(back.tokenizer, ByteBPE)
    assert back.tokenizer.fingerprint == ours.fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": {"type": "NFC"}},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"added_tokens": [{"content": "<|endoftext|>", "id": 0}]},
        {"added_tokens": [1]},
        {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}},
        {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "b", "c"]]}},
        {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [1]}},
    ],
)
def test_a_byte_pair_encoding_that_ours_is_not(place, make_model, change):
    ours = ByteBPE([(108, 108), (104, 101)])
    save_model(place / "poet", make_model(vocab_size=ours.vocab_size), ours, {})
    export_model(place / "poet", place / "theirs", "hf")
    file = Path("theirs/tokenizer.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UserError, match="theirs has a tokenizer that groundup cannot be"):
        bring("theirs", tokenizer=None)


def test_nothing_there_and_nothing_known(place):
    with pytest.raises(UserError, match="nowhere does not exist") as told:
        bring("nowhere")
    assert told.value.exit_code == 1
    Path("notes.txt").write_text("hello")
    with pytest.raises(UsageError, match=r"notes.txt is no model file that groundup knows"):
        bring("notes.txt")
    Path("empty").mkdir()
    with pytest.raises(UsageError, match=r"empty holds no config.json: of Hugging Face's models, name the folder"):
        bring("empty")
    Path("empty/config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(UserError, match="empty holds no weights"):
        bring("empty")


def test_nothing_is_overwritten(place, make_model):
    torch.save(nanogpt_checkpoint(make_model()), "ckpt.pt")
    Path("ours").mkdir()
    Path("ours/thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="ours is there already"):
        bring("ckpt.pt")
    assert Path("ours/thesis.txt").read_text() == "years of work"


def test_from_the_hub(place, fake_hub, make_hf, monkeypatch):
    theirs = make_hf()
    theirs.save_pretrained("theirs")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(fake_hub.cache))
    fake_hub.files = {name: Path("theirs", name).read_bytes() for name in ("config.json", "model.safetensors")}
    import_model("hf:o/m", Path("ours"), tokenizer="letters.json", endpoint=fake_hub.url)
    loaded = load_model(Path("ours"))
    assert_same_function(loaded.model, theirs)
    assert loaded.info == {"source": "hf:o/m", "revision": fake_hub.sha}


PUBLISHED = {
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "distilgpt2": 81_912_576,
}


@pytest.mark.network
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_models(place, gpt2, name):
    loaded = bring(f"hf:{name}", tokenizer=None)
    assert sum(p.numel() for p in loaded.model.parameters()) == PUBLISHED[name]
    ids = torch.tensor(gpt2.encode("It was the best of times, it was the worst of times, it was the age of wisdom"))
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(loaded.model(ids[None, :-1])[0], ids[1:])
    assert loss < 4  # a model that knows nothing: 10.8
