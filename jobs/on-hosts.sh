#!/bin/bash
# jobs/on-hosts.sh: how do I run the job scripts where there is no SLURM? On the hosts of a host file, or on this one, now.
#
#   jobs/on-hosts.sh [--hostfile=F] [--nodes=N,N...] [--ntasks-per-node=N] [--series=FOLDER] SCRIPT [OPTION...]
#
#   --hostfile=F           Open MPI's: `node1 slots=2` a line, slots being the ranks for this host
#   --nodes=N,N...         run the script on the first N hosts of it, for each N (all; without a host file 1)
#   --ntasks-per-node=N    ranks on each host (what the script says)
#   --series=FOLDER        where the results go, below the folder for all results (SCRIPT-DATE-TIME)
#   SCRIPT OPTION...       a script of jobs/, and what it takes: mostly options of `expertmesh run`
#
# Sources, program and results must be on a file system that all hosts share, and ssh must reach them without a password. What is
# an array under SLURM runs one after the other here, and then jobs/collect.sh. Signals to this process are the script's, unless it
# is an array. Ends with the last exit code that was not 0.
set -euo pipefail

jobs=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
wrong() {
    printf 'on-hosts: %s (--help says more)\n' "$*" >&2
    exit 64
}

hostfile='' nodes=('') ranks='' series=''
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help)
            sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
            exit 0
            ;;
        --hostfile=*) hostfile=${1#*=} ;;
        --nodes=*) IFS=, read -ra nodes <<<"${1#*=}" ;;
        --ntasks-per-node=*) ranks=${1#*=} ;;
        --series=*) series=${1#*=} ;;
        -*) wrong "what is $1?" ;;
        *) break ;;
    esac
    shift
done
[ $# -gt 0 ] || wrong 'which script?'
script=$1
[ -r "$script" ] || wrong "there is no script $script"
[ -z "$hostfile" ] || [ -r "$hostfile" ] || wrong "there is no host file $hostfile"
shift

# sbatch_says OPTION: what the script asks of SLURM by it.
sbatch_says() { sed -nE "s/^#SBATCH.* --$1=([^ ]*).*/\1/p" "$script" | head -n 1; }

hosts=1
if [ -n "$hostfile" ]; then hosts=$(grep -cvE '^[[:space:]]*(#|$)' "$hostfile"); fi
ranks=${ranks:-$(sbatch_says ntasks-per-node)}
array=$(sbatch_says array)
case ${ranks:=1} in *[!0-9]* | 0*) wrong "\"$ranks\" is not a number of ranks" ;; esac
for count in "${nodes[@]}"; do
    case ${count:=$hosts} in *[!0-9]* | 0*) wrong "\"$count\" is not a number of hosts" ;; esac
    [ "$count" -le "$hosts" ] || wrong "--nodes=$count, but there are $hosts hosts"
done

# shellcheck source=site.sh
. "${EXPERTMESH_SITE:-$jobs/site.sh}"
export EXPERTMESH_JOBS=$jobs EXPERTMESH_RANKS_PER_NODE=$ranks EXPERTMESH_NODES EXPERTMESH_TASK=1 EXPERTMESH_HOSTFILE=
export EXPERTMESH_SERIES=${series:-$(basename "$script" .sh)-$(date +%Y%m%d-%H%M%S)-$$}
results=${EXPERTMESH_RESULTS:-$PWD/results}/$EXPERTMESH_SERIES
mkdir -p "$results" || exit 73
printf 'on-hosts: results will be in %s\n' "$results" >&2

# use_hosts N: the first N of them.
use_hosts() {
    EXPERTMESH_NODES=${1:-$hosts}
    if [ -z "$hostfile" ]; then return; fi
    EXPERTMESH_HOSTFILE=$results/$EXPERTMESH_NODES-hosts
    grep -vE '^[[:space:]]*(#|$)' "$hostfile" | head -n "$EXPERTMESH_NODES" >"$EXPERTMESH_HOSTFILE"
}

if [ -z "$array" ] && [ ${#nodes[@]} = 1 ]; then
    use_hosts "${nodes[0]}"
    exec bash "$script" "$@" # so that signals to this process are the script's
fi
status=0
for count in "${nodes[@]}"; do
    use_hosts "$count"
    for EXPERTMESH_TASK in $(seq "${array%%-*}" "${array##*-}"); do
        bash "$script" "$@" || status=$?
    done
done
"$jobs/collect.sh" "$results" || status=$?
exit "$status"
