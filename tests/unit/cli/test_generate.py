import io

import pytest

from groundup.checkpoint.model_folder import load_model, save_model
from groundup.cli.generate import SEPARATOR
from groundup.cli.main import main
from groundup.config.generate import SamplingConfig
from groundup.generation.text import TextGenerator
from groundup.terminal.say import write


@pytest.fixture
def folder(tmp_path, tiny_model, alphabet):
    save_model(tmp_path / "model", tiny_model, alphabet, {})
    return tmp_path / "model"


def run(capsys, *words, code=0):
    assert main(["generate", *map(str, words)]) == code
    printed = capsys.readouterr()
    if code:
        assert printed.out == ""
        assert printed.err.startswith("groundup: ")
        assert printed.err.count("\n") == 1
        return printed.err.removeprefix("groundup: ").rstrip("\n")
    assert printed.err == ""
    return printed.out


def test_prints_the_prompt_and_what_the_library_draws(folder, capsys):
    loaded = load_model(folder)
    sampling = SamplingConfig(temperature=0.8, top_k=5, top_p=0.9, repetition_penalty=1.2)
    (text,) = TextGenerator(loaded.model, loaded.tokenizer).generate("abc", max_new_tokens=9, sampling=sampling, seed=3)
    flags = ["--temperature=0.8", "--top-k=5", "--top-p=0.9", "--repetition-penalty=1.2", "--seed=3"]
    assert run(capsys, folder, "--prompt=abc", "--max-new-tokens=9", *flags) == f"abc{text}\n"


def test_streamed_or_not_the_text_is_the_same(folder, capsys):
    words = [folder, "--prompt=ab", "--max-new-tokens=30"]
    assert run(capsys, *words) == run(capsys, *words, "--stream")


def test_the_run_folder_is_as_good_as_the_model_folder(folder, capsys):
    words = ["--prompt=a", "--max-new-tokens=5"]
    assert run(capsys, folder, *words) == run(capsys, folder.parent, *words)


def test_samples_are_separated_and_the_first_does_not_depend_on_their_number(folder, capsys):
    words = [folder, "--prompt=a", "--max-new-tokens=6"]
    one = run(capsys, *words).rstrip("\n")
    three = run(capsys, *words, "--num-samples=3").removesuffix("\n").split(SEPARATOR)
    assert len(three) == 3
    assert three[0].rstrip("\n") == one
    assert len(set(three)) == 3


def test_stop_strings_end_the_text(folder, capsys):
    words = [folder, "--prompt=a", "--max-new-tokens=40"]
    whole = run(capsys, *words).removesuffix("\n")
    stop = whole[10]
    shorter = run(capsys, *words, "--stop", stop, "--stop=zz").removesuffix("\n")
    assert shorter == "a" + whole[1:].split(stop)[0]


def test_backslashes_stand_for_what_a_shell_makes_hard(folder, capsys):
    assert run(capsys, folder, r"--prompt=a\nb", "--max-new-tokens=1").startswith("a\nb")


@pytest.mark.parametrize("flags", [[], ["--stream"], ["--interactive"]])
def test_a_prompt_longer_than_the_context_is_read_by_its_end(flags, folder, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    words = ["generate", str(folder), "--max-new-tokens=9", *flags]
    assert main([*words, "--prompt=" + "wxy" + "abcdefgh" * 2]) == 0
    long = capsys.readouterr()
    assert long.err == "groundup: the prompt has 19 tokens, the model's context is 16: its last 16 are read\n"
    assert main([*words, "--prompt=" + "abcdefgh" * 2]) == 0
    fits = capsys.readouterr()
    assert fits.err == ""
    assert long.out.removeprefix("wxy") == fits.out


def test_line_ends_of_a_prompt_are_those_of_training(folder, capsys):
    words = [folder, "--max-new-tokens=12"]
    unix = run(capsys, *words, "--prompt=a\nb\n").removeprefix("a\nb\n")
    for ends in ("a\r\nb\r\n", "a\rb\r"):
        assert run(capsys, *words, f"--prompt={ends}").removeprefix(ends) == unix


def test_prompts_from_a_pipe(folder, capsys, monkeypatch):
    def converse(text, code=0):
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        assert main(["generate", str(folder), "--interactive", "--max-new-tokens=4", "--seed=2"]) == code
        return capsys.readouterr()

    first, second = converse("ab\ncd\n").out, converse("ab\n").out
    assert first.startswith(second)
    assert len(first) == 2 * (4 + 1)
    again = converse("ab\nab\n").out
    assert again[:5] == second
    assert again[5:] != second  # each prompt has a seed of its own
    answer = converse("ab\nÄ\ncd\n", code=1)  # one bad prompt: said, counted, and on with the next
    assert "'Ä'" in answer.err
    assert answer.err.count("\n") == 1
    assert len(answer.out) == len(first)
    for word in ("/quit", "/exit"):
        assert converse(f"ab\n{word}\ncd\n").out == second
    assert "/quit" in converse("/help\n").out
    answer = converse("ab\n\udcff\ncd\n", code=1)
    assert "valid UTF-8" in answer.err
    assert len(answer.out) == len(first)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--temperature=-1"], "temperature must be 0 or more, got -1.0"),
        (["--temperature=inf"], "temperature must be at most 1e+30, got inf"),
        (["--num-samples=100001"], "num-samples must be at most 100,000, got 100,001"),
        (["--temperature=nan"], "temperature must be 0 or more, got nan"),
        (["--top-p=0"], "top-p must be in (0, 1], got 0.0"),
        (["--top-p=1.1"], "top-p must be in (0, 1], got 1.1"),
        (["--top-k=-1"], "top-k must be 0 (off) or more, got -1"),
        (["--repetition-penalty=0"], "repetition-penalty must be 0.01 to 100, got 0.0"),
        (["--max-new-tokens=0"], "max-new-tokens must be at least 1, got 0"),
        (["--num-samples=0"], "num-samples must be at least 1, got 0"),
        (["--seed=-1"], "seed must be in [0, 2^63), got -1"),
        (["--stop="], "stop must have at least one character, got an empty string"),
        (["--stream", "--num-samples=2"], "--stream shows one sample at a time, got num-samples 2"),
        (["--stream", "--explain"], "choose one of --stream and --explain"),
        (["--prompts-file=a.txt"], "--prompts-file and --out go together"),
        (["--out=a.jsonl"], "--prompts-file and --out go together"),
        (["--prompts-file=a.txt", "--out=b", "--prompt=a"], "--prompts-file goes without --prompt"),
        (["--prompts-file=a.txt", "--out=b", "--explain"], "--prompts-file goes without --explain"),
        (["--prompt=\udcff"], "the text must be valid UTF-8, got '\\udcff'"),
        (["--temprature=1"], "unrecognized options: --temprature=1; did you mean --temperature?"),
        (["--device=tpu"], "--device must be one of 'auto', 'cpu', 'cuda', 'mps', got 'tpu'"),
    ],
)
def test_wrong_usage_is_one_line_and_2(flags, message, folder, capsys):
    assert run(capsys, folder, *flags, code=2).startswith(message)


def test_no_folder_is_wrong_usage(capsys):
    assert run(capsys, code=2).startswith("name a run or a model, as in: groundup generate runs/NAME")


def test_failures_are_one_line_and_1(folder, capsys, tmp_path):
    line = run(capsys, folder, "--prompt=aZ", code=1)
    assert line.startswith("character 'Z' at position 1 is not among the 27 symbols this model knows")
    assert "does not exist; give a run, checkpoint or model folder" in run(capsys, tmp_path / "gone", code=1)
    (tmp_path / "empty").mkdir()
    assert "holds no model" in run(capsys, tmp_path / "empty", code=1)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    assert "model.safetensors" in run(capsys, folder, code=1)


def test_a_terminal_that_cannot_show_a_character_gets_a_question_mark(folder, monkeypatch):
    with io.TextIOWrapper(io.BytesIO(), encoding="ascii") as stdout:
        monkeypatch.setattr("sys.stdout", stdout)
        assert main(["generate", str(folder), "--prompt=ab", "--max-new-tokens=1"]) == 0
        write("aé→b")
        assert stdout.buffer.getvalue().endswith(b"a??b")
        monkeypatch.undo()
