"""--eval.hellaswag-every: one process, ranks that share the questions, and a sharded model log the same shares."""

import json

import pytest

import small_runs

FLAGS = [
    "shakespeare", "--data.source=text", "--data.path=text.txt", "--model.n-layer=1", "--model.n-head=2",
    "--model.n-embd=16", "--model.block-size=16", "--model.dropout=0", "--tokens-per-step=128", "--max-steps=5",
    "--runtime.micro-batch-size=4", "--runtime.threads=1", "--runtime.compile=off", "--runtime.device=cpu",
    "--optim.name=adamw", "--optim.warmup-steps=1", "--optim.lr=0.01", "--eval.every=5", "--eval.sample-every=0",
    "--eval.hellaswag-every=2", "--eval.hellaswag-path=questions.jsonl",
]  # fmt: skip


@pytest.fixture
def run(start, tmp_path, monkeypatch, short_ends):
    """run(size, name, ...) -> rows of metrics.jsonl with HellaSwag in them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(
        "".join(f"the {i} quick brown foxes jump over {i * i} dogs\n" for i in range(120))
    )
    words = ["the", "quick", "brown", "foxes", "jump", "over", "dogs"]
    rows = [
        {"ctx": " ".join(words[: 1 + n % 5]), "endings": [words[(n + k) % 7] for k in range(3)], "label": n % 3}
        for n in range(25)
    ]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(size, name, *words):
        team = start(size, "command", words=["train", *FLAGS, f"--name={name}", *words])
        assert team.results() == [0] * size
        return [row for row in small_runs.rows(name) if "hellaswag/acc" in row]

    return run


def test_one_result_whoever_shares_the_work(run):
    alone = run(1, "alone")
    assert [row["step"] for row in alone] == [2, 4, 5]
    assert all(0 < row["hellaswag/acc"] < 1 for row in alone)
    for size, name in ((2, "ddp"), (2, "fsdp")):
        together = run(size, name, f"--runtime.parallel={name}")
        for key in ("step", "tokens", "hellaswag/acc", "hellaswag/acc_norm"):
            assert [row[key] for row in together] == [row[key] for row in alone], (name, key)
