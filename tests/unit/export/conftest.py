import pytest

from groundup.export.hf_tokenizer import tokenizer_files


@pytest.fixture(scope="session")
def hf_gpt2(gpt2, tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("gpt2")
    files = tokenizer_files(gpt2, 1024)
    for name, text in files.items():
        (folder / name).write_text(text, "utf-8")
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    return files, transformers.AutoTokenizer.from_pretrained(folder)
