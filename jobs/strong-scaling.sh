#!/bin/bash
# jobs/strong-scaling.sh: how much faster is the same work on more nodes?
#
#   jobs/submit.sh --nodes=1,2,4,8 jobs/strong-scaling.sh [OPTION...]
#
#   OPTION...   of `expertmesh run` that name the model, in place of the demo model: --weights W.h5, and the like
#
# submit.sh submits this once for each number of nodes, so that each job has just the nodes it uses, and then jobs/collect.sh,
# which waits for all of them and makes one table and one plot.

# An array of three: the same run three times, so that the table can give the median and how far they lie apart.
#SBATCH --job-name=strong-scaling --array=1-3
# Whole nodes, or others on them would be measured too. submit.sh gives --nodes.
#SBATCH --nodes=1 --exclusive --mem=0
# One rank a socket.
#SBATCH --ntasks-per-node=2
#SBATCH --time=0:30:00
# %A is the number of the array, %a the place in it.
#SBATCH --output=%x-%A-%a.out

# The rest, from the folder of the project that this was submitted from (jobs/one-node.sh says more).
# shellcheck source=job.sh
. "${EXPERTMESH_JOBS:-jobs}/job.sh" || exit

if [ $# = 0 ]; then set -- --preset demo --seed 1; fi

# The same batch whatever the number of nodes: 64 prompts of 64 tokens.
point=$job_results/$job_nodes-nodes.$job_task
job_tokens 64 64 >"$point.tokens"

# Only the choices of experts are recorded, and the seconds of each phase and rank, since writing all would be measured too.
job_run run "$@" --tokens-file "$point.tokens" --trace-only expert_indices --trace "$point.h5" --force
