"""What is wrong on a command line, and can be known without PyTorch: one line at once, its code, and nothing left."""

import json
import os
import subprocess
import sys

import pytest

from groundup.config.errors import UserError
from groundup.files.new import refuse_unwritable

NOT_THERE = [
    "train nope.txt",
    "train no/folder",
    "train shakespeare --init-from nope.txt",
    "train --config nope.txt",
    "train --resume nope.txt",
    "plan nope.txt",
    "sweep nope.txt --seed 1,2",
    "scaling --text nope.txt",
    "eval nope.txt",
    "eval runs/first --tasks nope.jsonl",
    "eval runs/first --tasks no/folder",
    "generate nope.txt",
    "generate runs/first --out a.jsonl --prompts-file nope.txt",
    "serve --no-open nope.txt",
    "export nope.txt out",
    "import nope.txt out",
    "finetune runs/first nope.txt",
    "finetune nope.txt text.txt",
    "tokenizer train nope.txt",
    "tokenizer show it --tokenizer nope.txt",
    "prepare nope.txt out",
    "prepare no/folder out",
    "prepare text.txt out --tokenizer nope.txt",
    "data info nope.txt",
    "data sample nope.txt",
    "runs plot nope.txt",
    "report nope.txt",
    "bench prepare --path nope.txt",
]
"""A path that leads to nothing is what something outside has not: 1, whatever the command."""
EMPTY = [
    "prepare text.txt ''",
    "data info ''",
    "data verify ''",
    "eval ''",
    "generate ''",
    "generate runs/first --out ''",
    "export '' out",
    "export runs/first ''",
    "import ''",
    "import text.txt ''",
    "finetune '' text.txt",
    "finetune runs/first ''",
    "tokenizer train text.txt --out ''",
    "report ''",
    "runs list ''",
    "train text.txt --out-dir ''",
    "train text --data.path ''",
    "bench prepare --path ''",
]
"""An empty word, which Python takes for the working folder."""
MISTAKES = [
    *[(typed, 2, "an empty word is no path; is it a variable that is not set?") for typed in EMPTY],
    ("prepare '' out", 2, "'' is no file, folder or glob"),
    ("data sample ''", 2, "'' is no file, folder or glob"),
    ("tokenizer show it --tokenizer ''", 1, "there is no tokenizer ''"),
    ("serve ''", 2, "cannot take ''"),
    ("runs plot runs/first ''", 2, "cannot take 'runs/first', ''"),
    ("tokenizer train ''", 2, "cannot take ''"),
    ("train --resume ''", 2, "--resume needs a value, got ''"),
    ("train --config ''", 2, "--config needs a value, got ''"),
    *[(typed, 1, next(word for word in typed.split() if word.startswith("no"))) for typed in NOT_THERE],
    ("train nope", 2, "unknown preset 'nope'"),
    ("eval runs/first --tasks nope", 2, "unknown task 'nope'"),
    ("prepare nope out", 2, "'nope' is no file, folder or glob"),
    ("runs compare runs/first runs/frist", 1, "runs/frist does not exist; did you mean runs/first?"),
    ("runs plot First", 1, "First does not exist; did you mean runs/first?"),
    ("runs plot runs/first --out gone/a.png", 1, "cannot write gone/a.png: there is no folder gone"),
    ("runs csv gone", 1, "gone does not exist; give the folder of a run"),
    ("runs csv runs/first --out text.txt", 2, "out must end with .csv, got text.txt"),
    ("runs csv runs/first --out runs/first/metrics.jsonl", 2, "out must end with .csv, got runs/first/metrics.jsonl"),
    ("runs csv runs/first --out taken.csv", 1, "cannot write taken.csv: it is a folder; name a file in it"),
    ("report runs/secnd", 1, "runs/secnd does not exist; did you mean runs/second?"),
    ("report runs/first/model", 1, "runs/first/model is a part of a run; did you mean runs/first?"),
    ("report --opne", 2, "unrecognized options: --opne; did you mean --open?"),
    ("export --fromat gguf", 2, "unrecognized options: --fromat; did you mean --format?"),
    ("generate --promt=x", 2, "unrecognized options: --promt=x; did you mean --prompt?"),
    ("eval -t val", 2, "unrecognized options: -t (see groundup eval --help)"),
    ("report empty", 1, "empty is not a run folder"),
    ("plan shakespeare --hardwear T4", 2, "unrecognized options: --hardwear, T4; did you mean --hardware?"),
    ("plan shakespeare --token 3M", 2, "unrecognized options: --token, 3M; did you mean --tokens?"),
    ("plan text.txt --max-steps x", 2, "--max-steps must be a whole number, got 'x'"),
    ("plan shakespeare --hardware=T5", 2, "hardware must be here, or a device and how many of it"),
    ("plan --config text.txt", 1, "text.txt is not valid JSON"),
    ("train text.txt --zzz", 2, "unrecognized options: --zzz"),
    ("train text.txt --eval.evry 3", 2, "did you mean --eval.every?"),
    ("train text.txt --runtime.compile maybe", 2, "--runtime.compile must be one of"),
    ("sweep shakespeare --sead 1,2", 2, "unrecognized options: --sead, 1; did you mean --seed?"),
    ("sweep shakespeare --seed a,b", 2, "--seed must be a whole number, got 'a'"),
    ("sweep shakespeare --seed 1,2 --out-dir text.txt", 1, "text.txt is a file where a folder is needed"),
    ("scaling --text gone", 1, "gone does not exist"),
    ("scaling --steps x", 2, "--steps must be a whole number, got 'x'"),
    ("scaling --out text.txt/a", 1, "text.txt is a file where a folder is needed"),
    ("export runs/frist out", 1, "runs/frist does not exist; did you mean runs/first?"),
    ("export empty out", 1, "empty holds no model: neither model.safetensors nor model/ nor checkpoints/ is in it"),
    ("export text.txt out", 1, "text.txt holds no model"),
    ("export runs/first runs/second", 2, "runs/second is there already; name another or remove it"),
    ("export runs/first text.txt/out", 1, "text.txt is a file where a folder is needed"),
    ("generate empty", 1, "empty holds no model"),
    ("generate shards", 1, "shards holds prepared shards and no model; to make one of them: groundup train shards"),
    ("serve shards", 1, "shards holds prepared shards and no model"),
    ("bench gpu --device cpu --only NOSUCH", 2, "no case has 'NOSUCH' in its name; there are 124M; 124M modern; "),
    ("eval empty", 1, "empty holds no model"),
    ("bench train --nanogpt gone", 1, "gone does not exist"),
    ("bench generate --nanogpt empty", 1, "empty is not a checkout of nanoGPT: it has no model.py"),
    ("bench gpu --device cpu --json gone/a.json", 1, "cannot write gone/a.json: there is no folder gone"),
    ("bench gpu --device cpu --json empty", 1, "cannot write empty: it is a folder; name a file in it"),
    ("bench gpu --device cpu --profile text.txt", 1, "text.txt is a file where a folder is needed"),
    ("bench memory --micro-batch-sizes", 2, "micro-batch-sizes needs a number at least"),
    ("bench memory --micro-batch-sizes x", 2, "--micro-batch-sizes cannot take 'x'"),
    ("bench checkpoint --folder gone", 1, "gone does not exist"),
    ("bench data --folder gone", 1, "gone does not exist"),
    ("bench data --tokens 1024", 2, "tokens must be more than block-size, got 1024 and 1024"),
    ("bench train --threads 99999", 2, "threads must be at most 1024, got 99999"),
    ("bench eval --path gone", 1, "gone does not exist"),
    ("bench prepare --path empty", 2, "path must be a folder of .jsonl files, got empty"),
    ("bench ablation --tiny-shakespeare gone", 1, "gone does not exist"),
    ("bench loss --nanogpt empty --tiny-shakespeare text.txt", 1, "empty is not a checkout of nanoGPT"),
    ("bench weights --model runs/frist --text text.txt", 1, "runs/frist does not exist; did you mean runs/first?"),
    ("bench weights --model empty --text text.txt", 1, "empty holds no model"),
    ("bench weights --model runs/first --text gone", 1, "gone does not exist"),
]


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """What all of them answer, in one process that has imported nothing before."""
    place = tmp_path_factory.mktemp("place")
    for name in ("first", "second"):
        (place / "runs" / name / "model").mkdir(parents=True)
        (place / "runs" / name / "run.json").write_text("{}")
        (place / "runs" / name / "metrics.jsonl").touch()
    (place / "text.txt").write_text("it rains\n" * 4000)
    (place / "empty").mkdir()
    (place / "shards").mkdir()
    for name in ("index.json", "train-000000.bin", "val-000000.bin"):
        (place / "shards" / name).touch()
    (place / "taken.csv").mkdir()
    code = (
        "import contextlib, io, json, shlex, sys\nfrom pathlib import Path\nfrom groundup.cli.main import main\n"
        "def tree(): return sorted((str(p), p.is_file() and p.read_text()) for p in Path().rglob('*'))\n"
        "before, answers = tree(), {}\n"
        "for typed in json.loads(sys.argv[1]):\n"
        "    out, err = io.StringIO(), io.StringIO()\n"
        "    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):\n"
        "        code = main(shlex.split(typed))\n"
        "    answers[typed] = code, out.getvalue(), err.getvalue(), 'torch' in sys.modules, tree() == before\n"
        "print(json.dumps(answers))"
    )
    typed = json.dumps([typed for typed, _, _ in MISTAKES])
    done = subprocess.run([sys.executable, "-c", code, typed], cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(("typed", "code", "line"), MISTAKES)
def test_a_mistake_is_one_line_before_pytorch_is_loaded(typed, code, line, answers):
    answered, out, err, loaded, unchanged = answers[typed]
    assert line in err
    assert err.count("\n") == 1
    assert (answered, out) == (code, "")
    assert not loaded
    assert unchanged


@pytest.mark.parametrize("folder", [True, False])
def test_a_place_that_may_be_written_is_none_to_refuse(folder, tmp_path):
    refuse_unwritable(tmp_path / "new", folder=folder)
    refuse_unwritable(tmp_path / "a" / "new", folder=True)
    refuse_unwritable(tmp_path, folder=True)
    (tmp_path / "old").touch()
    refuse_unwritable(tmp_path / "old")
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize("folder", [True, False])
def test_a_folder_of_others_is_refused(folder, tmp_path, monkeypatch):
    (tmp_path / "theirs").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path / "theirs")
    with pytest.raises(UserError, match=r"you may not write in .*theirs"):
        refuse_unwritable(tmp_path / "theirs" / "new", folder=folder)
