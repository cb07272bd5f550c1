# shellcheck shell=bash
# jobs/job.sh: what the job scripts share. Each sources it first, under SLURM or started by jobs/on-hosts.sh. It reads
# jobs/site.sh, looks for the program, makes a folder for results, and gives
#
#   $job_nodes $job_ranks_per_node $job_ranks    what this job has
#   $job_task                                    its place in an array, from 1; 1 where there is no array
#   $job_top                                     the project's folder
#   $job_results                                 the folder for results; all jobs of a series have the same one
#   job_run ARGUMENT...                          the program on all ranks, each bound to its cores and their memory
#   job_start ARGUMENT...                        the same, going on at once
#   job_signal SIGNAL                            send it to all ranks of what was started
#   job_wait                                     until it has ended, with its exit code
#   job_alone ARGUMENT...                        the program on one rank, here
#   job_tokens COUNT LENGTH                      prompts of any size, on standard output
set -euo pipefail

job_folder=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
job_top=$(dirname "$job_folder")
job_say() { printf '%s: %s\n' "${SLURM_JOB_NAME:-job}" "$*" >&2; }

# shellcheck source=site.sh
. "${EXPERTMESH_SITE:-$job_folder/site.sh}"

# Under SLURM it says what the job has, otherwise jobs/on-hosts.sh does.
if [ -n "${SLURM_JOB_ID-}" ]; then
    job_nodes=$SLURM_JOB_NUM_NODES
    job_ranks_per_node=${SLURM_NTASKS_PER_NODE:-$(((${SLURM_NTASKS:-1} + job_nodes - 1) / job_nodes))}
    job_task=${SLURM_ARRAY_TASK_ID:-1}
    job_name=$SLURM_JOB_NAME-${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}
else
    if [ -z "${EXPERTMESH_NODES-}" ]; then
        job_say "no SLURM job: submit it with sbatch or jobs/submit.sh, or run it here with jobs/on-hosts.sh"
        exit 64
    fi
    job_nodes=$EXPERTMESH_NODES
    job_ranks_per_node=$EXPERTMESH_RANKS_PER_NODE
    # shellcheck disable=SC2034 # for the script that sources this
    job_task=$EXPERTMESH_TASK
    job_name=job
    EXPERTMESH_LAUNCHER=mpirun
fi
job_ranks=$((job_nodes * job_ranks_per_node))

# jobs/submit.sh and jobs/on-hosts.sh name the folder of a series before its first job has a number.
job_results=${EXPERTMESH_RESULTS:-$PWD/results}/${EXPERTMESH_SERIES:-$job_name}
mkdir -p "$job_results" || exit 73

job_program=${EXPERTMESH_PROGRAM-}
if [ -z "$job_program" ] && [ -x "$job_top/build/expertmesh" ]; then
    job_program=$job_top/build/expertmesh
fi
job_program=$(command -v "${job_program:-expertmesh}") || {
    job_say "there is no program ${job_program:-expertmesh}: build it (jobs/demo.sh does), or name it in jobs/site.sh"
    exit 66
}

# The cores that the job has on each node. SLURM counts hardware threads too where the processor has them.
job_cores=$(lscpu -b -p=Core,Socket 2>/dev/null | grep -v '^#' | sort -u | wc -l) || job_cores=0
if [ "$job_cores" -lt 1 ]; then job_cores=$(nproc); fi
if [ "${SLURM_CPUS_ON_NODE:-$job_cores}" -lt "$job_cores" ]; then job_cores=$SLURM_CPUS_ON_NODE; fi
job_cores_per_rank=$((job_cores / job_ranks_per_node))

# shellcheck source=mpi-env.sh
. "$job_folder/mpi-env.sh" "$job_ranks_per_node"

# How SLURM's PMIx waits for all nodes. With its default, and with a tree, 15 of 160 starts of six ranks on three nodes of SLURM 22.05
# crashed within MPI_Init: Open MPI 4.1 had a message from a rank that was further on. With a ring none of 120 did.
export SLURM_PMIX_FENCE="${SLURM_PMIX_FENCE-ring}"

# A rank takes as many threads as it has cores. Bound to cores next to each other, its threads keep what they have in the
# caches, and the memory that they touch first, its weights, is that of their socket; unbound, the system moves them away from
# it, and reading weights is what a token's time is made of. One thread a core: a second one only competes for its caches.
# A rank that fails must end the others, who would wait for it.
job_start() {
    local start=()
    case $EXPERTMESH_LAUNCHER in
        srun)
            start=(srun --mpi=pmix "--nodes=$job_nodes" "--ntasks-per-node=$job_ranks_per_node" --kill-on-bad-exit=1)
            if [ "$job_cores_per_rank" -ge 1 ]; then
                start+=("--cpus-per-task=$job_cores_per_rank" --threads-per-core=1 --cpu-bind=cores --mem-bind=local)
            else
                start+=(--overcommit --cpu-bind=none)
            fi
            ;;
        mpirun)
            start=(mpirun -n "$job_ranks")
            if [ -n "${EXPERTMESH_HOSTFILE-}" ]; then
                start+=(--hostfile "$EXPERTMESH_HOSTFILE" -x PATH ${LD_LIBRARY_PATH:+-x LD_LIBRARY_PATH})
            fi
            if [ "$job_cores_per_rank" -ge 1 ]; then
                start+=(--map-by "ppr:$job_ranks_per_node:node:pe=$job_cores_per_rank" --bind-to core)
            else
                start+=(--map-by "ppr:$job_ranks_per_node:node" --bind-to none)
            fi
            ;;
        *)
            job_say "EXPERTMESH_LAUNCHER is \"$EXPERTMESH_LAUNCHER\", not srun or mpirun (jobs/site.sh)"
            return 64
            ;;
    esac
    job_say "$job_ranks ranks on $job_nodes nodes: $(printf '%q ' "${start[@]}" expertmesh "$@")"
    "${start[@]}" "$job_program" "$@" </dev/null &
    job_pid=$!
}

job_signal() {
    if [ -n "${job_pid-}" ]; then kill -s "$1" "$job_pid" 2>/dev/null || true; fi
}

# A signal that the script traps ends `wait` before its time.
job_wait() {
    local code again=0
    while :; do
        code=0
        wait "$job_pid" || code=$?
        if ! kill -0 "$job_pid" 2>/dev/null; then break; fi
    done
    # It may have ended between a signal and that question; then its own exit code is still to be had.
    wait "$job_pid" 2>/dev/null || again=$?
    if [ "$again" != 127 ]; then code=$again; fi
    return "$code"
}

# Whoever ends the script ends the ranks.
trap 'job_signal TERM' TERM INT HUP

job_run() {
    job_start "$@"
    job_wait
}

# Without what SLURM left in the environment a rank alone starts as if there were no SLURM.
job_alone() {
    env -u SLURM_JOB_ID -u SLURM_JOBID -u SLURM_PROCID -u SLURM_NODELIST OMPI_MCA_ess_singleton_isolated=1 "$job_program" "$@" </dev/null
}

# COUNT prompts of LENGTH tokens, one a line, each token below 256: any two runs have the same ones.
job_tokens() {
    awk -v count="$1" -v length_of_each="$2" 'BEGIN {
        x = 1
        for (s = 0; s < count; s++)
            for (p = 1; p <= length_of_each; p++) {
                x = (x * 16807) % 2147483647
                printf "%d%s", x % 256, p < length_of_each ? "," : "\n"
            }
    }'
}
