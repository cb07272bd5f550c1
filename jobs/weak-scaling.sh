#!/bin/bash
# jobs/weak-scaling.sh: do more nodes do more work in the same time?
#
#   jobs/submit.sh --nodes=1,2,4,8 jobs/weak-scaling.sh [OPTION...]
#
#   OPTION...   of `expertmesh run` that name the model, in place of the demo model: --weights W.h5, and the like
#
# The work grows with the nodes: each node brings 16 prompts. The model stays what it is, so each rank has fewer weights
# and all ranks together more tokens. Otherwise as jobs/strong-scaling.sh.

# An array of three: the same run three times, for a median.
#SBATCH --job-name=weak-scaling --array=1-3
# Whole nodes, or others on them would be measured too. submit.sh gives --nodes.
#SBATCH --nodes=1 --exclusive --mem=0
# One rank a socket.
#SBATCH --ntasks-per-node=2
#SBATCH --time=0:30:00
#SBATCH --output=%x-%A-%a.out

# The rest, from the folder of the project that this was submitted from (jobs/one-node.sh says more).
# shellcheck source=job.sh
. "${EXPERTMESH_JOBS:-jobs}/job.sh" || exit

if [ $# = 0 ]; then set -- --preset demo --seed 1; fi

# 16 prompts of 64 tokens for each node. Prompts are all of one length, since attention takes longer the longer they are.
point=$job_results/$job_nodes-nodes.$job_task
job_tokens $((16 * job_nodes)) 64 >"$point.tokens"

# Only the choices of experts are recorded, and the seconds of each phase and rank, since writing all would be measured too.
job_run run "$@" --tokens-file "$point.tokens" --trace-only expert_indices --trace "$point.h5" --force
