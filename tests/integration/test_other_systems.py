"""A run on a system that lacks what Linux has: functions that Windows or macOS do not know are taken away."""

import subprocess
import sys
from pathlib import Path

CODE = """
import os, signal, sys
import torch.distributed.elastic.timer  # which asks sys.platform in place of what there is
for module, names in (
    (os, ("pread", "posix_fadvise", "fdatasync", "sched_getaffinity", "getuid", "fork")),
    (signal, ("SIGHUP", "SIGUSR1", "SIGKILL", "SIGALRM", "setitimer", "pthread_kill")),
):
    for name in names:
        delattr(module, name)
sys.modules.update(dict.fromkeys(("resource", "termios", "pty", "pwd", "grp")))  # an import of these fails
from groundup.cli.main import main
for words in sys.argv[1].splitlines():
    assert main(words.split()) == 0, words
"""
SMALL = (
    "--model.n-layer=1 --model.n-embd=16 --model.n-head=2 --model.block-size=16 --tokens-per-step=256 --max-steps=4"
    " --runtime.compile=off --eval.max-tokens=500 --max-hours=1e-7"
)
WORDS = f"""train plays.txt --name=run {SMALL}
train --resume runs/run --max-hours=0
generate runs/run --max-new-tokens=5
eval runs/run --tasks val
prepare plays.txt shards --tokenizer=char --workers=1
data verify shards
export runs/run out --format=groundup"""


def test_train_resume_generate_and_prepare_without_what_linux_has(tmp_path):
    (tmp_path / "plays.txt").write_text("it rains, and the wind and the rain\n" * 300)
    command = [sys.executable, "-c", CODE, WORDS]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert "resumed at step 2" in done.stdout
    assert Path(tmp_path, "out", "model.safetensors").is_file()
