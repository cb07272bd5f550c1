#!/bin/bash
# jobs/submit.sh: sbatch for the job scripts, from any folder, with what jobs/site.sh says.
#
#   jobs/submit.sh [--nodes=N,N...] [--series=FOLDER] [--OPTION=VALUE...] SCRIPT [OPTION...]
#
#   --nodes=N,N...     submit the script once for each number of nodes
#   --series=FOLDER    where the results go, below the folder for all results (SCRIPT-JOB; for an array SCRIPT-DATE-TIME)
#   --OPTION=VALUE     for sbatch; with the = , since the first word without a dash is the script
#   SCRIPT OPTION...   a script of jobs/, and what it takes: mostly options of `expertmesh run`
#
# An array is a series: jobs/collect.sh is submitted after it, waits for all its jobs, and makes one table and one plot. Prints
# the numbers of the jobs.
set -euo pipefail

jobs=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
wrong() {
    printf 'submit: %s (--help says more)\n' "$*" >&2
    exit 64
}

nodes=('') series='' options=()
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help)
            sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
            exit 0
            ;;
        --nodes=*) IFS=, read -ra nodes <<<"${1#--nodes=}" ;;
        --series=*) series=${1#--series=} ;;
        -*) options+=("$1") ;;
        *) break ;;
    esac
    shift
done
[ $# -gt 0 ] || wrong 'which script?'
[ -r "$1" ] || wrong "there is no script $1"
name=$(basename "$1" .sh)

# The jobs inherit this environment: where the rest of jobs/ is, and for a series the folder of its results.
# shellcheck source=site.sh
. "${EXPERTMESH_SITE:-$jobs/site.sh}"
export EXPERTMESH_JOBS=$jobs EXPERTMESH_SERIES=$series
array=no
if grep -q '^#SBATCH.* --array=' "$1"; then
    array=yes EXPERTMESH_SERIES=${series:-$name-$(date +%Y%m%d-%H%M%S)-$$}
fi
results=${EXPERTMESH_RESULTS:-$PWD/results}

numbers=()
for count in "${nodes[@]}"; do
    numbers+=("$(sbatch --parsable ${count:+"--nodes=$count"} ${options[@]+"${options[@]}"} "$@" | cut -d ';' -f 1)")
    printf 'submit: job %s is %s%s, results in %s\n' "${numbers[-1]}" "$name" "${count:+ on $count nodes}" \
        "$results/${EXPERTMESH_SERIES:-$name-${numbers[-1]}}" >&2
done
if [ $array = yes ]; then
    after=$(IFS=: && printf '%s' "${numbers[*]}")
    numbers+=("$(sbatch --parsable "--dependency=afterany:$after" "$jobs/collect.sh" "$results/$EXPERTMESH_SERIES" | cut -d ';' -f 1)")
    printf 'submit: job %s is collect, after them\n' "${numbers[-1]}" >&2
fi
printf '%s\n' "${numbers[@]}"
