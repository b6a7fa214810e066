import json
import math
from pathlib import Path

import pytest
import torch

from groundup.checkpoint.model_folder import save_model
from groundup.cli.main import main
from groundup.config.model import GPTConfig
from groundup.evaluation.own_text import sliding
from groundup.generation.text import prompt_ids
from groundup.interop.hf_config import hf_config
from groundup.interop.names import to_hf
from groundup.model.build import build_model
from groundup.model.init import init_weights
from groundup.tokenizer.bpe import ByteBPE
from groundup.tokenizer.char import CharTokenizer


@pytest.mark.parametrize(("size", "window", "stride"), [(50, 16, 4), (50, 16, 15), (7, 16, 8), (33, 8, 1), (17, 16, 8)])
def test_windows_are_those_of_the_documented_loop(size, window, stride):
    """The strided loop of the perplexity page of transformers, written out."""
    tokens = list(range(size))
    expected, before = [], 0
    for begin in range(0, size, stride):
        end = min(begin + window, size)
        counted = min(end - before, end - begin - 1)  # the first token of a window is foreseen from nothing
        expected.append((tokens[begin : end - counted], tokens[end - counted : end]))
        before = end
        if end == size:
            break
    got = [(question.context, question.continuations[0]) for question in sliding(tokens, window, stride)]
    assert got == expected
    assert [token for _, targets in got for token in targets] == tokens[1:]


TEXT = "The cat, the hat; 12 naïve cafés.\r\nAnd then - nothing but the end of it all.\n" * 3
BPE = ByteBPE([(104, 101), (84, 256), (101, 32), (116, 104)])
TOKENIZERS = {"a document has a start": BPE, "none has": CharTokenizer(sorted(set(TEXT.replace("\r", ""))))}


@pytest.mark.parametrize("stride", [8, 15, 0])
@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_text_is_measured_as_transformers_documents_it(tmp_path, monkeypatch, kind, stride):
    """Perplexity and bits per byte through the command, against transformers' documented loop by its model."""
    transformers = pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    tokenizer, block_size = TOKENIZERS[kind], 16
    config = GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=block_size, vocab_size=tokenizer.vocab_size)
    model = init_weights(build_model(config), seed=0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())), alpha=0.1)
    save_model(Path("model"), model, tokenizer, {})
    Path("own.txt").write_bytes(TEXT.encode())
    assert main(["eval", "model", "--tasks=own.txt", f"--stride={stride}"]) == 0
    found = json.loads(Path("model/eval.json").read_text())["tasks"]
    result = found["own.txt (stride 15)" if stride == 15 else "own.txt"]

    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(**hf_config(config, dtype="float32", eot_id=0)))
    theirs.load_state_dict(to_hf(model.state_dict(), 2) | {"lm_head.weight": model.wte.weight})
    theirs.eval()
    learned = TEXT.replace("\r\n", "\n")  # line ends as in training
    first = tokenizer.encode("\n")[0] if tokenizer.eot_id is None else tokenizer.eot_id
    ids = torch.tensor([[first, *tokenizer.encode(learned)]])
    nats, counted, reached = 0.0, 0, 0
    for begin in range(0, ids.shape[1], stride or block_size // 2):
        end = min(begin + block_size, ids.shape[1])
        window = ids[:, begin:end]
        targets = window.clone()
        targets[:, : -(end - reached)] = -100
        many = int((targets[:, 1:] != -100).sum())
        with torch.no_grad():
            nats += theirs(window, labels=targets).loss.item() * many
        counted, reached = counted + many, end
        if end == ids.shape[1]:
            break
    assert result["tokens"] == counted == ids.shape[1] - 1
    assert result["perplexity"] == pytest.approx(math.exp(nats / counted), rel=1e-5)
    assert result["bits_per_byte"] == pytest.approx(nats / math.log(2) / len(learned.encode()), rel=1e-5)


def test_a_context_of_one_token_is_measured_token_by_token(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tokenizer = TOKENIZERS["none has"]
    config = GPTConfig(n_layer=1, n_head=1, n_embd=16, block_size=1, vocab_size=tokenizer.vocab_size)
    model = init_weights(build_model(config), seed=0)
    save_model(Path("model"), model, tokenizer, {})
    Path("own.txt").write_bytes(TEXT.encode())
    assert main(["eval", "model", "--tasks=own.txt"]) == 0
    loss = json.loads(Path("model/eval.json").read_text())["tasks"]["own.txt"]["loss"]
    first = prompt_ids(tokenizer, "")[0]
    idx = torch.tensor([first, *tokenizer.encode(TEXT.replace("\r", ""))])
    with torch.no_grad():
        logits = model(idx[:-1, None])[:, 0]
    assert loss == pytest.approx(torch.nn.functional.cross_entropy(logits, idx[1:]).item(), rel=1e-5)


def test_characters_that_a_model_does_not_know_are_left_out_and_told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    known = "a line of words, and more of them.\n" * 5
    tokenizer = CharTokenizer.from_text([known])
    config = GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=16, vocab_size=tokenizer.vocab_size)
    save_model(Path("model"), init_weights(build_model(config), seed=0), tokenizer, {})
    Path("known.txt").write_text(known)
    Path("more.txt").write_text(known.replace("words", "3 words").replace("3 ", "3") + "\u2026", "utf-8")
    assert main(["eval", "model", "--tasks", "known.txt,more.txt"]) == 0
    results = json.loads(Path("model/eval.json").read_text())["tasks"]
    kept, all_known = results["more.txt"], results["known.txt"]
    assert kept.pop("left_out") == 6
    assert {key: kept[key] for key in ("loss", "bits_per_byte", "tokens")} == {
        key: all_known[key] for key in ("loss", "bits_per_byte", "tokens")
    }
    told = "left out 6 characters (3.31%) that the tokenizer does not know: '3' 5x, '\u2026' 1x"
    assert told in capsys.readouterr().err
    Path("other.txt").write_text("\u0433\u0434\u0435?")
    assert main(["eval", "model", "--tasks", "other.txt"]) == 1
    assert "too many to be left out" in capsys.readouterr().err
