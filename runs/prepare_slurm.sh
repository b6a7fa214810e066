#!/usr/bin/env bash
# Turn text into token shards on a SLURM cluster:
#
#   sbatch --array=0-31 runs/prepare_slurm.sh fineweb-edu data/fineweb-edu --stream
#
# Every task does its share of the parts and writes into the one folder, which all nodes must see; the tasks that finish
# last put the shards together. A task that fails or is killed is submitted again with the same --array bounds, alone:
#
#   sbatch --array=7 --export=ALL,TASKS=32 runs/prepare_slurm.sh fineweb-edu data/fineweb-edu --stream
#
# Words after the script are those of `groundup prepare`; see groundup prepare --help.

#SBATCH --job-name=groundup-prepare
#SBATCH --cpus-per-task=8
#SBATCH --mem-per-cpu=1G
#SBATCH --time=12:00:00
#SBATCH --output=prepare-%A_%a.log
#SBATCH --requeue

set -euo pipefail

if [[ -z "${SLURM_ARRAY_TASK_ID:-}" ]]; then
    echo "run this as a SLURM array: sbatch --array=0-31 $0 SOURCE OUT [flags]" >&2
    exit 2
fi
if [[ -z "${TASKS:-}" && "${SLURM_ARRAY_TASK_MIN:-0}" != 0 ]]; then
    echo "tasks count from 0, as in --array=0-31; of some of them, TASKS says how many there are in all" >&2
    exit 2
fi
tasks="${TASKS:-$((SLURM_ARRAY_TASK_MAX + 1))}"

exec groundup prepare "$@" \
    --workers "${SLURM_CPUS_PER_TASK:-1}" \
    --task-index "$SLURM_ARRAY_TASK_ID" \
    --task-count "$tasks"
