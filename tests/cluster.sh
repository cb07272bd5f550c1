# shellcheck shell=bash disable=SC2154 # names of common.sh
# tests/cluster.sh: a private SLURM on this machine: munge, a controller and nodes of their own, as any user, with nothing outside
# of the test's folder in /tmp.
#
#   . "$sources/tests/common.sh" ...; . "$sources/tests/cluster.sh"; cluster_up 3
#
# The nodes, node1 to nodeN, are daemons of SLURM on this one machine; each has at most two of its cores, and all have the same.
# Whatever runs on them carries the test's folder in its environment, and goes with it: `cluster_down` ends it, and a keeper calls
# that should the test be killed. Skips where a machine has no SLURM, or forbids it.
#
#   cluster_up N                     start it: nodes, partitions `debug` (the default) and `other`
#   cluster_down                     end every job and daemon
#   cluster_job JOB FIELD            what `scontrol show job` has there
#   cluster_wait JOB STATE [SECONDS] until the job's state is one of STATE, as COMPLETED\|FAILED; 1 after that many seconds (180)
#   cluster_say JOB                  what there is to see of a job: its state, its output, and the controller's last lines

cluster_config() {
    local host=${HOSTNAME%%.*} user cores
    user=$(id -un)
    cores=$(nproc)
    cat <<CONFIG
ClusterName=private
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$3
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
AuthInfo=socket=$1/munge.sock
StateSaveLocation=$1/state
SlurmdSpoolDir=$1/%n
TmpFS=$1/%n/tmp
SlurmctldPidFile=$1/slurmctld.pid
SlurmdPidFile=$1/%n.pid
SlurmctldLogFile=$1/slurmctld.log
SlurmdLogFile=$1/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=$([ "$cores" -gt 1 ] && echo task/affinity || echo task/none)
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,sched_min_interval=0,bf_interval=1,batch_sched_delay=0
ReturnToService=2
KillWait=20
SlurmdTimeout=30
NodeName=node[1-$2] NodeHostname=$host NodeAddr=127.0.0.1 Port=[$(($3 + 1))-$(($3 + $2))] CPUs=2 RealMemory=2000
PartitionName=debug Nodes=ALL Default=YES
PartitionName=other Nodes=ALL
CONFIG
}

# As many ports in a row that nobody listens on.
cluster_ports() {
    local first port
    for first in $(shuf -i 20000-32000 -n 50); do
        for ((port = first; port <= first + $1; port++)); do
            if (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then continue 2; fi
        done
        printf '%d\n' "$first"
        return
    done
    return 1
}

# Every process that has this cluster in its environment. The test's own has not.
cluster_processes() {
    grep -lsaF -- "SLURM_CONF=$1/slurm.conf" /proc/[0-9]*/environ | sed -E 's|/proc/([0-9]+)/.*|\1|'
}

# cluster_end FOLDER: ask all to end, daemons and jobs, then end who is left.
cluster_end() {
    local signal pids
    for signal in TERM TERM TERM KILL KILL; do
        pids=$(cluster_processes "$1")
        if [ -z "$pids" ]; then return; fi
        # shellcheck disable=SC2086 # one word a process
        kill -s "$signal" $pids 2>/dev/null
        sleep 0.3
    done
}

cluster_up() {
    local count=$1 i port seen
    PATH=$PATH:/usr/sbin:/sbin
    need munged slurmctld slurmd sbatch srun scontrol sinfo scancel setsid shuf
    cluster=$session/slurm
    mkdir -p "$cluster/state" "$cluster/munge" && chmod 700 "$cluster/munge" && chmod 755 "$session" "$cluster" || exit
    for ((i = 1; i <= count; i++)); do mkdir -p "$cluster/node$i/tmp"; done
    (umask 077 && head -c 1024 /dev/urandom >"$cluster/munge/key")
    port=$(cluster_ports "$count") || skip 'no free ports'
    cluster_config "$cluster" "$count" "$port" >"$cluster/slurm.conf"

    trap 'cluster_down; clean_up' EXIT
    # In a session of its own, so that what kills the test and its children does not find it.
    (setsid bash "$sources/tests/cluster.sh" keep $$ "$session" </dev/null >/dev/null 2>&1 &)

    # Only from here on: what has this in its environment ends with the cluster.
    (
        export SLURM_CONF=$cluster/slurm.conf
        if ! seen=$(munged --force "--socket=$cluster/munge.sock" "--key-file=$cluster/munge/key" \
            "--pid-file=$cluster/munged.pid" "--log-file=$cluster/munge/log" "--seed-file=$cluster/munge/seed" \
            --num-threads=2 2>&1); then
            skip "munge does not start here: $seen"
        fi
        slurmctld >"$cluster/start.log" 2>&1 || skip "slurmctld does not start here: $(tail -n 3 "$cluster/start.log")"
        for ((i = 1; i <= count; i++)); do
            slurmd -N "node$i" >"$cluster/start.log" 2>&1 || skip "slurmd does not start here: $(tail -n 3 "$cluster/start.log")"
        done
        for ((i = 0; i < 900; i++)); do
            if [ "$(sinfo -h -N -p debug -t idle 2>/dev/null | wc -l)" = "$count" ]; then exit 0; fi
            sleep 0.1
        done
        skip "the nodes of SLURM do not come up here: $(tail -qn 3 "$cluster"/*.log)"
    ) || exit
    cluster_run srun --mpi=list 2>&1 | grep -q pmix || skip 'this SLURM has no PMIx, by which Open MPI starts'
}

cluster_down() {
    cp "$cluster"/*.log "$logs/" 2>/dev/null
    if [ -n "${cluster-}" ]; then cluster_end "$cluster"; fi
}

# A command that talks to the cluster. The test itself is not of the cluster, or it would end with it.
cluster_run() { SLURM_CONF=$cluster/slurm.conf "$@"; }

cluster_job() { cluster_run scontrol show job "$1" 2>/dev/null | sed -nE "s/.*\\b$2=([^ ]*).*/\\1/p" | head -n 1; }

cluster_wait() {
    local tries
    for ((tries = 0; tries < ${3:-180} * 5; tries++)); do
        if [[ $(cluster_job "$1" JobState) =~ ^($2)$ ]]; then return; fi
        sleep 0.2
    done
    return 1
}

cluster_say() {
    local output
    output=$(cluster_job "$1" StdOut)
    cluster_run scontrol show job "$1" | grep -E 'JobState|ExitCode|Restarts|Dependency'
    tail -n 15 -- "$output"
}

# Once the test is gone, end what it left.
if [ "${1-}" = keep ] && [ "${BASH_SOURCE[0]}" = "$0" ]; then
    while kill -0 "$2" 2>/dev/null; do sleep 1; done
    cluster_end "$3/slurm"
    rm -rf -- "${3:?}"
fi
