#!/bin/bash
# jobs/several-nodes.sh: does a model that no single node holds run over several, and what do they send each other?
#
#   sbatch [--nodes=N] jobs/several-nodes.sh [OPTION...]
#
#   OPTION...   of `expertmesh run`, in place of the demo model and data/prompt.txt: --weights W.h5 --prompt-file F, and the like
#
# Nothing differs from one node but the number of them: each rank makes or reads its own part of the weights, so with twice the
# nodes there is half as much on each. Weights file and trace must be on a file system that all nodes share. The numbers are the
# same bits as on one node: `expertmesh compare` of both traces finds nothing.

# Whole nodes, with all of their memory. --nodes on the command line takes more of them.
#SBATCH --job-name=several-nodes --nodes=2 --exclusive --mem=0
# One rank a socket.
#SBATCH --ntasks-per-node=2
#SBATCH --time=0:30:00
#SBATCH --output=%x-%j.out

# The rest, from the folder of the project that this was submitted from (jobs/one-node.sh says more).
# shellcheck source=job.sh
. "${EXPERTMESH_JOBS:-jobs}/job.sh" || exit

if [ $# = 0 ]; then set -- --preset demo --seed 1 --prompt-file "$job_top/data/prompt.txt"; fi

# Before anything is allocated it prints what each rank will hold, and refuses a model that does not fit its node. At the end
# a table says for each layer how many rows and bytes went between ranks.
job_run run "$@" --trace "$job_results/trace.h5"
job_alone inspect "$job_results/trace.h5"
