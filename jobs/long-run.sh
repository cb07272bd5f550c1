#!/bin/bash
# jobs/long-run.sh: how does a run that takes longer than a job may come to its end?
#
#   jobs/submit.sh [--series=FOLDER] jobs/long-run.sh [OPTION...]
#
#   OPTION...         of `expertmesh run`, in place of the demo model and data/prompt.txt; at its first start only
#   --series=FOLDER   go on with the run whose results are in results/FOLDER: after `scancel`, or after a failure
#
# It writes a checkpoint now and then, and one when its time is nearly over; then it goes back to the queue, and from there on
# with the checkpoint, until it is done, on the same number of nodes or another. Tokens and trace have the bits of a run that was
# never stopped. For a checkpoint in between: scancel --batch --signal=USR1 JOB. To save and end: scancel --batch --signal=TERM JOB;
# under srun plain `scancel JOB` does it too, within KillWait; under mpirun the ranks are killed before they have saved.

# Whole nodes, with all of their memory; one rank a socket.
#SBATCH --job-name=long-run --nodes=2 --exclusive --mem=0
#SBATCH --ntasks-per-node=2
#SBATCH --time=12:00:00
# Five minutes before that, SLURM sends USR2 to this script, and only to it (B:). They must be enough to end the present step, and to
# write the checkpoint: keys and values of all tokens, and what is left of the trace.
#SBATCH --signal=B:USR2@300
# SLURM may start this job again: after the end of its time, as this script asks, and after a node has failed.
#SBATCH --requeue
# Then what it prints follows what it printed.
#SBATCH --output=%x-%j.out --open-mode=append

# The rest, from the folder of the project that this was submitted from (jobs/one-node.sh says more).
# shellcheck source=job.sh
. "${EXPERTMESH_JOBS:-jobs}/job.sh" || exit

checkpoint=$job_results/checkpoint.h5
if [ -e "$checkpoint" ]; then
    # The checkpoint knows model, prompts, trace and all other options but this.
    set -- --resume "$checkpoint" --checkpoint-every 30min
else
    if [ $# = 0 ]; then
        set -- --preset demo --seed 1 --prompt-file "$job_top/data/prompt.txt" --generate 1000 --trace-only router_probs
    fi
    # A trace may be there, of a start that ended before its first checkpoint.
    set -- "$@" --trace "$job_results/trace.h5" --checkpoint "$checkpoint" --checkpoint-every 30min --force
fi

# USR2 (the time is nearly over) and TERM (scancel) both mean: write a checkpoint and stop. srun and mpirun pass USR2 on to the
# program, which does that; TERM would end mpirun.
signalled=no
printed=$job_results/run-${SLURM_RESTART_COUNT:-0}.txt
trap 'signalled=USR2; job_signal USR2' USR2
trap 'signalled=TERM; job_signal USR2' TERM
trap 'job_signal USR1' USR1
job_start run "$@" >"$printed"
job_wait || exit

# A run that was stopped says so, and ends as well as one that is done.
if ! grep -aq '^stopped: ' "$printed"; then
    job_say "done: $job_results has the trace, and what each start printed"
elif [ "$signalled" != TERM ] && [ -n "${SLURM_JOB_ID-}" ]; then
    job_say 'stopped, with a checkpoint; back to the queue'
    scontrol requeue "$SLURM_JOB_ID"
else
    job_say "stopped, with a checkpoint; --series=$(basename "$job_results") goes on with it"
fi
