import pytest

from groundup.config.errors import UserError
from groundup.export.hf_tokenizer import tokenizer_files
from groundup.tokenizer.gpt2 import load_gpt2


@pytest.fixture(scope="session")
def gpt2():
    try:
        return load_gpt2()
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def hf_gpt2(gpt2, tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("gpt2")
    files = tokenizer_files(gpt2, 1024)
    for name, text in files.items():
        (folder / name).write_text(text, "utf-8")
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    return files, transformers.AutoTokenizer.from_pretrained(folder)
