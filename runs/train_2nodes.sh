#!/usr/bin/env bash
# One run on two machines that see each other and share the disk of runs/. On each of them, with the same words:
#
#   HEAD=10.0.0.1 bash runs/train_2nodes.sh       # flags of groundup train may follow
#
# HEAD is the first machine, as the second one reaches it. JOB must be new for every run, and the same on both.
set -euo pipefail

NODES=2
GPUS=8
PORT=29500
JOB="${JOB:-gpt2-1}"
PRESET=gpt2-fineweb
NAME=gpt2
MICRO_BATCH_SIZE=32
RESTARTS=3

# Lets a machine that was lost join again: https://github.com/pytorch/pytorch/issues/135712
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
# Seconds for the step that is being made, and for saving, before torchrun kills: 30 unless said.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=600

exec torchrun --nnodes "$NODES" --nproc_per_node "$GPUS" --max-restarts "$RESTARTS" \
    --rdzv-backend c10d --rdzv-endpoint "${HEAD:?say HEAD=ADDRESS of the first machine}:$PORT" --rdzv-id "$JOB" \
    -m groundup train "$PRESET" --name "$NAME" --runtime.micro-batch-size "$MICRO_BATCH_SIZE" "$@"
