#!/bin/bash
# One training on two nodes of eight GPUs: sbatch examples/slurm.sh sa_node_mnist
# Interrupted, it goes on: sbatch examples/slurm.sh sa_node_mnist --ckpt_path last
#SBATCH --job-name=attractors
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=4
#SBATCH --time=01:00:00
set -euo pipefail

srun attractors fit --config "$1" \
    --trainer.num_nodes "$SLURM_JOB_NUM_NODES" --trainer.devices 8 --trainer.strategy ddp "${@:2}"
