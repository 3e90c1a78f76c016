#!/usr/bin/env bash
# One Slurm job: Ray on its nodes, and a sweep on them until it ends or the time is up.
#
#   sbatch cluster/slurm.sh SPACE.yaml [--name NAME] [--trials N] ...       (options as of `lrsearch search`)
#
# Run again with the same arguments, it continues the sweep. Slurm's warning before the time is up puts the sweep aside
# in order. The folder of submission and --storage must be on a file system that all nodes mount, as is usual.
#SBATCH --job-name=lrsearch
#SBATCH --nodes=3
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=4
#SBATCH --exclusive
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@300
#SBATCH --output=lrsearch-%j.log
set -euo pipefail

if [ $# -eq 0 ]; then
    echo "usage: sbatch cluster/slurm.sh SPACE.yaml [OPTIONS of lrsearch search]" >&2
    exit 2
fi

# A token of this job's own, in a file that only its user may read: other users of the nodes cannot join or look.
RAY_AUTH_TOKEN_PATH=$(mktemp "$HOME/.lrsearch-token.XXXXXX")
export RAY_AUTH_TOKEN_PATH RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
python3 -c 'import secrets; print(secrets.token_hex(32))' > "$RAY_AUTH_TOKEN_PATH"

nodes=()
stop() {
    if [ "${#nodes[@]}" -gt 0 ]; then
        kill "${nodes[@]}" 2>/dev/null || true
    fi
    rm -f "$RAY_AUTH_TOKEN_PATH"
}
trap stop EXIT

mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
port=$((20000 + SLURM_JOB_ID % 20000)) # two jobs may share a node
address="${hosts[0]}:$port"
common=(--block --disable-usage-stats --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="${SLURM_GPUS_ON_NODE:-0}")

# The head first, then the others; each ends with the job.
srun --nodes=1 --ntasks=1 --overlap --nodelist="${hosts[0]}" \
    ray start --head --port="$port" --include-dashboard=false "${common[@]}" &
nodes+=($!)
until ray health-check --address "$address" > /dev/null 2>&1; do
    sleep 2
done
for host in "${hosts[@]:1}"; do
    srun --nodes=1 --ntasks=1 --overlap --nodelist="$host" ray start --address="$address" "${common[@]}" &
    nodes+=($!)
done

# In the background, so that Slurm's SIGTERM reaches the sweep at once.
lrsearch search "$@" --address "$address" &
sweep=$!
trap 'kill -TERM "$sweep"; wait "$sweep" || true; exit 130' TERM
wait "$sweep"
