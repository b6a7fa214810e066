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
SOURCE = "git+https://example.org/groundup.git"  # where this repository is; a folder of yours: file:///tmp/groundup
RUN = "gpt2"
STEPS = 4000  # about four hours by arithmetic; a session may end before, and the cell that resumes goes on

# %% [markdown]
# Install, and look at the machine: it should name a Tesla T4 and say fp16.

# %%
# !pip install --quiet "groundup[data,export,fast,offline] @ {SOURCE}"
# !groundup doctor

# %% [markdown]
# One file of FineWeb-Edu, 0.7 billion tokens, into shards. Stopped, both lines go on where they were.

# %%
# !hf download HuggingFaceFW/fineweb-edu sample/10BT/000_00000.parquet --repo-type dataset --local-dir data/text
# !groundup prepare data/text data/fineweb-edu --tokenizer gpt2
# !groundup data sample data/fineweb-edu --num 2

# %% [markdown]
# Train on both GPUs: 16 sequences of 1,024 at a time, 8 times a step. Interrupted, it saves and stops.

# %%
# !torchrun --standalone --nproc_per_node 2 -m groundup train gpt2-fineweb --name {RUN} --max-steps {STEPS} \
#     --tokens-per-step 131072 --runtime.micro-batch-size 8 --runtime.precision fp16 --runtime.parallel ddp \
#     --optim.warmup-steps 200 --eval.every 250 --eval.max-tokens 1048576 --checkpoint.every 250

# %% [markdown]
# After a session that ended: bring `runs/` back, skip the cell above, run this one.

# %%
# !torchrun --standalone --nproc_per_node 2 -m groundup train --resume runs/{RUN}

# %%
# !groundup runs list
# !groundup generate runs/{RUN} --prompt "The reason why the sky is blue" --max-new-tokens 100 --top-p 0.9

# %% [markdown]
# For transformers, to be kept with the notebook's output.

# %%
# !groundup export runs/{RUN} {RUN}-hf --format hf
