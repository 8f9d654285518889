#!/bin/bash
# A training run as a job of SLURM, one task for each GPU:
#
#     sbatch docs/launch/slurm.sh --size large --out runs/large
#
# Five minutes before its time is over, or when it has to make room, the job gets SIGTERM: it saves, ends with exit code
# 143, and is queued again. The same command then goes on after the checkpoint, on any number of nodes.

#SBATCH --job-name=toto
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append

MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=$((20000 + SLURM_JOB_ID % 10000))
export MASTER_ADDR MASTER_PORT

# srun and not torchrun: torchrun leaves 30 s to save, then kills.
srun --kill-on-bad-exit=1 bash -c '
    export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS LOCAL_WORLD_SIZE=$SLURM_NTASKS_PER_NODE
    exec python -m toto.train pretrain "$@"
' rank "$@"
code=$?

if [ "$code" -eq 143 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
