#!/usr/bin/env bash
# GPT-2 124M on FineWeb-Edu with the 8 GPUs of one machine. Shards first:
#
#   groundup prepare fineweb-edu data/fineweb-edu
#   bash runs/train_8gpu.sh                       # flags of groundup train may follow
#
# When a process dies, all are started again and go on from the last checkpoint, up to RESTARTS times.
set -euo pipefail

GPUS=8
PRESET=gpt2-fineweb
NAME=gpt2
MICRO_BATCH_SIZE=64 # sequences per GPU at a time: as many as fit; GPUS times it must divide the step's sequences
RESTARTS=3

# Seconds for the step that is being made, and for saving, before torchrun kills: 30 unless said.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=600

exec torchrun --standalone --nproc_per_node "$GPUS" --max-restarts "$RESTARTS" -m groundup \
    train "$PRESET" --name "$NAME" --runtime.micro-batch-size "$MICRO_BATCH_SIZE" "$@"
