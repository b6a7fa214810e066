import dataclasses
import json
import shlex
from pathlib import Path

import pytest

from groundup.checkpoint.model_folder import save_model
from groundup.cli.finetune import as_training
from groundup.cli.main import main
from groundup.cli.train import OWN_HELP, find_preset, read_request
from groundup.config.errors import UsageError
from groundup.config.io import dump_json, to_dict
from groundup.config.model import GPTConfig, ModernConfig
from groundup.config.presets import RECIPES
from groundup.interop.hf_config import fitting
from groundup.planner.plan import plan
from groundup.prepare.vocabulary import known_vocabulary
from groundup.tokenizer.char import CharTokenizer
from groundup.tokenizer.io import tokenizer_json


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def no_training(monkeypatch):
    """Training replaced by a note of what it was asked."""
    calls = []

    def train(config, *, resume, command, **_):
        calls.append((config, resume, command))
        return 0

    monkeypatch.setattr("groundup.training.run.train", train)
    return calls


def saved(path: Path, config) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dump_json(to_dict(config)))
    return path


def error_of(capsys, *words):
    code = main(["train", *words])
    printed = capsys.readouterr()
    assert code in (1, 2)
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    return code, printed.err.removeprefix("groundup: ").rstrip("\n")


@pytest.mark.parametrize("words", [[], ["-h"], ["--help"]])
def test_help_lists_every_preset(words, capsys):
    assert main(["train", *words]) == 0
    printed = capsys.readouterr().out
    for name, recipe in RECIPES.items():
        assert f"  {name} " in printed
        assert f"{recipe.max_steps:,} steps" in printed


@pytest.mark.parametrize("name", RECIPES)
def test_a_preset_is_the_recipe_and_flags_change_single_values(name):
    assert read_request([name]).config == RECIPES[name]
    request = read_request([name, "--optim.lr", "0.01", "--name=mine"])
    recipe = RECIPES[name]
    changed = dataclasses.replace(recipe, name="mine", optim=dataclasses.replace(recipe.optim, lr=0.01))
    assert request.config == changed
    assert (request.resume, request.dry_run) == (False, False)


@pytest.mark.parametrize(
    "words",
    [
        "--max-steps 5 PRESET",
        "--max-steps=5 --seed 3 PRESET --name mine",
        "--profile --runtime.no-recompute PRESET",
        "--profile PRESET --seed 3",
        "--dry-run --max-steps 5 PRESET",
        "--name shakespeare --model.kind modern PRESET --model.position rope",
        "--data.text-suffixes .txt .log PRESET",
    ],
)
@pytest.mark.parametrize("preset", ["shakespeare", "gpt2-fineweb", "notes/"])
def test_flags_may_stand_before_the_preset(words, preset, place):
    (place / "notes").mkdir()
    (place / "notes/a.txt").write_text("it rains\n" * 4000)
    typed = words.split()
    after = [preset, *(word for word in typed if word != "PRESET")]
    assert read_request([word.replace("PRESET", preset) for word in typed]) == read_request(after)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--max-steps 5 nope", "unknown preset 'nope'; the presets are"),
        ("--max-steps 5 shakespear", "unknown preset 'shakespear'; did you mean shakespeare?"),
        ("--lr 1e-3 shakespeare", "unrecognized options: --lr, 1e-3; did you mean --optim.lr?"),
        ("--max-steps 5 -", "a text is read from a file, not from a pipe"),
        ("--name shakespeare", "name one of: a preset, --config FILE, --resume DIR"),
        ("--seed 3 runs/mine", "runs/mine is a run, not a preset; to go on with it: groundup train --resume runs/mine"),
        ("--resume --seed 3", "name the run to go on with: groundup train --resume runs/NAME"),
    ],
)
def test_what_stands_behind_flags_is_judged_as_in_front(words, message, capsys):
    Path("runs/mine").mkdir(parents=True)
    Path("runs/mine/config.json").write_text("{}")
    code, line = error_of(capsys, *words.split())
    assert code == 2
    assert line.startswith(message)


@pytest.mark.parametrize(
    "words", ["m t --seed 3", "--seed 3 m t", "m --seed 3 t", "m --seed=3 t", "--dry-run m --seed 3 t", "--profile m t"]
)
def test_flags_may_stand_anywhere_in_finetune(words):
    flags = [word for word in words.split() if word not in "mt"]
    assert as_training(words.split()) == ["finetune", "--init-from", "m", "--data.path", "t", *flags]


@pytest.mark.parametrize("words", ["--seed 3 m", "m", "--seed 3", "m --name t"])
def test_finetune_needs_a_model_and_a_text(words):
    with pytest.raises(UsageError, match="name a model and a text"):
        as_training(words.split())
    assert as_training([*words.split(), "--help"]) == ["finetune", "--help"]


@pytest.mark.parametrize("words", [["--config", "c.json"], ["--config=c.json"]])
def test_a_config_file_is_the_run_and_flags_change_single_values(words):
    recipe = RECIPES["tiny-shakespeare"]
    saved(Path("c.json"), recipe)
    assert read_request(list(words)).config == recipe
    request = read_request([*words, "--seed=7"])
    assert request.config == dataclasses.replace(recipe, seed=7)
    assert not request.resume


@pytest.mark.parametrize("words", [["--model.kind", "modern"], ["--model.kind=modern"]])
def test_a_gpt_preset_becomes_modern_with_gpt2s_switches_until_a_flag_turns_one(words):
    recipe = RECIPES["tiny-shakespeare"]
    modern = ModernConfig.of(recipe.model)
    assert modern.position == "learned"
    assert read_request(["tiny-shakespeare", *words]).config == dataclasses.replace(recipe, model=modern)
    asked = read_request(["tiny-shakespeare", "--model.position=rope", *words, "--model.qk-norm"]).config
    assert asked.model == dataclasses.replace(modern, position="rope", qk_norm=True)


def test_a_modern_preset_becomes_gpt2_of_the_same_shape():
    shape = RECIPES["shakespeare"].model
    assert isinstance(shape, ModernConfig)
    asked = read_request(["shakespeare", "--model.kind", "gpt", "--model.n-layer", "2"]).config.model
    assert type(asked) is GPTConfig
    assert asked == GPTConfig(n_layer=2, n_head=shape.n_head, n_embd=shape.n_embd, block_size=shape.block_size)


@pytest.mark.parametrize("context", ["512", "=32"])
def test_steps_of_a_text_have_as_many_sequences_in_every_context(context):
    Path("text.txt").write_text("abc def\n" * 20)
    usual = read_request(["text.txt"]).config
    words = ["text.txt", *f"--model.block-size {context}".replace(" =", "=").split()]
    asked = read_request([*words]).config
    samples = usual.tokens_per_step // usual.model.block_size
    assert asked.tokens_per_step == samples * asked.model.block_size == samples * int(context.strip("="))
    assert read_request([*words, "--tokens-per-step", "8192"]).config.tokens_per_step == 8192


def test_what_cannot_be_exported_is_told_before_it_is_trained():
    Path("text.txt").write_text("abc def\n" * 20)
    told = "to export to transformers or llama.cpp, train with --model.position learned"
    assert told in read_request(["text.txt"]).note
    for words in (["--model.position", "learned"], ["--model.kind", "gpt"]):
        request = read_request(["text.txt", *words])
        assert told not in request.note
        fitting(request.config.model, "any GPT-2")


def test_weights_of_transformers_are_refused_before_data_is_prepared(capsys):
    Path("text.txt").write_text("abc def\n" * 20)
    Path("hf").mkdir()
    Path("hf/config.json").write_text('{"model_type": "gpt2"}')
    Path("hf/model.safetensors").touch()
    code, line = error_of(capsys, "text.txt", "--init-from", "hf")
    assert (code, line) == (1, "hf is a model of transformers; bring it in first: groundup import hf OUT")


def test_a_resumed_run_keeps_its_kind(capsys):
    recipe = RECIPES["tiny-shakespeare"]
    saved(recipe.run_dir / "config.json", recipe)
    for words in (["--resume", str(recipe.run_dir)], ["tiny-shakespeare", "--resume"]):
        assert read_request([*words, "--model.kind=gpt"]).config == recipe
        code, line = error_of(capsys, *words, "--model.kind=modern")
        assert code == 2
        assert line.startswith("a resumed run keeps its settings: model.kind cannot change")


@pytest.mark.parametrize("at", [0, 1, 2, 3])
def test_dry_run_may_stand_anywhere(at):
    words = ["shakespeare", "--seed", "3"]
    words.insert(at, "--dry-run")
    request = read_request(words)
    assert request.dry_run
    assert request.config == dataclasses.replace(RECIPES["shakespeare"], seed=3)


@pytest.mark.parametrize("name", RECIPES)
def test_dry_run_prints_the_whole_plan_and_touches_nothing(name, capsys, place, no_training):
    assert main(["train", name, "--dry-run"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    ids, assumed = known_vocabulary(RECIPES[name])
    for row in plan(RECIPES[name], vocab_size=ids, assumed=assumed).rows():
        assert " ".join(" ".join(row).split()) in printed
    assert list(place.iterdir()) == []
    assert no_training == []


def test_dry_run_refuses_shards_of_another_vocabulary_as_the_run_would(capsys, place):
    Path("notes.txt").write_text("a text to learn a few tokens from, and to cut into them\n" * 30)
    assert main(["tokenizer", "train", "notes.txt", "--vocab-size", "270", "--out", "n.json"]) == 0
    assert main(["prepare", "notes.txt", "own", "--tokenizer", "n.json"]) == 0
    capsys.readouterr()
    words = ["gpt2-fineweb", "--data.path", "own", "--dry-run"]
    line = "model.vocab_size is 50257 but the data's tokenizer has 270 ids; --model.vocab-size 0 takes the tokenizer's"
    assert error_of(capsys, *words) == (1, line)
    assert main(["train", *words, "--model.vocab-size", "0"]) == 0
    assert "with 270 ids" in capsys.readouterr().out


def test_dry_run_counts_with_the_tokenizer_that_is_named(capsys, tmp_path):
    (tmp_path / "abc.json").write_text(tokenizer_json(CharTokenizer("abc")), "utf-8")
    for flags, ids in (
        ([f"--data.tokenizer={tmp_path / 'abc.json'}"], "3"),
        (["--data.tokenizer=gpt2"], "50,257"),
        (["--data.source=shards", "--data.path=none"], "50,257 ids, assumed until the data is read"),
        ([], "62"),
    ):
        assert main(["train", "shakespeare", "--dry-run", *flags]) == 0
        out = " ".join(capsys.readouterr().out.split())
        assert f", with {ids}" in out
        assert ("assumed" in out) == ("assumed" in ids)
    assert error_of(capsys, "shakespeare", "--dry-run", "--data.tokenizer=gone")[0] == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["shakespear"], "unknown preset 'shakespear'; did you mean shakespeare?"),
        (["zzz"], f"unknown preset 'zzz'; the presets are {', '.join(RECIPES)}"),
        ([""], "unknown preset ''; the presets are"),
        (["--dry-run"], "name one of: a preset, --config FILE, --resume DIR"),
        (["--seed=3"], "name one of: a preset, --config FILE, --resume DIR"),
        (["shakespeare", "--config", "c.json"], "name one of: a preset, --config FILE, --resume DIR"),
        (["shakespeare", "--optm.lr", "1"], "unrecognized options: --optm.lr, 1; did you mean --optim.lr?"),
        (["shakespeare", "--optim.lr", "x"], "--optim.lr must be a number, got 'x'"),
        (["shakespeare", "--dryrun"], "unrecognized options: --dryrun; did you mean --dry-run?"),
        (["shakespeare", "--resum"], "unrecognized options: --resum; did you mean --resume?"),
        (["shakespeare", "--lr=1"], "unrecognized options: --lr=1; did you mean --optim.lr?"),
        (["shakespeare", "--optim.lr=nan"], "optim.lr must be a number, got nan (see groundup train shakespeare "),
        (["shakespeare", "--optim.name", "sgd"], "--optim.name must be one of 'adamw', 'muon', got 'sgd'"),
        (["shakespeare", "--tokens-per-step=100"], "tokens_per_step must be a multiple of"),
        (["shakespeare", "stray"], "unrecognized options: stray"),
        (["shakespeare", "--init-from=x", "--lora.rank=129"], "lora.rank must be at most model.n_embd, the rank of a "),
        (["--config"], "--config needs a value"),
        (["shakespeare", "--model.kind"], "--model.kind needs a value"),
        (["shakespeare", "--model.kind=rope"], "model.kind must be gpt or modern, got 'rope'"),
        (["gpt2-fineweb", "--model.position=rope"], "--model.position turns a switch that a model of kind gpt has"),
        (["shakespeare", "--model.kind=gpt", "--model.no-qk-norm"], "--model.no-qk-norm turns a switch that a model"),
        (["--resume"], "name the run to go on with: groundup train --resume runs/NAME"),
    ],
)  # fmt: skip
def test_every_mistake_is_one_line_and_2(words, message, capsys):
    code, line = error_of(capsys, *words)
    assert code == 2
    assert line.startswith(message)


@pytest.mark.parametrize(
    ("words", "run"), [(["--resume", "nowhere"], "nowhere"), (["shakespeare", "--resume"], "runs/shakespeare")]
)
def test_a_run_that_is_not_there_cannot_go_on(words, run, capsys):
    line = f"{run} holds no run to resume: there is no config.json in it"
    assert error_of(capsys, *words) == (1, line)


@pytest.mark.parametrize("command", ["train", "plan"])
@pytest.mark.parametrize(
    "preset", [*RECIPES, "text", "finetune", "finetune --data.path=gone", "finetune --init-from x"]
)
def test_every_preset_lists_its_flags(command, preset, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, *preset.split(), "--help"])
    assert not stopped.value.code
    printed = capsys.readouterr()
    assert printed.err == ""
    usages = [line for line in printed.out.splitlines() if line.startswith("usage: ")]
    assert printed.out.startswith(usages[0])
    assert usages[-1].startswith(f"usage: groundup train {preset.split()[0]} ")
    assert usages[:-1] == ["usage: groundup plan PRESET [options] [flags of groundup train]"] * (command == "plan")
    assert printed.out.endswith(f"flags beside those of a config:\n{OWN_HELP}\n") == (command == "train")
    for flag in ("--max-steps", "--optim.lr", "--data.path", "--init-from", "--model.n-layer", "--lora.rank"):
        assert flag in printed.out


def test_a_mistake_in_a_flag_names_a_help_that_can_be_had(capsys):
    saved(Path("my c.json"), RECIPES["tiny-shakespeare"])
    _, line = error_of(capsys, "--config", "my c.json", "--model.n-head=3")
    words = shlex.split(line.rpartition("(see ")[2].rstrip(")"))
    assert words == ["groundup", "train", "--config", "my c.json", "--help"]
    with pytest.raises(SystemExit) as stopped:
        main(words[1:])
    assert not stopped.value.code
    assert "--model.n-head" in capsys.readouterr().out


def test_a_config_file_that_cannot_be_used_is_named(capsys):
    assert error_of(capsys, "--config", "gone.json") == (1, "cannot read gone.json: No such file or directory")
    Path("bad.json").write_text('{"model": {"n_layr": 3}}')
    assert error_of(capsys, "--config", "bad.json") == (
        1, "bad.json: unknown config key model.n_layr; did you mean model.n_layer?",
    )  # fmt: skip
    Path("worse.json").write_text('{"model": {"n_layer": 0}}')
    assert error_of(capsys, "--config", "worse.json") == (2, "worse.json: model.n_layer must be at least 1, got 0")


def test_a_model_is_no_run_to_resume(capsys):
    Path("model").mkdir()
    for name in ("config.json", "model.safetensors"):
        Path("model", name).write_text("{}")
    line = "model is a model, not a run; resume the run it is of, or begin with --init-from model"
    assert error_of(capsys, "--resume", "model") == (2, line)


def test_a_run_to_resume_may_have_been_named_without_its_folder(capsys):
    Path("runs/mine/checkpoints").mkdir(parents=True)
    line = "mine holds no run to resume: there is no config.json in it; did you mean runs/mine?"
    assert error_of(capsys, "--resume", "mine") == (1, line)


def test_a_run_in_place_of_a_preset_is_told_how_to_go_on(capsys):
    Path("runs/mine").mkdir(parents=True)
    Path("runs/mine/config.json").write_text("{}")
    line = "runs/mine is a run, not a preset; to go on with it: groundup train --resume runs/mine"
    assert error_of(capsys, "runs/mine") == (2, line)


def test_find_preset():
    assert find_preset("shakespeare") is RECIPES["shakespeare"]
    with pytest.raises(UsageError, match="did you mean gpt2-fineweb"):
        find_preset("gpt-fineweb")


class TestResume:
    config = dataclasses.replace(RECIPES["shakespeare"], seed=9)

    def test_the_saved_config_goes_on_with_what_may_change(self):
        saved(Path("runs/shakespeare/config.json"), self.config)
        request = read_request(["--resume", "runs/shakespeare", "--max-steps=5000", "--eval.every=7"])
        assert request.resume
        assert request.config == dataclasses.replace(
            self.config, max_steps=5000, eval=dataclasses.replace(self.config.eval, every=7)
        )

    @pytest.mark.parametrize("words", [["shakespeare", "--resume"], ["--resume=runs/shakespeare"]])
    def test_the_folder_may_be_named_in_other_ways(self, words):
        saved(Path("runs/shakespeare/config.json"), self.config)
        request = read_request(words)
        assert request.resume
        assert request.config == self.config  # the saved one, seed 9, and not the preset

    @pytest.mark.parametrize(("named", "seed"), [(["shakespeare"], 1337), (["--config", "theirs.json"], 9)])
    def test_one_command_begins_a_run_and_goes_on_with_it(self, named, seed):
        saved(Path("theirs.json"), self.config)
        words = [*named, "--resume-or-start", "--max-hours=11"]
        request = read_request(list(words))
        assert (request.resume, request.config.max_hours, request.config.seed) == (False, 11.0, seed)
        saved(Path("runs/shakespeare/config.json"), self.config)
        assert not read_request(list(words)).resume  # it made no checkpoint
        Path("runs/shakespeare/checkpoints/step-0000010").mkdir(parents=True)
        request = read_request(list(words))
        assert (request.resume, request.config.max_hours, request.config.seed) == (True, 11.0, 9)

    def test_what_a_config_file_says_now_is_asked_of_the_run(self):
        saved(Path("runs/shakespeare/config.json"), self.config)
        Path("runs/shakespeare/checkpoints/step-0000010").mkdir(parents=True)
        saved(Path("longer.json"), dataclasses.replace(self.config, max_steps=5000, out_dir=Path("./runs")))
        request = read_request(["--config", "longer.json", "--resume-or-start"])
        assert (request.resume, request.config) == (True, dataclasses.replace(self.config, max_steps=5000))
        saved(Path("shorter.json"), dataclasses.replace(self.config, max_steps=5))  # as of a job that is sent again
        assert read_request(["--config", "shorter.json", "--resume-or-start"]).config == self.config
        saved(Path("other.json"), dataclasses.replace(self.config, max_steps=5000, seed=10))
        with pytest.raises(UsageError, match="seed cannot change"):
            read_request(["--config", "other.json", "--resume-or-start"])

    def test_a_preset_has_no_say_in_a_run_that_was_begun_with_other_flags(self):
        recipe = RECIPES["gpt2-fineweb"]
        assert recipe.data.path is not None
        began = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, source="text", path=Path("t.txt")))
        saved(began.run_dir / "config.json", began)
        (began.run_dir / "checkpoints/step-0000010").mkdir(parents=True)
        request = read_request(["gpt2-fineweb", "--resume-or-start"])
        assert (request.resume, request.config) == (True, began)

    def test_a_text_and_a_model_that_are_named_are_asked_of_the_run(self, make_model, letters):
        """Whether a text of this name is the run's is told by its contents, where they are read."""
        for folder in ("one", "two"):
            Path(folder).mkdir()
            Path(folder, "notes.txt").write_text("to be or not to be\n" * 500)
        config = read_request(["one/notes.txt"]).config
        saved(Path("runs/notes/config.json"), dataclasses.replace(config, seed=9))
        Path("runs/notes/checkpoints/step-0000010").mkdir(parents=True)
        request = read_request(["two/notes.txt", "--resume-or-start"])
        assert (request.resume, request.config.data.path, request.config.seed) == (True, Path("two/notes.txt"), 9)

        for model in ("A", "B"):
            save_model(Path(model), make_model(vocab_size=letters.vocab_size), letters, {})
        config = read_request(as_training(["A", "one/notes.txt", "--name=f"])).config
        saved(Path("runs/f/config.json"), dataclasses.replace(config, seed=9))
        Path("runs/f/checkpoints/step-0000010").mkdir(parents=True)
        for same in ("A", str(Path("A").absolute())):
            request = read_request(as_training([same, "one/notes.txt", "--name=f", "--resume-or-start"]))
            assert (request.resume, request.config.init_from, request.config.seed) == (True, Path("A"), 9)
        with pytest.raises(UsageError, match="init_from cannot change"):
            read_request(as_training(["B", "one/notes.txt", "--name=f", "--resume-or-start"]))

    @pytest.mark.parametrize(
        "flag",
        ["--seed=1", "--optim.lr=0.5", "--model.n-layer=9", "--tokens-per-step=8192", "--runtime.precision=bf16"],
    )
    def test_anything_else_makes_another_run(self, flag):
        saved(Path("runs/shakespeare/config.json"), self.config)
        key = flag.split("=")[0].removeprefix("--").replace("-", "_")
        with pytest.raises(UsageError, match=rf"{key} cannot change; start a new run with --config"):
            read_request(["--resume", "runs/shakespeare", flag])

    @pytest.mark.parametrize("moved", ["elsewhere/renamed", "deep/er/shakespeare"])
    def test_a_folder_that_was_moved_stays_where_it_is(self, moved):
        saved(Path(moved) / "config.json", self.config)
        request = read_request(["--resume", moved])
        assert request.config.run_dir == Path(moved)

    @pytest.mark.parametrize("word", [".", "../shakespeare", "./"])
    def test_from_inside_the_folder(self, word, place, monkeypatch):
        saved(place / "runs/shakespeare/config.json", self.config)
        monkeypatch.chdir(place / "runs/shakespeare")
        request = read_request(["--resume", word])
        assert request.config.run_dir.resolve() == place / "runs/shakespeare"

    def test_from_two_folders_up(self, place, monkeypatch):
        saved(place / "runs/shakespeare/config.json", self.config)
        (place / "runs/shakespeare/model").mkdir()
        monkeypatch.chdir(place / "runs/shakespeare/model")
        assert read_request(["--resume", ".."]).config.run_dir.resolve() == place / "runs/shakespeare"


def test_training_is_told_the_command_as_it_could_be_typed_again(no_training):
    words = ["shakespeare", "--data.source=text", "--data.path", "my texts/a 'quoted' one.txt"]
    assert main(["train", *words]) == 0
    ((config, resume, command),) = no_training
    assert not resume
    assert config.data.path == Path("my texts/a 'quoted' one.txt")
    assert shlex.split(command) == ["groundup", "train", *words]


@pytest.mark.parametrize("rank", ["0", "1"])
def test_of_the_processes_of_torchrun_one_says_what_was_chosen(rank, no_training, monkeypatch, capsys, place):
    Path("notes.txt").write_text("some words of a person\n" * 500)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", rank)
    assert main(["train", "notes.txt", "--runtime.device=cpu"]) == 0
    assert ("notes.txt from random weights" in capsys.readouterr().out) is (rank == "0")


def test_a_saved_config_is_plain_json(place):
    path = saved(place / "c.json", RECIPES["shakespeare"])
    assert json.loads(path.read_text())["model"]["n_layer"] == 4
