#!/bin/bash
# jobs/collect.sh: what came out of a series of jobs? One table and one plot of all their traces.
#
#   sbatch --dependency=afterany:JOB[:JOB...] jobs/collect.sh FOLDER
#
#   FOLDER      results of the series: traces named POINT.REPETITION.h5
#
# jobs/submit.sh submits it together with the series. Without SLURM, jobs/collect.py FOLDER does the same. It ends with 1
# when a run of the series did not come to its end; the table is then of those that did.

# One core for a minute.
#SBATCH --job-name=collect --nodes=1 --ntasks=1 --mem=1G
#SBATCH --time=0:10:00
#SBATCH --output=%x-%j.out

# The rest, from the folder of the project that this was submitted from (jobs/one-node.sh says more).
# shellcheck source=site.sh
. "${EXPERTMESH_SITE:-${EXPERTMESH_JOBS:-jobs}/site.sh}" || exit

# It reads the traces' own numbers: tokens, and the seconds of each rank in each phase.
# Any python3 that has h5py will do.
for python in "${PYTHON:-python3}" /usr/bin/python3; do
    if "$python" -c 'import h5py' 2>/dev/null; then
        exec "$python" "${EXPERTMESH_JOBS:-jobs}/collect.py" "$1"
    fi
done
echo 'collect: there is no python3 with h5py here; jobs/setup.sh run installs it' >&2
exit 69
