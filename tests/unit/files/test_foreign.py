"""What is said of a path that holds a model of another program."""

from shlex import quote

import pytest

from groundup.cli.main import main
from groundup.config.errors import UserError
from groundup.files.foreign import other_programs
from groundup.interop.import_model import import_model


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["model.gguf"], r"holds a model of llama.cpp \(GGUF\), which groundup writes and does not read"),
        (["config.json", "q8.gguf"], r"holds a model of llama.cpp \(GGUF\)"),
        (["model.onnx", "tokenizer.json"], r"holds a model of onnxruntime"),
        (["config.json", "model.bin", "vocabulary.json"], r"holds a model of CTranslate2"),
        (
            ["adapter_config.json", "adapter_model.safetensors"],
            r"a LoRA of PEFT and not a whole model; .*merge_and_unload",
        ),
        (["model.ckpt.index", "hparams.json"], r"TensorFlow's format; OpenAI's own are here: groundup import hf:gpt2"),
        (["model.ckpt.data-00000-of-00001"], r"TensorFlow's format; OpenAI's own are here"),
        (["config.json", "tf_model.h5"], r"TensorFlow's format; transformers 4 reads it: .*from_tf=True"),
        (["config.json", "flax_model.msgpack"], r"a model of Flax; .*from_flax=True"),
    ],
)
def test_what_is_not_read_is_named_with_a_way(tmp_path, capsys, files, said):
    folder = tmp_path / "theirs"
    folder.mkdir()
    for name in files:
        (folder / name).write_text('{"model_type": "gpt2"}')
    with pytest.raises(UserError, match=said):
        import_model(str(folder), tmp_path / "ours")
    for words in (["generate"], ["export"], ["eval"]):
        assert main([*words, str(folder), *(["out"] if words == ["export"] else [])]) == 1
        assert capsys.readouterr().err.startswith(f"groundup: {folder} holds a ")
    file = next(file for file in folder.iterdir() if file.suffix != ".json" or len(files) == 1)
    if file.suffix not in (".bin", ".safetensors"):
        assert other_programs(file).startswith(f"{file} is ")


@pytest.mark.parametrize(
    "weights", ["model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"]
)
def test_every_form_of_transformers_is_named(tmp_path, capsys, weights):
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    (tmp_path / weights).touch()
    assert main(["generate", str(tmp_path)]) == 1
    said = f"is a model of transformers; bring it in first: groundup import {quote(str(tmp_path))} OUT"
    assert said in capsys.readouterr().err


def test_files_of_tensors_are_named_as_what_import_takes(tmp_path, capsys):
    for name in ("ckpt.pt", "other.pt"):
        (tmp_path / name).touch()
    ckpt = tmp_path / "ckpt.pt"
    bring = f"bring it in first: groundup import {quote(str(ckpt))} OUT"
    assert main(["generate", str(ckpt)]) == 1
    assert f"{ckpt} is a file of tensors; {bring}" in capsys.readouterr().err
    assert main(["generate", str(tmp_path)]) == 1
    assert f"one of 2 files of tensors; {bring}" in capsys.readouterr().err


def test_our_folders_are_none_of_theirs(tmp_path):
    (tmp_path / "config.json").write_text('{"format": "groundup-model", "version": 1}')
    (tmp_path / "model.safetensors").touch()
    assert other_programs(tmp_path) == other_programs(tmp_path / "model.safetensors") == ""
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "model.gguf").touch()
    assert other_programs(tmp_path / "run") == ""
