"""What newcomers typed, and where each answer leads."""

from pathlib import Path

import pytest

from groundup.cli.main import main
from groundup.training import own_text


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("notes").mkdir()
    Path("notes/a.txt").write_text("it rains\n" * 4000)
    Path("poem.txt").write_text("it rains\n")
    Path("thesis.pdf").write_bytes(b"%PDF-1.4")
    Path("logs").mkdir()
    for name in ("a.log", "b.LOG", "c.rs"):
        Path("logs", name).write_text("it rains\n" * 400)
    Path("gone.txt").symlink_to("elsewhere")
    Path("round").symlink_to("round")
    Path("scans").mkdir()
    Path("scans/a.pdf").write_bytes(b"%PDF-1.4")
    for name in ("shakespeare", "mine"):
        Path("runs", name, "model").mkdir(parents=True)
        Path("runs", name, "config.json").write_text("{}")
        Path("runs", name, "metrics.jsonl").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("train poems.csv", "poems.csv does not exist; name a file, folder or glob of text"),
        ("train texts/", "texts/ does not exist; name a file, folder or glob of text"),
        ("train notez/", "notez/ does not exist; did you mean notes?"),
        ("train notes/A.TXT", "notes/A.TXT does not exist; did you mean notes/a.txt?"),
        ("train notes/gone/b.txt", "notes/gone/b.txt does not exist; name a file, folder or glob of text"),
        ("train gone.txt", "gone.txt is a link to elsewhere, and that leads nowhere"),
        ("train round", "round is a link to round, and that leads nowhere"),
        ("train shakespeare --data.source gone.txt", "gone.txt is a link to elsewhere, and that leads nowhere"),
        ("prepare gone.txt out", "gone.txt is a link to elsewhere, and that leads nowhere"),
        ("prepare https://books.org/1.txt out", "curl -L -o 1.txt https://books.org/1.txt, then name 1.txt"),
        ("data sample https://books.org/1.txt", "curl -L -o 1.txt https://books.org/1.txt, then name 1.txt"),
        ("tokenizer train text.txt --pattern=", "an empty --pattern finds no words; leave it out for GPT-2's"),
        ("train https://books.org/a/1-0.txt", "curl -L -o 1-0.txt https://books.org/a/1-0.txt, then groundup train"),
        ("train -", "a text is read from a file, not from a pipe: ... > notes.txt, then groundup train notes.txt"),
        ("finetune runs/mine -", "a text is read from a file, not from a pipe"),
        ("train --resume", "name the run to go on with: groundup train --resume runs/NAME; there is none yet"),
        ("train --resume --max-steps 5", "name the run to go on with: groundup train --resume runs/NAME"),
        ("train thesis.pdf", "unpack it first, with pdftotext"),
        ("runs show runs/mine", "unknown action 'show'; groundup report RUN --open"),
        ("runs --out a.png plot mine", "the action comes first: groundup runs plot --out a.png mine"),
        ("tokenizer --vocab-size 300 train a.txt", "first: groundup tokenizer train --vocab-size 300 a.txt"),
        ("data --num 3 look", "unknown action '--num'; there are info, verify, sample"),
        ("runs rm runs/mine", "unknown action 'rm'; a run is a folder like any other"),
        ("runs lst", "did you mean list?"),
        ("bench scaling-law", "unknown action 'scaling-law'; groundup scaling"),
        ("delete runs/mine", "delete runs/NAME"),
        ("generate runs/mine --n 3", "did you mean --num-samples?"),
        ("train gpt2", "unknown preset 'gpt2'; did you mean gpt2-fineweb?"),
        ("train trian", "unknown preset 'trian'; the presets are shakespeare"),
        ("train text", "text needs a file or folder of text: groundup train notes/"),
        ("train finetune --data.path notes", "finetune needs a model: groundup finetune models/gpt2 notes/"),
        ("train runs/mine", "runs/mine is a run, not a preset; to go on with it: groundup train --resume runs/mine"),
        ("train shakespeare --learning-rate 1e-3", "did you mean --optim.lr?"),
        ("train shakespeare --optim.min-lr 1e-4", "did you mean --optim.min-lr-ratio?"),
        ("train shakespeare --max-iters 5", "did you mean --max-steps?"),
        ("train shakespeare --epochs 3", "a run is counted in steps of 2,048 tokens, not in epochs: --max-steps N"),
        ("train notes --epochs 3", "--max-steps N; one pass over notes is about 32"),
        ("train shakespeare --data.source poem.txt", "poem.txt is a text: groundup train poem.txt"),
        ("train shakespeare --data.source no/*.txt", "no/*.txt does not exist; a text takes the place of a preset"),
        ("train shakespeare --data.source poem.tx", "did you mean groundup train poem.txt?"),
        ("train shakespeare --data.source=verses.txt", "verses.txt does not exist; a text takes the place of a preset"),
        ("train shakespeare --data.source Text", "--data.source must be one of 'shakespeare', 'tiny-shakespeare'"),
        ("train text --data.path poem.tx", "poem.tx does not exist; did you mean "),
        ("train shakespeare --data.source text --data.path notez", "notez does not exist; did you mean "),
        ("train logs/*.log", "--data.text-suffixes .log reads such files as plain text"),
        ("train logs", "--data.text-suffixes .log reads such files as plain text"),
        ("train logs/c.rs", "--data.text-suffixes .rs reads such files as plain text"),
        ("train scans", "scans holds no files that end with .txt"),
        ("train scans", "unpack it first, with pdftotext"),
        ("prepare logs out", "; --text-suffixes .log reads such files as plain text"),
        ("tokenizer train logs/*.log --out t.json", "; --text-suffixes .log reads such files as plain text"),
        (
            "train shakespeare --init-from hf:gpt2",
            "hf:gpt2 is not here yet: groundup import hf:gpt2, then give",
        ),
        ("train shakespeare --init-from mine", "mine does not exist; did you mean runs/mine?"),
        ("train --config runs/gone", "cannot read runs/gone"),
        ("finetune models/gpt2", "name a model and a text: groundup finetune models/gpt2 notes/"),
        ("finetune notes runs/mine", "the model comes first: groundup finetune runs/mine notes"),
        (
            "finetune runs/mine notes --init-from models/gpt2",
            "--init-from does not go with finetune: the model is",
        ),
        ("finetune runs/mine notes --data.path=poem.txt", "--data.path does not go with finetune: the text is named"),
        ("train text --data.path notes --seed -1", "(see groundup train notes --help)"),
        ("sweep shakespeare --seed 3..1", "a range runs upwards: 1..3, got 3..1"),
        ("scaling --sizes 4x128", "sizes must be 3 different ones at least, for a line; got '4x128'"),
        ("scaling --sizes 4x128,4x128,2x64", "sizes must be 3 different ones at least"),
        ("plan shakespeare --hardware T4 --tokens -3M", "--tokens must be a number such as 300M or 10B, got '-3M'"),
        ("generate runs/mine --logit-bias 1", "--logit-bias cannot take '1' (see groundup generate --help)"),
        ("eval runs/mine --tasks gone.txt", "gone.txt is a link to elsewhere, and that leads nowhere"),
        ("eval runs/mine --tasks verses.txt", "verses.txt does not exist; name a file, folder or glob of text"),
        ("eval runs/mine --tasks val,poem.tx", "poem.tx does not exist; did you mean poem.txt?"),
        ("prepare notez out", "notez does not exist; did you mean notes?"),
        ("train goem.txt", "goem.txt does not exist; did you mean poem.txt?"),
        ("train mine.txt", "mine.txt does not exist; name a file, folder or glob of text"),
        ("eval runs/mine --tasks gone.jsonl", "gone.jsonl does not exist; name a file, folder or glob of text"),
        ("import gone/mine.pt runs/mine", "gone/mine.pt does not exist; name a folder, a file or hf:NAME"),
        ("import runs/mine", "runs/mine is a run of groundup already; there is nothing to import"),
        ("finetune mine notes", "mine does not exist; did you mean runs/mine?"),
        ("plot", "groundup runs plot RUN"),
        ("resume", "groundup train --resume runs/NAME goes on with a run"),
        ("chat", "groundup generate runs/NAME --interactive"),
        ("--interactive", "groundup generate runs/NAME --interactive"),
        ("generate", "name a run or a model, as in: groundup generate runs/NAME; here are runs/"),
        ("eval", "name a run or a model, as in: groundup eval runs/NAME; here are runs/"),
        ("report", "name a run or a model, as in: groundup report runs/NAME; here are runs/"),
        ("export", "name a run or a model, as in: groundup export runs/NAME OUT; here are runs/"),
        ("serve", "name a run or a model, as in: groundup serve runs/NAME; here are runs/"),
        ("generate shakespeare", "shakespeare does not exist; did you mean runs/shakespeare?"),
        ("eval shakespeare", "shakespeare does not exist; did you mean runs/shakespeare?"),
        ("serve shakespeare --no-open", "shakespeare does not exist; did you mean runs/shakespeare?"),
        ("export shakespeare out", "shakespeare does not exist; did you mean runs/shakespeare?"),
        *[
            (f"{command} gone", "gone does not exist; give a run, checkpoint or model folder")
            for command in ("generate", "eval", "serve --no-open")
        ],
        ("generate runs", "runs is no model but a folder of 2: runs/"),
        ("generate runs/mine ROMEO:", "the text to continue has a flag: --prompt ROMEO:"),
        ("finetune gpt2 notes", "gpt2 is not here yet: groundup import hf:gpt2, then give models/gpt2"),
        ("finetune hf:me/tiny notes", "hf:me/tiny is not here yet: groundup import hf:me/tiny, then give models/tiny"),
        ("finetune hf:me/mine notes", "hf:me/mine does not exist; did you mean runs/mine?"),
        ("generate distilgpt2", "distilgpt2 is not here yet: groundup import hf:distilgpt2"),
        ("train shakespeare --init-from gpt2-xl", "groundup import hf:gpt2-xl, then give models/gpt2-xl"),
        ("generate gpt3", "gpt3 does not exist; give a run, checkpoint or model folder"),
        ("import distilgpt2", "distilgpt2 does not exist here; its weights are hf:distilgpt2"),
        ("import gpt2", "gpt2 does not exist here; OpenAI's weights are hf:gpt2"),
        ("prepare notes poem.txt out", "one text and one folder to make, got notes, poem.txt, out"),
    ],
)
def test_a_natural_mistake_is_answered_with_what_helps(typed, hint, capsys):
    assert main(typed.split()) in (1, 2)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert hint in printed.err
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize("typed", ["runs/otehr", "Other/", "models/other", "otherr"])
def test_the_run_that_was_meant_is_named_where_none_can_go_on(typed, capsys):
    Path("runs/other/checkpoints").mkdir(parents=True)
    Path("models/other/model").mkdir(parents=True)  # which cannot go on
    assert main(["train", "--resume", typed]) == 1
    line = f"groundup: {Path(typed)} holds no run to resume: there is no config.json in it; did you mean runs/other?\n"
    assert capsys.readouterr().err == line


def test_the_advice_for_an_unknown_ending_leads_on(capsys):
    assert main(["train", "logs/*.log", "--data.text-suffixes", ".log", "--dry-run"]) == 0
    assert "runs/logs: " in capsys.readouterr().out
    Path("logs/a.json").write_text('{"body": "it rains"}\n' * 4000)
    assert main(["train", "logs", "--data.text-column", "body", "--dry-run"]) == 0


def test_help_of_a_command_is_the_commands(capsys):
    assert main(["help", "plan"]) == 0
    assert capsys.readouterr().out.startswith("usage: groundup plan PRESET")


def test_the_first_run_is_proposed_where_there_is_none(tmp_path, monkeypatch, capsys):
    (tmp_path / "new").mkdir()
    monkeypatch.chdir(tmp_path / "new")
    assert main(["generate"]) == 2
    assert "there is none yet; groundup train shakespeare makes one" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["thesis.pdf", "empty"])
def test_a_text_that_cannot_be_read_is_told_before_pytorch_is_loaded(text, monkeypatch, capsys):
    Path("empty").mkdir()
    monkeypatch.setattr(own_text, "before_torch", lambda: pytest.fail("loaded"))
    assert main(["train", text]) == 1


def test_a_name_of_a_file_is_shown_as_a_name_and_said_to_be(capsys):
    assert main(["tokenizer", "show", "poem.txt"]) == 0
    printed = capsys.readouterr()
    assert "txt" in printed.out
    assert printed.err == "groundup: these are the tokens of the name; of what is in the file: < poem.txt\n"


def test_the_version_has_a_word_of_its_own(capsys):
    assert main(["version"]) == 0
    assert capsys.readouterr().out.startswith("groundup 0.")
