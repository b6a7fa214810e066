#!/usr/bin/env bash
# GPT-2 124M on FineWeb-Edu with one GPU (or none: it also runs on a CPU). Shards first:
#
#   groundup prepare fineweb-edu data/fineweb-edu
#   bash runs/train_1gpu.sh                       # flags of groundup train may follow
set -euo pipefail

PRESET=gpt2-fineweb
NAME=gpt2
MICRO_BATCH_SIZE=16 # sequences at a time: as many as fit; tokens_per_step stays what the preset says

exec groundup train "$PRESET" --name "$NAME" --runtime.micro-batch-size "$MICRO_BATCH_SIZE" "$@"
