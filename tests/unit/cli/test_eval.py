"""groundup eval, from the command line."""

import errno
import hashlib
import json
import math
import shutil
import zipfile
from pathlib import Path

import pytest
import torch

from groundup import __version__
from groundup.checkpoint.model_folder import load_model, save_model
from groundup.cli.main import main
from groundup.config.data import DataConfig
from groundup.config.io import dump_json, to_dict
from groundup.config.model import BigramConfig, GPTConfig
from groundup.config.train import TrainConfig
from groundup.evaluation import benchmarks, pages
from groundup.evaluation.benchmarks import BenchmarkFile
from groundup.files import atomic
from groundup.files.manifest import read_manifest
from groundup.model.bigram import Bigram
from groundup.model.gpt import GPT
from groundup.model.init import init_weights
from groundup.prepare.corpus import open_corpus

CHOICES = [
    {"ctx": "the baker opens the oven and", "endings": ["takes the bread", "reads the map"], "label": 0},
    {"ctx": "rain is falling, so she", "endings": ["buys a boat", "opens her umbrella", "sings"], "label": 1},
    {"ctx": "a" * 40, "endings": ["b", "a"], "label": 1},
]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A run folder with its data, a model folder of no run, and two files of examples."""
    monkeypatch.chdir(tmp_path)
    text = "the quick brown fox jumps over the lazy dog, again and again.\n" * 60
    Path("text.txt").write_text(text)
    data = DataConfig(source="text", path=Path("text.txt"))
    tokenizer = open_corpus(data).tokenizer()
    model = init_weights(
        GPT(GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=16, vocab_size=tokenizer.vocab_size)), seed=0
    )
    save_model(Path("run/model"), model, tokenizer, {"step": 7})
    save_model(Path("alone"), model, tokenizer, {})
    bigram = Bigram(BigramConfig(vocab_size=tokenizer.vocab_size))
    save_model(Path("bigram"), bigram, tokenizer, {})
    facts = {
        "groundup": "0",
        "started": "now",
        "command": "x",
        "machine": {},
        "resolved": {},
        "parameters": 1,
        "config": {},
    }
    Path("run/run.json").write_text(dump_json(facts))
    Path("run/config.json").write_text(dump_json(to_dict(TrainConfig(data=data, tokens_per_step=12 * 1024))))
    Path("mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in CHOICES))
    Path("words.jsonl").write_text('{"text": "the quick brown fox"}\n{"text": "the lazy dog"}\n')
    return tmp_path


def run(capsys, *words, code=0):
    assert main(["eval", *words]) == code
    printed = capsys.readouterr()
    if code:
        assert printed.err.count("\n") == 1
        return printed.err.removeprefix("groundup: ").rstrip("\n")
    assert printed.err == ""
    return printed.out


def tasks(folder):
    return json.loads(Path(folder, "eval.json").read_text())["tasks"]


@pytest.mark.parametrize("of", ["run", "run/model"])
def test_a_text_that_is_not_what_the_run_learned_is_refused(place, capsys, of):
    """What was training may be validation now. The same text, prepared again, is the same."""
    facts, text = json.loads(Path("run/run.json").read_text()), Path("text.txt").read_text()
    learned = open_corpus(DataConfig(source="text", path=Path("text.txt")))
    facts["data_fingerprint"] = learned.index.fingerprint
    Path("run/run.json").write_text(dump_json(facts))
    Path("text.txt").write_text(text[:2400])
    assert main(["eval", of]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    now = open_corpus(DataConfig(source="text", path=Path("text.txt"))).index.fingerprint
    assert f"text.txt is not what {Path('run').resolve() if '/' in of else 'run'} learned from" in line
    assert f"its fingerprint is {now[:12]} instead of {learned.index.fingerprint[:12]}" in line
    assert line.endswith("put the text back, or name a prepared folder with --data")
    assert not Path(of, "eval.json").exists()
    assert main(["eval", of, "--data", str(learned.dir)]) == 0
    Path("text.txt").write_text(text)
    shutil.rmtree(learned.dir)
    assert main(["eval", of]) == 0


def test_what_the_newest_checkpoint_has_learned_counts(place, capsys):
    """A run that an older groundup took on with other data has those of its start in run.json."""
    facts = json.loads(Path("run/run.json").read_text())
    now = open_corpus(DataConfig(source="text", path=Path("text.txt"))).index.fingerprint
    Path("run/run.json").write_text(dump_json(facts | {"data_fingerprint": "0" * 64}))
    assert main(["eval", "run/model"]) == 1
    saved = Path("run/checkpoints/step-0000001/training.json")
    saved.parent.mkdir(parents=True)
    saved.write_text(dump_json({"state": {"data": {"fingerprint": now}}}))
    assert main(["eval", "run/model"]) == 0
    saved.write_text("{}")
    assert main(["eval", "run/model"]) == 1


def test_every_task_lands_in_the_run_and_its_report(place, capsys):
    printed = run(capsys, "run", "--tasks", "val, mine.jsonl,words.jsonl,val")
    assert [line.split(":")[0] for line in printed.splitlines()] == ["val", "mine.jsonl", "words.jsonl"]
    found = tasks("run")
    assert sorted(found) == ["mine.jsonl", "val", "words.jsonl"]
    val = found["val"]
    assert val["perplexity"] == pytest.approx(math.exp(val["loss"]))
    assert val["bits_per_byte"] == pytest.approx(val["loss"] / math.log(2))  # a character a token
    assert val["loss"] == pytest.approx(math.log(30), abs=0.5)
    assert found["mine.jsonl"]["examples"] == 3
    assert found["words.jsonl"]["examples"] == 2
    sha256 = read_manifest(Path("run/model"))["model.safetensors"]["sha256"]
    for result in found.values():
        assert (result["model"], result["step"], result["groundup"], result["limit"]) == (sha256, 7, __version__, 0)
        assert len(result["data"]) == 64
        assert result["seconds"] >= 0
    report = Path("run/report.html").read_text()
    assert "<h2>Evaluation</h2>" in report
    assert f"loss {val['loss']:.4f}" in report
    assert "<th>words.jsonl, step 7</th>" in report


def test_a_task_is_measured_again_and_others_stay(place, capsys):
    run(capsys, "run", "--tasks", "val,mine.jsonl")
    before = tasks("run")
    run(capsys, "run", "--tasks", "mine.jsonl", "--limit=1")
    after = tasks("run")
    part = after.pop("mine.jsonl (first 1)")
    assert after == before
    assert (part["examples"], part["limit"]) == (1, 1)
    Path("mine.jsonl").write_text(json.dumps(CHOICES[0]) + "\n")
    run(capsys, "run", "--tasks", "mine.jsonl")
    again = tasks("run")
    assert again["mine.jsonl"]["examples"] == 1
    assert (again["val"], again["mine.jsonl (first 1)"]) == (before["val"], part)


def test_files_of_one_name_are_told_apart(place, capsys):
    """In one command and in two; what was measured of the same file, or of equal ones, is replaced."""
    for folder, n in (("one/a", 1), ("one/b", 2), ("two/b", 3)):
        Path(folder).mkdir(parents=True)
        Path(folder, "t.txt").write_text("the lazy dog\n" * n)
    run(capsys, "run", "--tasks=one/a/t.txt,one/b/t.txt")
    assert {task: result["tokens"] for task, result in tasks("run").items()} == {"a/t.txt": 13, "b/t.txt": 26}
    run(capsys, "run", "--tasks=two/b/t.txt,one/b/../b/t.txt")
    sizes = {"a/t.txt": 13, "b/t.txt": 26, "two/b/t.txt": 39}
    assert {task: result["tokens"] for task, result in tasks("run").items()} == sizes
    run(capsys, "alone", "--tasks=one/a/t.txt")
    run(capsys, "alone", "--tasks=one/b/t.txt", "--stride=3")
    run(capsys, "alone", "--tasks=one/a/t.txt")
    Path("one").rename("moved")
    run(capsys, "alone", "--tasks=moved/a/t.txt")
    assert list(tasks("alone")) == ["b/t.txt (stride 3)", "t.txt"]
    assert tasks("alone")["t.txt"]["path"] == str(place / "moved/a/t.txt")


def test_a_file_is_not_taken_for_the_task_of_its_name(place, capsys):
    Path("val").write_text("the lazy dog\n")
    run(capsys, "run", "--tasks=val,./val")
    assert list(tasks("run")) == [f"{place.name}/val", "val"]


def test_another_stride_is_told(place, capsys):
    Path("t.txt").write_text("the lazy dog and the quick brown fox\n")
    for stride in (0, 8, 3):
        run(capsys, "run", "--tasks=t.txt", f"--stride={stride}", f"--limit={stride // 3}")
    assert {task: result["stride"] for task, result in tasks("run").items()} == {
        "t.txt": 8,
        "t.txt (first 2)": 8,
        "t.txt (first 1, stride 3)": 3,
    }


def test_of_a_damaged_model_no_number_is_shown(place, capsys):
    loaded = load_model(Path("alone"))
    with torch.no_grad():
        loaded.model.wte.weight.fill_(math.nan)
    save_model(Path("broken"), loaded.model, loaded.tokenizer, {})
    assert main(["eval", "broken", f"--data={next(Path('data').iterdir())}"]) == 1
    told = "groundup: val: the result is not a finite number; the model is damaged or has diverged\n"
    assert capsys.readouterr() == ("", told)
    assert not Path("broken/eval.json").exists()


def test_how_many_tokens_at_a_time_does_not_matter(place, capsys):
    found = []
    for tokens in (1, 100, 0):
        run(capsys, "run", "--tasks", "val,words.jsonl", f"--batch-tokens={tokens}")
        found.append(tasks("run"))
    assert len({round(t["val"]["loss"], 6) for t in found}) == 1
    # a perplexity is an exponential: its digits, not its decimals, are what rounding leaves
    assert len({f"{t['words.jsonl']['perplexity']:.5g}" for t in found}) == 1


def test_a_model_of_no_run_needs_data(place, capsys):
    line = run(capsys, "alone", code=1)
    assert line == "alone is of no run that says what it learned from: name a prepared folder with --data"
    (data,) = [path.parent for path in Path("data").glob("*/index.json")]
    run(capsys, "alone", f"--data={data}")
    run(capsys, "run")
    assert tasks("alone")["val"]["loss"] == tasks("run")["val"]["loss"]
    run(capsys, "run/model")
    assert tasks("run/model")["val"]["loss"] == tasks("run")["val"]["loss"]
    assert not Path("alone/report.html").exists()


def test_the_limit_of_val_is_in_blocks(place, capsys):
    run(capsys, "run", "--limit=3")
    assert tasks("run")["val (first 3)"]["tokens"] == 3 * 16


def test_a_bigram_is_measured_too(place, capsys):
    assert "val: loss 3." in run(capsys, "bigram", "--tasks=val,mine.jsonl", f"--data={next(Path('data').iterdir())}")


def test_published_benchmarks_come_from_the_folder_and_are_checked(place, capsys):
    Path("sets").mkdir()
    Path("sets/hellaswag_val.jsonl").write_text(Path("mine.jsonl").read_text())
    line = run(capsys, "run", "--tasks=hellaswag", "--data=sets", code=1)
    assert line.startswith(
        "sets/hellaswag_val.jsonl is not the published file of hellaswag: its SHA-256 is not 0aa3b88843"
    )
    assert not Path("run/eval.json").exists()


def test_wikitext_is_read_from_the_published_archive(place, capsys, monkeypatch):
    with zipfile.ZipFile("wikitext.zip", "w") as file:
        file.writestr(pages.MEMBER, "the quick brown fox , again\n")
    archive = Path("wikitext.zip").read_bytes()
    known = BenchmarkFile("wikitext.zip", "http://127.0.0.1:9/none", len(archive), hashlib.sha256(archive).hexdigest())
    monkeypatch.setitem(benchmarks.PUBLISHED, "wikitext", known)
    assert "wikitext: word perplexity " in run(capsys, "run", "--tasks=wikitext", "--data=.")
    found = tasks("run")["wikitext"]
    assert (found["pages"], found["tokens"], found["data"]) == (1, 27, known.sha256)


def test_what_was_measured_before_an_error_is_kept(place, capsys):
    Path("bad.jsonl").write_text('{"ctx": "a", "endings": ["b", "c"], "label": 2}\n')
    line = run(capsys, "run", "--tasks=val,bad.jsonl", code=1)
    assert line == 'bad.jsonl, line 1: "label" must be from 0 to 1, got 2'
    assert list(tasks("run")) == ["val"]


def test_what_cannot_be_written_is_told_all_the_same(place, capsys, monkeypatch):
    def refuse(operation, path):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(atomic, "fault_point", refuse)
    assert main(["eval", "run", "--tasks=val,mine.jsonl"]) == 1
    printed = capsys.readouterr()
    assert [line.split(":")[0] for line in printed.out.splitlines()] == ["val", "mine.jsonl"]
    assert printed.err == "groundup: cannot write run/eval.json: Read-only file system\n" * 2


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (
            ["run", "--tasks=hellaswog"],
            2,
            "unknown task 'hellaswog'; the tasks are val, hellaswag, lambada, wikitext, .jsonl examples, and",
        ),
        (["run", "--tasks="], 2, "unknown task ''; the tasks are"),
        (["run", "--limit=-1"], 2, "limit must be 0 or more, got -1"),
        (["run", "--batch-tokens=-1"], 2, "batch-tokens must be 0 or more, got -1"),
        (["run", "--task=val"], 2, "unrecognized options: --task=val; did you mean --tasks?"),
        (["gone"], 1, "gone does not exist; give a run, checkpoint or model folder"),
        (["run", "--tasks=gone.jsonl"], 1, "gone.jsonl does not exist; name a file, folder or glob of text, or .jsonl"),
        (["run", "--data=gone"], 1, "gone holds no prepared data"),  # and not: measured on other data
        ([], 2, "name a run or a model, as in: groundup eval runs/NAME"),
    ],
)
def test_mistakes_are_one_line(place, capsys, words, code, message):
    assert run(capsys, *words, code=code).startswith(message)


def test_another_tokenizer_is_refused(place, capsys):
    Path("other.txt").write_text("0123456789\n" * 100)
    dataset = open_corpus(DataConfig(source="text", path=Path("other.txt")))
    line = run(capsys, "run", f"--data={dataset.dir}", code=1)
    assert line == f"{dataset.dir} was prepared with another tokenizer than that of run"


def test_a_damaged_file_of_results_is_known_before_the_work(place, capsys):
    Path("run/eval.json").write_text("{")
    assert "run/eval.json is not valid JSON" in run(capsys, "run", code=1)
