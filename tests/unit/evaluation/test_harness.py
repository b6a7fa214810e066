"""What lm-evaluation-harness sees; the harness itself is an oracle in the slow tests (pip install 'groundup[eval]')."""

import json
import os
import subprocess
import sys

import pytest
import torch

import needs
from groundup.checkpoint.model_folder import save_model
from groundup.config.errors import UsageError, UserError
from groundup.config.generate import SamplingConfig
from groundup.evaluation import harness
from groundup.evaluation.harness import Answers
from groundup.export.export_model import export_model
from groundup.inference.weights import weights_of
from groundup.tokenizer.gpt2 import load_gpt2

GREEDY = SamplingConfig(temperature=0.0)
WORDS = ["the sea", "was calm", "and", "old ships", "sailed", "on", "through fog", "while", "a gull", "cried", "above"]


def generate(answers, prompt, **options):
    ((place, text),) = answers.generate([answers.request(prompt, **options)])
    assert place == 0
    return text


@pytest.fixture
def answers(tmp_path, make_model, letters):
    save_model(tmp_path / "model", make_model(block_size=16), letters, {})
    return Answers(tmp_path / "model", device="cpu")


@torch.no_grad()
def direct(answers, context, continuation):
    ids = torch.tensor([*context, *continuation])
    logp = answers.model(ids[None, :-1])[0].log_softmax(-1)[-len(continuation) :]
    found = logp.gather(-1, torch.tensor(continuation)[:, None])
    return float(found.sum()), bool((logp.argmax(-1) == torch.tensor(continuation)).all())


def test_requests_of_one_context_meet_and_come_back_in_order(answers, monkeypatch):
    pairs = [([1, 2, 3], [4]), ([5], [6, 7]), ([1, 2, 3], [8, 9]), ([5], [6, 7])]
    asked = []
    ours = harness.log_likelihoods
    monkeypatch.setattr(
        harness, "log_likelihoods", lambda model, questions, **o: asked.extend(questions) or ours(model, questions, **o)
    )
    found = answers.loglikelihood(pairs)
    assert [len(question.continuations) for question in asked] == [2, 2]
    for answer, (context, continuation) in zip(found, pairs, strict=True):
        logprob, greedy = direct(answers, context, continuation)
        assert answer == (pytest.approx(logprob, rel=1e-5), greedy)


def test_a_model_that_gives_no_numbers_is_one_clear_line(tmp_path, make_model, letters):
    model = make_model(block_size=16)
    with torch.no_grad():
        model.ln_f.weight[0] = float("nan")
    save_model(tmp_path / "model", model, letters, {})
    with pytest.raises(UserError, match="a score is not a number; the model is damaged or has diverged"):
        Answers(tmp_path / "model", device="cpu").loglikelihood([([1], [2]), ([1], [3, 4])])


def test_an_empty_part_is_one_clear_line(answers):
    with pytest.raises(UserError, match="request 1 has an empty continuation"):
        answers.loglikelihood([([1], [2]), ([1], [])])


def test_generation_is_greedy_and_ends_at_a_stop_string(answers):
    ids = torch.tensor(answers.tokenizer.encode("abc"))
    drawn = []
    with torch.no_grad():
        for _ in range(10):
            drawn.append(
                int(answers.model(torch.cat((ids, torch.tensor(drawn, dtype=torch.long)))[None])[0, -1].argmax())
            )
    text = answers.tokenizer.decode(drawn)
    assert generate(answers, "abc", stop=[], max_new_tokens=10, sampling=GREEDY) == text
    stop = text[4:6]
    assert (
        generate(answers, "abc", stop=["never", "", stop], max_new_tokens=10, sampling=GREEDY)
        == text[: text.find(stop)]
    )


def test_a_long_prompt_loses_its_beginning(answers):
    prompt = "abcdefghijklmnopqrstuvwxyz"
    short = generate(answers, prompt[-11:], stop=[], max_new_tokens=5, sampling=GREEDY)
    assert generate(answers, prompt, stop=[], max_new_tokens=5, sampling=GREEDY) == short
    assert len(generate(answers, prompt, stop=[], max_new_tokens=50, sampling=GREEDY)) == 50


def test_without_a_separator_a_new_line_comes_first(answers):
    assert answers.prefix_id == answers.tokenizer.encode("\n")[0]


def test_weights_are_stored_as_is_asked(answers, tmp_path):
    assert weights_of(answers.model) is None
    assert weights_of(Answers(tmp_path / "model", device="cpu", weights="int8").model) == "int8"
    with pytest.raises(UsageError, match=r"weights must be one of fp32, .*, saved, auto, got int4"):
        Answers(tmp_path / "model", device="cpu", weights="int4")


def test_without_the_harness_the_extra_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "lm_eval.api.model", None)
    harness.register.cache_clear()
    assert harness.main() == 1
    assert capsys.readouterr().err == "groundup: lm-evaluation-harness is not installed: pip install 'groundup[eval]'\n"
    harness.register.cache_clear()


# --- with the harness -----------------------------------------------------------------------------------------------


@pytest.fixture
def sentences():
    generator = torch.Generator().manual_seed(0)

    def make(n):
        return " ".join(WORDS[i] for i in torch.randint(len(WORDS), (n,), generator=generator).tolist())

    return make


@pytest.fixture
def local_tasks(tmp_path, sentences):
    """Three tasks, one for each kind of request."""
    rows = [
        {
            "question": sentences(3 + n) if n != 2 else sentences(60),  # one is longer than the model's context
            "choices": [sentences(1 + (n + k) % 4) for k in range(3)],
            "answer": n % 3,
            "text": sentences(5 + 20 * n),
        }
        for n in range(6)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    head = (
        "dataset_path: json\ndataset_kwargs:\n  data_files:\n"
        f"    validation: {tmp_path / 'rows.jsonl'}\nvalidation_split: validation\n"
    )
    tasks = {
        "local_choice": 'output_type: multiple_choice\ndoc_to_text: "{{question}}"\ndoc_to_target: "{{answer}}"\n'
        'doc_to_choice: "{{choices}}"\nmetric_list:\n  - metric: acc\n  - metric: acc_norm\n',
        "local_rolling": 'output_type: loglikelihood_rolling\ndoc_to_text: ""\ndoc_to_target: "{{text}}"\n'
        "metric_list:\n  - metric: bits_per_byte\n",
        "local_generate": 'output_type: generate_until\ndoc_to_text: "{{question}}"\ndoc_to_target: "{{text}}"\n'
        "generation_kwargs:\n  until: [' sea', 'q']\n  max_gen_toks: 8\n  do_sample: false\n"
        "metric_list:\n  - metric: exact_match\n",
    }
    folder = tmp_path / "tasks"
    folder.mkdir()
    for name, text in tasks.items():
        (folder / f"{name}.yaml").write_text(f"task: {name}\n{head}{text}")
    return folder


@pytest.fixture
def gpt2_folder(tmp_path, make_model):
    needs.gpt2_vocabulary()
    save_model(tmp_path / "ours", make_model(block_size=32, vocab_size=50257), load_gpt2(), {})
    return tmp_path / "ours"


def answers_of(results):
    """The model's answer to every request, by task and document."""
    return {
        (task, sample["doc_id"]): sample["resps"] for task, samples in results["samples"].items() for sample in samples
    }


def flat(value):
    return [leaf for item in value for leaf in flat(item)] if isinstance(value, list | tuple) else [value]


@pytest.mark.slow
def test_the_harness_finds_us_equal_to_its_own_model_on_the_exported_folder(
    gpt2_folder, local_tasks, tmp_path, monkeypatch
):
    lm_eval = pytest.importorskip("lm_eval")
    pytest.importorskip("transformers")
    from lm_eval.tasks import TaskManager

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    harness.register()
    export_model(gpt2_folder, tmp_path / "theirs", "hf")
    tasks = ["local_choice", "local_rolling", "local_generate"]
    found = []
    for model, folder in (
        ("groundup", f"path={gpt2_folder}"),
        ("hf", f"pretrained={tmp_path / 'theirs'},dtype=float32"),
    ):
        manager = TaskManager(include_path=str(local_tasks), include_defaults=False)
        options = {"task_manager": manager, "device": "cpu", "bootstrap_iters": 0, "log_samples": True}
        found.append(lm_eval.simple_evaluate(model=model, model_args=folder, tasks=tasks, **options))
    ours, theirs = found
    assert answers_of(ours).keys() == answers_of(theirs).keys()
    for key, answer in answers_of(ours).items():
        for a, b in zip(flat(answer), flat(answers_of(theirs)[key]), strict=True):
            assert a == (pytest.approx(b, abs=1e-3, rel=1e-5) if isinstance(b, float) else b), key
    for task in tasks:
        numbers = {k: v for k, v in theirs["results"][task].items() if isinstance(v, float)}
        assert {k: ours["results"][task][k] for k in numbers} == pytest.approx(numbers, rel=1e-5)
    assert len(answers_of(ours)) == 18


@pytest.mark.slow
def test_its_command_line_knows_our_name(gpt2_folder, local_tasks, tmp_path):
    pytest.importorskip("lm_eval")
    words = ["run", "--model=groundup", f"--model_args=path={gpt2_folder}", "--tasks=local_choice", "--device=cpu"]
    result = subprocess.run(
        [sys.executable, "-m", "groundup.evaluation.harness", *words, f"--include_path={local_tasks}"],
        env={**os.environ, "HF_DATASETS_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "acc_norm" in result.stdout
