#!/bin/bash
# jobs/layouts.sh: with which layout is my model fastest, and which sends least between nodes?
#
#   jobs/submit.sh --nodes=4 jobs/layouts.sh [OPTION...]
#
#   OPTION...   of `expertmesh run` that name the model, in place of the demo model: --weights W.h5, and the like
#
# A layout says which rank owns which heads, slices of experts and rows of the vocabulary; an exchange whether a row that several
# ranks of a node need goes to each, or once to the node. No bit of the results depends on either, so what differs is time and
# bytes. EXPERTMESH_LAYOUTS has layouts of your own, with --array=1-N for twice as many jobs as layouts:
#
#   EXPERTMESH_LAYOUTS='sliced mine.json' jobs/submit.sh --nodes=4 --array=1-4 jobs/layouts.sh

# An array of six: three layouts, each with both exchanges.
#SBATCH --job-name=layouts --array=1-6
# Whole nodes, or others on them would be measured too; two of them, or nothing goes between nodes.
#SBATCH --nodes=2 --exclusive --mem=0
# One rank a socket.
#SBATCH --ntasks-per-node=2
#SBATCH --time=0:30:00
#SBATCH --output=%x-%A-%a.out

# The rest, from the folder of the project that this was submitted from (jobs/one-node.sh says more).
# shellcheck source=job.sh
. "${EXPERTMESH_JOBS:-jobs}/job.sh" || exit

if [ $# = 0 ]; then set -- --preset demo --seed 1; fi

# The place in the array counts through the layouts, and through the exchanges of each.
read -ra layouts <<<"${EXPERTMESH_LAYOUTS:-contiguous sliced spread}"
if [ $((job_task)) -gt $((2 * ${#layouts[@]})) ]; then
    job_say "there are ${#layouts[@]} layouts, so there is nothing for job $job_task of the array"
    exit
fi
layout=${layouts[(job_task - 1) / 2]}
if [ $((job_task % 2)) = 1 ]; then exchange=flat; else exchange=node; fi
point=$job_results/$(basename "$layout" .json)-$exchange

# The same batch for all, three times for a median. Of the model's numbers only the choices of experts are recorded, since writing
# all would be measured too; the trace always has the seconds of each phase, and what went between nodes.
for repetition in 1 2 3; do
    job_tokens 64 64 >"$point.$repetition.tokens"
    job_run run "$@" --layout "$layout" --exchange "$exchange" --tokens-file "$point.$repetition.tokens" \
        --trace-only expert_indices --trace "$point.$repetition.h5" --force
done
