#!/bin/bash
# One process for each node: sbatch docs/slurm.sh. Sent again, it goes on where the last job ended.
#SBATCH --job-name=es-rl
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=32
#SBATCH --time=04:00:00
#SBATCH --signal=B:TERM@120
# On GPUs a task for each: --ntasks-per-node=8 --gpus-per-node=8 --gpu-bind=single:1

RUN=runs/ant
if [ -f "$RUN/config.json" ]; then
    WHAT="--resume $RUN"
else
    WHAT="brax/ant --population-size 8192 --out $RUN"
fi
# Two minutes before the time is over every process is told to stop, with a checkpoint.
trap 'kill -TERM $!; wait $!' TERM
srun --kill-on-bad-exit=1 .venv/bin/es-rl train $WHAT --distributed --heartbeat-seconds 20 &
wait $!
