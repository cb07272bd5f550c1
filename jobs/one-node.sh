#!/bin/bash
# jobs/one-node.sh: what does a model do with my prompts? On one node, with everything recorded.
#
#   sbatch jobs/one-node.sh [OPTION...]
#
#   OPTION...   of `expertmesh run`, in place of the demo model and data/prompt.txt: --weights W.h5 --prompt-file F, and the like

# The whole node: its cores, and all of its memory, since weights and trace want both.
#SBATCH --job-name=one-node --nodes=1 --exclusive --mem=0
# Two ranks: one a socket, as most nodes have two. Each takes half of the cores as its threads.
#SBATCH --ntasks-per-node=2
# What the demo model takes is a minute; with your own, say how long it may.
#SBATCH --time=0:30:00
# What the job prints, in the folder it was submitted from: %x is its name, %j its number.
#SBATCH --output=%x-%j.out

# SLURM runs a copy of this script from a folder of its own. The rest is looked for from where it was submitted, which is the
# folder of the project, unless jobs/submit.sh or jobs/on-hosts.sh says where.
# shellcheck source=job.sh
. "${EXPERTMESH_JOBS:-jobs}/job.sh" || exit

if [ $# = 0 ]; then set -- --preset demo --seed 1 --prompt-file "$job_top/data/prompt.txt"; fi

# One batch of prompts through the model. What every neuron computed and every rank sent goes into the trace.
job_run run "$@" --trace "$job_results/trace.h5"

# What is in the trace.
job_alone inspect "$job_results/trace.h5"
