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
# # GPT-2 124M on Kaggle, two T4
#
# Settings of the notebook: accelerator "GPU T4 x2", internet on. A T4 has no bfloat16, so training is in fp16 with loss
# scaling; it has 16 GB, which a micro-batch of 8 leaves half empty. What the settings mean, and what goes wrong:
# docs/guide/kaggle.md. Edit this cell, then run all.

# %%
SOURCE = ""  # an address for pip, such as git+https://...; empty takes what is among the inputs
TEXT = "/kaggle/temp/text"  # where FineWeb-Edu goes; a folder of your own text among the inputs is read in its place
RUN = "gpt2"
STEPS = 4000  # about four hours by arithmetic; where a session ends before, run all again in the next one
HOURS = 11  # a session has 12

# %% [markdown]
# Install. Inputs (Add Input) are read-only, so they are copied: a dataset that holds this repository, or its wheel (with
# the wheels it needs, if internet is off), and the `runs/` of an earlier session. PyTorch stays the one that is there: its
# version is shown before and after.

# %%
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

INPUT = Path("/kaggle/input")


def install(*words):
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *words], check=True)


def trained(run):
    return sorted((step.name for step in run.glob("**/checkpoints/step-*")), reverse=True)


runs = [folder for folder in INPUT.glob("**/runs/*") if any(folder.glob("**/config.json"))]  # also a sweep's
for run in sorted(runs, key=trained, reverse=True):
    if not Path("runs", run.name).exists():  # else it is here, and may have gone on
        shutil.copytree(run, f"runs/{run.name}.part", dirs_exist_ok=True)
        Path(f"runs/{run.name}.part").rename(f"runs/{run.name}")
before = version("torch")
wheels = sorted(INPUT.glob("**/groundup-*.whl"))
folders = [file.parent for file in sorted(INPUT.glob("**/pyproject.toml")) if 'name = "groundup"' in file.read_text()]
extras = "[data,fast,offline]"
if SOURCE:
    install(f"groundup{extras} @ {SOURCE}")
elif wheels:
    around = wheels[-1].parent
    alone = ["--no-index"] if len(list(around.glob("*.whl"))) > 1 else []  # pip would wait for an internet that is off
    install(*alone, "--find-links", str(around), f"{wheels[-1]}{extras}")
elif folders:
    copy = shutil.copytree(folders[0], "/kaggle/temp/groundup", dirs_exist_ok=True)
    install(f"{copy}{extras}")
else:
    raise SystemExit("add a dataset with this repository or its wheel, or give SOURCE")
print("torch", before, "->", version("torch"))

# %% [markdown]
# The machine: it should name a Tesla T4 and say fp16.

# %%
# !groundup doctor

# %% [markdown]
# One file of FineWeb-Edu, 0.7 billion tokens, into shards. Stopped, both lines go on where they were. They lie in
# `/kaggle/temp`: whatever is in `/kaggle/working` becomes the notebook's output, 20 GB at most. With internet off, put
# text among the inputs and its folder into `TEXT`.

# %%
# !test {TEXT} != /kaggle/temp/text || hf download HuggingFaceFW/fineweb-edu sample/10BT/000_00000.parquet --repo-type dataset --local-dir {TEXT}
# !groundup prepare {TEXT} /kaggle/temp/fineweb-edu --tokenizer gpt2
# !groundup data sample /kaggle/temp/fineweb-edu --num 2

# %% [markdown]
# Train on both GPUs: 16 sequences of 1,024 at a time, 8 times a step. It goes on where there is a run, else it begins;
# after `HOURS` it saves, stops and draws its report.

# %%
# !torchrun --standalone --nproc_per_node 2 -m groundup train gpt2-fineweb --name {RUN} --max-steps {STEPS} \
#     --resume-or-start --max-hours {HOURS} --data.path /kaggle/temp/fineweb-edu --data.cache-dir /kaggle/temp \
#     --tokens-per-step 131072 --runtime.micro-batch-size 8 --runtime.precision fp16 --runtime.parallel ddp \
#     --optim.warmup-steps 200 --eval.every 250 --eval.max-tokens 1048576 --checkpoint.every 250

# %%
# !groundup runs list
# !groundup generate runs/{RUN} --prompt "The reason why the sky is blue" --max-new-tokens 100 --top-p 0.9

# %% [markdown]
# For transformers, to be kept with the notebook's output.

# %%
# !groundup export runs/{RUN} {RUN}-hf --format hf
