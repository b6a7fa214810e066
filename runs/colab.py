# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # GPT-2 124M on Colab
#
# Runtime, change runtime type: a GPU. `--runtime.precision auto` takes fp16 with loss scaling on a T4 and bf16 on an L4 or
# an A100. The run is kept on your Drive, so that it outlives the machine. What goes wrong: docs/guide/kaggle.md. Edit this
# cell, then run all.

# %%
SOURCE = ""  # an address for pip, such as git+https://...; empty takes the wheel or the repository that lies in RUNS
RUN = "gpt2"
STEPS = 2000  # about four hours on a T4 by arithmetic; where a session ends before, run all again
HOURS = 11  # a session has 12 at most
RUNS = "/content/drive/MyDrive/groundup"
MICRO_BATCH_SIZE = 8  # for 16 GB; 16 on an L4, 32 on an A100

# %%
from google.colab import drive

drive.mount("/content/drive")

# %% [markdown]
# Install. PyTorch stays the one that is there: its version is shown before and after.

# %%
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path


def install(*words):
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *words], check=True)


before = version("torch")
wheels = sorted(Path(RUNS).glob("*.whl"))
folders = [file.parent for file in sorted(Path(RUNS).glob("*/pyproject.toml"))]
extras = "[data,fast,offline]"
if SOURCE:
    install(f"groundup{extras} @ {SOURCE}")
elif wheels or folders:
    install(f"{[*folders, *wheels][-1]}{extras}")
else:
    raise SystemExit(f"put the wheel of groundup, or its repository, into {RUNS}, or give SOURCE")
print("torch", before, "->", version("torch"))

# %% [markdown]
# The machine: it should name your GPU and the precision that it does well.

# %%
# !groundup doctor

# %% [markdown]
# One file of FineWeb-Edu, 0.7 billion tokens, into shards. Stopped, both lines go on where they were.

# %%
# !hf download HuggingFaceFW/fineweb-edu sample/10BT/000_00000.parquet --repo-type dataset --local-dir data/text
# !groundup prepare data/text data/fineweb-edu --tokenizer gpt2
# !groundup data sample data/fineweb-edu --num 2

# %% [markdown]
# Train: it goes on where there is a run, else it begins; after `HOURS` it saves, stops and draws its report. Interrupted, it
# saves and stops.

# %%
# !groundup train gpt2-fineweb --name {RUN} --out-dir {RUNS} --max-steps {STEPS} \
#     --resume-or-start --max-hours {HOURS} --tokens-per-step 131072 \
#     --runtime.micro-batch-size {MICRO_BATCH_SIZE} --runtime.precision auto \
#     --optim.warmup-steps 200 --eval.every 250 --eval.max-tokens 1048576 --checkpoint.every 250

# %%
# !groundup runs list {RUNS}
# !groundup generate {RUNS}/{RUN} --prompt "The reason why the sky is blue" --max-new-tokens 100 --top-p 0.9

# %% [markdown]
# For transformers, to be downloaded.

# %%
# !groundup export {RUNS}/{RUN} {RUN}-hf --format hf
