#!/usr/bin/env bash
# Losses of recipes on one GPU: short runs side by side, each part within minutes, JSON and curves below OUT.
#
#   bash runs/studies_gpu.sh candidates   10.7M parameters on Tiny Shakespeare: four recipes at once    (about 150 s)
#   bash runs/studies_gpu.sh minutes      0.8M parameters: sizes and rates of the CPU preset, ablations (about 150 s)
#   bash runs/studies_gpu.sh final        10.7M parameters: the preset with three seeds                 (about 150 s)
#   bash runs/studies_gpu.sh scaling      five sizes and the law through them                           (about 60 s)
#
# On a CPU, to try the script: DEVICE=cpu STEPS=2 EVAL_TOKENS=2048 bash runs/studies_gpu.sh candidates
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python} DEVICE=${DEVICE:-cuda} STEPS=${STEPS:-0} EVAL_TOKENS=${EVAL_TOKENS:-0} OUT=${OUT:-runs/studies}
SECONDS_OF_ALL=${SECONDS_OF_ALL:-140} AT_ONCE=${AT_ONCE:-0}
TEXT=${TEXT:-}
export PYTHONPATH=$PWD/src${PYTHONPATH:+:$PYTHONPATH}

study() { # name, runs at once, then the command's own words
    local name=$1 at_once=$2 text=--tiny-shakespeare
    shift 2
    [ "$1" != scaling ] || text=--text
    [ "$AT_ONCE" = 0 ] || at_once=$AT_ONCE
    "$PYTHON" -m groundup "$@" --device "$DEVICE" --steps "$STEPS" --eval-tokens "$EVAL_TOKENS" \
        --at-once "$at_once" --seconds "$SECONDS_OF_ALL" --out "$OUT/$name" ${TEXT:+"$text" "$TEXT"}
}

case "${1:-}" in
candidates) study candidates 4 bench ablation --set char-10m --seeds 1 ;;
minutes) study minutes 14 bench ablation --set cpu-minutes --seeds 2 && SECONDS_OF_ALL=$((SECONDS_OF_ALL / 2)) && study parts 14 bench ablation --set parts --seeds 2 ;;
final) study final 3 bench ablation --set char-10m --only "as it is" --seeds 3 ;;
scaling) study scaling 5 scaling ;;
*) sed -n 2,9p "$0" >&2; exit 2 ;;
esac
