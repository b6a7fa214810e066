#!/usr/bin/env bash
# 124M parameters on FineWeb-Edu by the modern page and Muon, in 1.7 billion tokens, with one GPU. Shards first:
#
#   groundup prepare fineweb-edu data/fineweb-edu
#   groundup plan speedrun-124m --hardware H100   # what it takes
#   bash runs/train_speedrun.sh                   # flags of groundup train may follow
set -euo pipefail

MICRO_BATCH_SIZE=32 # sequences at a time: as many as fit

exec groundup train speedrun-124m --runtime.micro-batch-size "$MICRO_BATCH_SIZE" "$@"
