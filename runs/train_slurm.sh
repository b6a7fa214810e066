#!/usr/bin/env bash
# One run on a SLURM cluster whose nodes share the disk of runs/:
#
#   sbatch --nodes 2 runs/train_slurm.sh          # flags of groundup train may follow
#
# Before the time is up (or when it is preempted) the run saves and stops; SLURM starts it again, and it goes on.

#SBATCH --job-name=groundup
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@600
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=train-%j.log
set -euo pipefail

GPUS=8
PORT=29500
PRESET=gpt2-fineweb
NAME=gpt2
MICRO_BATCH_SIZE=32
RESTARTS=3

# Lets a machine that was lost join again: https://github.com/pytorch/pytorch/issues/135712
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
# Seconds for the step that is being made, and for saving, before torchrun kills: 30 unless said.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=540

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun torchrun --nnodes "$SLURM_NNODES" --nproc_per_node "$GPUS" --max-restarts "$RESTARTS" \
    --rdzv-backend c10d --rdzv-endpoint "$head:$PORT" --rdzv-id "$SLURM_JOB_ID" \
    -m groundup train "$PRESET" --name "$NAME" --runtime.micro-batch-size "$MICRO_BATCH_SIZE" "$@" &
step=$!

# SLURM warns this script alone: pass it on, wait until all is saved, and ask to be started again.
stop() {
    kill -TERM "$step"
    wait "$step" || true
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
}
trap stop TERM
wait "$step"
