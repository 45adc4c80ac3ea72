#!/bin/bash
# One training stage on several hosts, which share the project's folder:
#   sbatch deploy/slurm.sh train_prior
# A stage that the clock ends leaves a checkpoint; the same command goes on from it.
#SBATCH --job-name=cir
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
set -euo pipefail

stage=${1:?name a training stage, such as train_prior}
source .venv/bin/activate
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export stage first

# In single quotes, so that every host puts its own number in.
srun bash -c 'accelerate launch --multi_gpu \
    --num_machines "$SLURM_NNODES" --machine_rank "$SLURM_NODEID" \
    --num_processes "$((SLURM_NNODES * SLURM_GPUS_ON_NODE))" \
    --main_process_ip "$first" --main_process_port 29500 \
    -m "stages.$stage"'
dvc commit --force "$stage"
