"""generate: many prompts from a file, explained tokens, sessions with commands."""

import io
import json
import math
import signal
import sys

import pytest
import torch

from groundup.checkpoint.model_folder import load_model, save_model
from groundup.cli.main import main
from groundup.generation import prompts_file
from groundup.generation.text import TextGenerator
from groundup.tokenizer.char import CharTokenizer


@pytest.fixture
def folder(tmp_path, tiny_model, alphabet):
    save_model(tmp_path / "model", tiny_model, alphabet, {})
    return tmp_path / "model"


def call(capsys, *words, code=0):
    assert main(["generate", *map(str, words)]) == code
    return capsys.readouterr()


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


class TestPromptsFile:
    @pytest.fixture(autouse=True)
    def _files(self, tmp_path):
        self.prompts = ["ab", "c\nd", "", "abcdefgh", "yx"]
        self.file, self.out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
        self.file.write_text("".join(json.dumps({"prompt": p, "id": 1}) + "\n" for p in self.prompts))
        self.words = ["--prompts-file", self.file, "--out", self.out, "--max-new-tokens=7", "--seed=3"]

    def test_each_prompt_gets_what_it_gets_alone_in_order(self, folder, capsys):
        assert call(capsys, folder, *self.words, "--num-samples=2").out == ""
        loaded = load_model(folder)
        generator = TextGenerator(loaded.model, loaded.tokenizer)
        rows = read(self.out)
        assert [row["prompt"] for row in rows] == self.prompts
        for place, row in enumerate(rows):
            texts = generator.generate(row["prompt"], max_new_tokens=7, num_samples=2, seed=3 + place)
            assert row["texts"] == texts
            assert row["finish_reasons"] == ["length", "length"]
        assert [path.name for path in folder.parent.iterdir() if "out" in path.name] == ["out.jsonl"]

    def test_lines_of_text_are_prompts(self, folder, capsys, tmp_path):
        lines = tmp_path / "in.txt"
        lines.write_text("ab\nc\\nd\n\nabcdefgh\nyx\n")
        call(capsys, folder, *self.words)
        wanted = read(self.out)
        self.out.unlink()
        call(capsys, folder, "--prompts-file", lines, *self.words[2:])
        assert read(self.out) == wanted

    @pytest.mark.parametrize(("out", "message"), [("", "it is a folder"), ("no/out.jsonl", "there is no folder")])
    def test_a_place_that_cannot_be_written_is_told_before_anything_is_drawn(
        self, folder, capsys, tmp_path, out, message
    ):
        (tmp_path / "empty").mkdir()
        words = [*self.words[:3], tmp_path / "empty" / out]
        assert message in call(capsys, folder, *words, code=1).err
        assert list((tmp_path / "empty").iterdir()) == []

    @pytest.mark.parametrize("cut", [0, 1, 9])
    def test_a_killed_command_goes_on(self, folder, capsys, monkeypatch, cut):
        call(capsys, folder, *self.words)
        wanted = self.out.read_bytes()
        self.out.unlink()
        drawn = prompts_file._in_order

        def stops(*arguments):
            for number, completion in enumerate(drawn(*arguments)):
                if number == 2:
                    raise KeyboardInterrupt
                yield completion

        monkeypatch.setattr(prompts_file, "_in_order", stops)
        call(capsys, folder, *self.words, code=130)
        assert not self.out.exists()
        (part,) = self.out.parent.glob("out.jsonl.*.part")
        data = part.read_bytes()
        part.write_bytes(data[: len(data) - cut])  # killed in the middle of a line
        starts = []
        monkeypatch.setattr(prompts_file, "_in_order", lambda *given: starts.append(given[2]) or drawn(*given))
        err = call(capsys, folder, *self.words).err
        assert starts == [2 if cut == 0 else 1]
        assert f"{starts[0]} of 5 texts are there already" in err
        assert self.out.read_bytes() == wanted

    @pytest.mark.fault(
        "A6",
        "a part of texts to come holds lines of something else, or zeros",
        "what is not of the prompts is drawn anew: the texts are those of an undisturbed command",
    )
    @pytest.mark.parametrize("odd", [b"junk\n" * 9, b"\0" * 40 + b"\n", b'{"prompt": "b"}\n', b"[" * 5000 + b"\n"])
    @pytest.mark.parametrize("whole", [0, 2])
    def test_a_part_that_holds_something_else(self, folder, capsys, monkeypatch, odd, whole):
        call(capsys, folder, *self.words)
        wanted = self.out.read_bytes()
        self.out.unlink()
        monkeypatch.setattr(prompts_file, "_in_order", lambda *_: signal.raise_signal(signal.SIGINT))
        call(capsys, folder, *self.words, code=130)
        monkeypatch.undo()
        (part,) = self.out.parent.glob("out.jsonl.*.part")
        part.write_bytes(b"".join(wanted.splitlines(keepends=True)[:whole]) + odd)
        call(capsys, folder, *self.words)
        assert self.out.read_bytes() == wanted

    @pytest.mark.fault(
        "A7",
        "the disk takes no more of the texts of many prompts",
        "one line that names the file; what was written stays, and the same command goes on after it",
    )
    @pytest.mark.skipif(sys.platform == "win32", reason="sets the system's limit of a file's size")
    def test_a_disk_that_takes_no_more(self, folder, capsys):
        import resource

        call(capsys, folder, *self.words)
        wanted = self.out.read_bytes()
        self.out.unlink()
        least, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(wanted) // 2, most))  # the kernel refuses what is beyond
        try:
            said = call(capsys, folder, *self.words, code=1).err
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (least, most))
        (part,) = self.out.parent.glob("out.jsonl.*.part")
        assert said == f"groundup: cannot write {part}: File too large\n"
        assert "are there already" in call(capsys, folder, *self.words).err
        assert self.out.read_bytes() == wanted

    @pytest.mark.fault(
        "C6", "two commands write the texts of the same prompts", "the second is refused; the first is not disturbed"
    )
    def test_two_at_once(self, folder, capsys, monkeypatch):
        drawn, said = prompts_file._in_order, []

        def disturbed(*arguments):
            for completion in drawn(*arguments):
                if not said:
                    said.append(call(capsys, folder, *self.words, code=1).err)
                yield completion

        monkeypatch.setattr(prompts_file, "_in_order", disturbed)
        call(capsys, folder, *self.words)
        assert "is being written by another process" in said[0]
        assert len(read(self.out)) == 5
        assert [path.name for path in self.out.parent.glob("*out.jsonl*")] == ["out.jsonl"]

    def test_other_settings_begin_anew(self, folder, capsys):
        part = self.out.with_name("out.jsonl.00000000.part")
        part.write_text("{}\n")
        call(capsys, folder, *self.words)
        assert len(read(self.out)) == 5

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ('{"prompt": "a"}\n{', "line 2 is not JSON"),
            pytest.param('{"prompt": ' + "[" * 100_000, "line 1 is not JSON", id="deep"),
            ('{"text": "a"}', 'line 1 must be an object with a text under "prompt"'),
            ("", "has no prompts"),
            ('{"prompt": "a"}\n{"prompt": "Ä"}', "prompt 2: character 'Ä' at position 0"),
        ],
    )
    def test_bad_files_are_one_line_and_nothing_is_drawn(self, folder, capsys, text, message):
        self.file.write_text(text)
        err = call(capsys, folder, *self.words, code=1).err
        assert message in err
        assert err.count("\n") == 1
        assert not list(self.out.parent.glob("out*"))

    def test_nothing_is_written_over(self, folder, capsys):
        self.out.write_text("mine")
        assert "is there already" in call(capsys, folder, *self.words, code=2).err
        assert self.out.read_text() == "mine"


def test_explain_tells_the_models_own_numbers(folder, capsys):
    head, *lines = call(
        capsys, folder, "--prompt=ab", "--explain", "--max-new-tokens=6", "--temperature=2"
    ).out.splitlines()
    assert head.split() == ["probability", "entropy", "token", "likeliest"]
    assert len(lines) == 6
    loaded = load_model(folder)
    with torch.no_grad():
        logp = loaded.model(torch.tensor([loaded.tokenizer.encode("ab")]))[0, -1].log_softmax(-1)
    name = lines[0].split("bits")[1].split()[0]
    p = logp[loaded.tokenizer.encode(name.strip("'"))[0]].exp().item()
    entropy = -(logp.exp() * logp).sum().item() / math.log(2)
    assert lines[0].split()[:2] == [f"{p:.1%}", f"{entropy:.1f}"]
    likeliest = loaded.tokenizer.decode([logp.argmax().item()])
    assert lines[0].split("bits")[1].split()[1:3] == [repr(likeliest), f"{logp.max().exp().item():.0%}"]
    assert "\x1b" not in "".join(lines)


class TestSession:
    @pytest.fixture(autouse=True)
    def _session(self, folder, capsys, monkeypatch):
        def session(*lines, code=0):
            monkeypatch.setattr("sys.stdin", io.StringIO("".join(line + "\n" for line in lines)))
            return call(capsys, folder, "--interactive", "--max-new-tokens=4", "--seed=2", code=code)

        self.session = session

    def test_a_seed_draws_its_text_again(self):
        first, second, again = self.session("ab", "ab", "/seed 2", "ab").out.split("\n")[:3]
        assert first == again != second

    def test_no_line_at_all_is_told(self):
        told = self.session()
        assert (told.out, told.err) == ("", "groundup: no prompt was given, and standard input is empty\n")

    def test_settings_hold_until_reset(self):
        greedy = self.session("/set temperature 0", "ab", "ab", "/set max-new-tokens 9", "ab").out.split("\n")
        assert greedy[0] == greedy[1] == greedy[2][:4]
        assert len(greedy[2]) == 9
        out = self.session("ab", "/set temperature 0", "/set top-k 3", "/reset", "ab").out.split("\n")
        assert out[0] == out[1]

    def test_texts_are_saved(self, tmp_path):
        path = tmp_path / "my  texts.txt"
        out = self.session("ab", "c\\", "d", f"/save {path}").out.split("\n")
        assert path.read_text() == f"ab{out[0]}\n\nc\nd{out[1]}\n\n"
        assert out[2] == f"2 texts are in {path}"

    @pytest.mark.parametrize("name", ["~nobody-here.txt", "x" * 300, "a\0b"])
    def test_a_session_goes_on_where_a_name_cannot_be_used(self, tmp_path, name):
        path = tmp_path / "texts"
        told = self.session("ab", f"/save {name}", f"/save {path}", code=1)
        assert told.err.startswith("groundup: cannot save in ")
        assert told.err.count("\n") == 1
        assert path.read_text().startswith("ab")

    def test_only_what_a_session_saved_is_written_over(self, tmp_path):
        mine, others = tmp_path / "mine.txt", tmp_path / "others.txt"
        others.write_text("precious")
        told = self.session("ab", f"/save {mine}", "c", f"/save {mine}", f"/save {others}", f"/save {tmp_path}", code=1)
        assert mine.read_text().count("\n\n") == 2
        assert others.read_text() == "precious"
        assert f"{others} is there already" in told.err
        assert f"cannot write {tmp_path}: it is a folder" in told.err

    def test_help_names_every_command(self):
        out = self.session("/help").out
        assert all(f"/{word}" in out for word in ("set", "seed", "reset", "save", "help"))

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("/fly", "cannot do /fly; /help lists"),
            ("/set", "cannot do /set"),
            ("/seed x", "cannot do /seed x"),
            ("/set wings 2", "there is no setting wings: repetition-penalty, "),
            ("/set temperature hot", "temperature must be a number, got hot"),
            ("/set temperature -1", "temperature must be 0 or more, got -1.0"),
            ("/set temperature 1e31", "temperature must be at most 1e+30, got 1e+31"),
            ("/set max-new-tokens 0", "max-new-tokens must be at least 1, got 0"),
        ],
    )
    def test_what_cannot_be_done_is_one_line_and_the_session_goes_on(self, line, message):
        answer = self.session(line, "ab", code=1)
        assert message in answer.err
        assert answer.err.count("\n") == 1
        assert len(answer.out) == 5

    def test_two_slashes_begin_a_prompt_with_one(self, tiny_model, tmp_path, capsys, monkeypatch):
        save_model(tmp_path / "slashes", tiny_model, CharTokenizer("/" + "".join(map(chr, range(97, 123)))), {})
        monkeypatch.setattr("sys.stdin", io.StringIO("//help\n"))
        words = [tmp_path / "slashes", "--max-new-tokens=4"]
        assert call(capsys, *words, "--interactive").out == call(capsys, *words, "--prompt=/help").out.removeprefix(
            "/help"
        )

    def test_ctrl_c_ends_the_text_and_not_the_session(self, monkeypatch):
        run, calls = TextGenerator.run, []

        def interrupted(self, requests):
            calls.append(None)
            pieces = run(self, requests)
            if len(calls) > 1:
                return pieces

            def two():
                yield next(pieces)
                raise KeyboardInterrupt

            return two()

        monkeypatch.setattr(TextGenerator, "run", interrupted)
        first, second = self.session("ab", "ab").out.split("\n")[:2]
        assert (len(first), len(second)) == (1, 4)
