#!/bin/bash
# tests/slurm.sh: every script of jobs/, submitted to a real SLURM of three nodes, and what comes out of it.
#
#   slurm.sh PROGRAM SOURCES SCRATCH
# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh" "$@"
# shellcheck source=cluster.sh
. "$sources/tests/cluster.sh"
python_with h5py numpy
export PYTHON=$python
# What this test's own runs need is not for the jobs: they find out by themselves, but for what jobs/site.sh says here.
mapfile -t here < <(env | grep -E '^OMPI_')
unset "${!OMPI_@}"
cluster_up 3
# Nor may nodes that are one machine take each other's memory for their own; and their network is within it.
export OMPI_MCA_btl=tcp,self OMPI_MCA_btl_tcp_if_include=lo OMPI_MCA_oob_tcp_if_include=lo

export EXPERTMESH_PROGRAM=$program EXPERTMESH_SITE=$PWD/site.sh
cat >site.sh <<EOF
export SBATCH_ACCOUNT=someone SBATCH_PARTITION=other
EXPERTMESH_LAUNCHER=\${EXPERTMESH_LAUNCHER:-srun}
# All nodes are one machine: ranks must not spin while others have the core.
export OMPI_MCA_mpi_yield_when_idle=1 OMP_WAIT_POLICY=passive OMPI_MCA_orte_tmpdir_base=$session
EOF
jobs=$sources/jobs

# A run here, as the jobs' traces must be.
alone() { well env -u OMPI_MCA_btl "${here[@]}" "$program" run "$@"; }

# ended JOB STATE: it must end so.
ended() {
    checks=$((checks + 1))
    cluster_wait "$1" 'COMPLETED|FAILED|CANCELLED|TIMEOUT|NODE_FAIL|OUT_OF_MEMORY' 300
    if [[ ! $(cluster_job "$1" JobState) =~ ^($2)$ ]]; then
        fail "job $1: $(cluster_job "$1" Command)" "$2" "$(cluster_say "$1")"
    fi
}

# submit WORD...: by jobs/submit.sh; the numbers of its jobs in ${submitted[@]}.
submit() {
    checks=$((checks + 1))
    mapfile -t submitted < <(cluster_run "$jobs/submit.sh" "$@" 2>"$logs/submit")
    [ ${#submitted[@]} -gt 0 ] || fail "submit.sh $*" 'a job' "$(cat "$logs/submit")"
}

# says JOB WORDS: its output must.
says() {
    check "job $1" "\"$2\" in its output" grep -qF -- "$2" "$(cluster_job "$1" StdOut)"
}

# same TRACE TRACE
same() { check "comparing $1 with $2" 'not one bit differs' "$program" compare "$1" "$2"; }

# ---- one node, several nodes ----
tiny=(--preset tiny --seed 3 --prompt 'Ranks on nodes')
alone "${tiny[@]}" --trace alone.h5

# By plain sbatch, as one would from the folder of the project, with no site file but the project's own.
ln -s "$jobs" jobs
one=$(env -u EXPERTMESH_SITE EXPERTMESH_RESULTS="$PWD/by-hand" \
    SLURM_CONF="$cluster/slurm.conf" sbatch --parsable jobs/one-node.sh "${tiny[@]}")
submit --nodes=3 "$jobs/several-nodes.sh" "${tiny[@]}"
several=${submitted[0]}
EXPERTMESH_LAUNCHER=mpirun submit "$jobs/several-nodes.sh" "${tiny[@]}"
by_mpirun=${submitted[0]}
EXPERTMESH_LAUNCHER=mpirun submit "$jobs/one-node.sh" "${tiny[@]}"
one_by_mpirun=${submitted[0]}
ended "$one" COMPLETED
same alone.h5 "by-hand/one-node-$one/trace.h5"
for job in $several $by_mpirun; do
    ended "$job" COMPLETED
    same alone.h5 "results/several-nodes-$job/trace.h5"
done
ended "$one_by_mpirun" COMPLETED
same alone.h5 "results/one-node-$one_by_mpirun/trace.h5"
says "$one_by_mpirun" '2 ranks on 1 nodes: mpirun '
says "$several" '6 ranks on 3 nodes: srun '
says "$by_mpirun" '4 ranks on 2 nodes: mpirun '
check 'jobs with SBATCH_ variables in the site file' 'account and partition from there' \
    test "$(cluster_job "$several" Account) $(cluster_job "$several" Partition)" = 'someone other'

# ---- every rank on cores of its own; a rank that fails, and a wrong option, fail the job ----
cat >as-rank.sh <<EOF
#!/bin/bash
# The program, as started on a node: notes its cores; and rank 1 may not live for long.
rank=\${PMIX_RANK:-\$OMPI_COMM_WORLD_RANK}
awk '/^Cpus_allowed_list/ { print \$2 }' /proc/self/status >"\$NOTES/\$SLURMD_NODENAME.\$rank"
if [ -n "\$DIES" ] && [ "\$rank" = 1 ]; then
    (until [ -e "\${@: -1}" ]; do sleep 0.1; done && kill -KILL \$\$) & # once there is a trace
fi
exec "$program" "\$@"
EOF
chmod +x as-rank.sh
endless=(--preset tiny --num-layers 200 --prompt 'on and on' --generate 2000 --trace-only router_probs)

for launcher in srun mpirun; do
    mkdir -p notes/$launcher notes/dying-$launcher
    export EXPERTMESH_LAUNCHER=$launcher
    NOTES=$PWD/notes/$launcher EXPERTMESH_PROGRAM=$PWD/as-rank.sh submit "$jobs/several-nodes.sh" "${tiny[@]}"
    bound=${submitted[0]}
    NOTES=$PWD/notes/dying-$launcher DIES=yes EXPERTMESH_PROGRAM=$PWD/as-rank.sh submit "$jobs/several-nodes.sh" "${endless[@]}"
    dying=${submitted[0]}
    submit "$jobs/several-nodes.sh" --preset huge --tokens 1,2,3
    wrong=${submitted[0]}
    ended "$bound" COMPLETED
    if [ "$(lscpu -b -p=Core,Socket | grep -v '^#' | sort -u | wc -l)" -gt 1 ]; then
        check "cores of two ranks on each of two nodes, by $launcher" 'half of the cores for each, on each node the same' \
            test "$(sort notes/$launcher/node*.[0-9] | uniq -c | awk '{ print $1 }' | xargs)" = '2 2'
    fi
    ended "$dying" FAILED
    check "rank 1 killed, under $launcher" 'a message that names it' \
        grep -qE 'task 1: Killed|rank 1 with PID [0-9]+ on node .* exited on signal 9' "$(cluster_job "$dying" StdOut)"
    check "rank 1 killed, under $launcher" 'a trace that says that it is not complete' \
        "$python" -c 'import h5py, sys; sys.exit(int(h5py.File(sys.argv[1]).attrs["complete"]))' "results/several-nodes-$dying/trace.h5"
    ended "$wrong" FAILED
    check "a model that there is not, under $launcher" 'exit code 64' test "$(cluster_job "$wrong" ExitCode)" = 64:0
    says "$wrong" 'expertmesh: --preset'
done
unset EXPERTMESH_LAUNCHER

# ---- a long run: stopped by a signal before its time is over, requeued, gone on with; and stopped by scancel ----
cat >slowly.sh <<EOF
#!/bin/bash
# The program, whose first rank is hardly ever at work once there is a trace, so that a short run is a long one.
if [ "\${PMIX_RANK:-\$OMPI_COMM_WORLD_RANK}" = 0 ]; then
    (
        trap '' USR1 USR2 TERM # what is for the program comes to all processes of the rank
        until [ -e "$PWD/results/\$EXPERTMESH_SERIES/trace.h5" ] || ! kill -0 \$\$; do sleep 0.1; done
        while sleep 0.01 && kill -STOP \$\$; do sleep 1.2 && kill -CONT \$\$; done
    ) 2>/dev/null &
fi
exec "$program" "\$@"
EOF
chmod +x slowly.sh
# Slowly at its first start, where SLOWLY says so, then as fast as it can.
cat site.sh - >slow-site.sh <<EOF
EXPERTMESH_PROGRAM=$program
if [ "\${SLURM_RESTART_COUNT:-0}" = 0 ]; then EXPERTMESH_PROGRAM=\${SLOWLY:-$program}; fi
EOF
long=(--preset tiny --num-layers 10 --seed 5 --prompt 'On and on' --generate 1900 --temperature 0.9 --trace-only 'router_probs,ffn_in')
alone "${long[@]}" --trace long-alone.h5

# printed JOB FILE WORDS: until the file has the words; not for ever.
printed() {
    local tries
    checks=$((checks + 1))
    for ((tries = 0; tries < 900; tries++)); do
        if grep -qsaF -- "$3" "$2"; then return; fi
        sleep 0.2
    done
    fail "job $1" "\"$3\" in $2" "$(cluster_say "$1")"
}

export SLOWLY=$PWD/slowly.sh EXPERTMESH_SITE=$PWD/slow-site.sh
# SLURM looks at times every half minute, and sends the signal when less than that and 20 s are left of this minute.
submit --nodes=1 --time=1 --signal=B:USR2@20 --series=requeued "$jobs/long-run.sh" "${long[@]}"
requeued=${submitted[0]}
# The others are told to save, then stopped in one way each.
long_run() { # LAUNCHER SERIES: its job in $job, with a checkpoint
    EXPERTMESH_LAUNCHER=$1 submit --nodes=1 --series="$2" "$jobs/long-run.sh" "${long[@]}"
    job=${submitted[0]}
    printed "$job" "results/$2/run-0.txt" generated:
    cluster_run scancel --batch --signal=USR1 "$job"
    printed "$job" "$(cluster_job "$job" StdOut)" 'checkpoint: '
    check "USR1 to a long run under $1" 'a checkpoint, and the run goes on' \
        test -s "results/$2/checkpoint.h5" -a "$(cluster_job "$job" JobState)" = RUNNING
}
# On another number of ranks, and this time fast; the jobs in ${resumed[@]}.
resumed=()
resume() { # SERIES
    SLOWLY='' submit --nodes=1 --ntasks-per-node=1 --series="$1" "$jobs/long-run.sh"
    resumed+=("${submitted[0]}")
}
stopped() { # SERIES WHAT
    check "$2" 'saved and stopped' grep -qa '^stopped: ' "results/$1/run-0.txt"
    says "$job" "--series=$1 goes on with it"
}
long_run srun cancelled
cluster_run scancel "$job"
ended "$job" CANCELLED
stopped cancelled 'scancel of a long run under srun'
resume cancelled
long_run mpirun asked
cluster_run scancel --batch --signal=TERM "$job"
ended "$job" COMPLETED
stopped asked 'TERM to a long run under mpirun'
resume asked
# Under mpirun plain scancel leaves no time to save: it goes on from the checkpoint before.
long_run mpirun killed
cluster_run scancel "$job"
ended "$job" CANCELLED
resume killed
# At the end of its time, too, which need not be waited for: USR2 is what SLURM sends then.
long_run mpirun again
cluster_run scancel --batch --signal=USR2 "$job"
again=$job

# goes_on JOB SERIES: from the queue, to the bits of a run that was never stopped. SLURM would wait two minutes, so that no node takes
# the new job for the old one; two seconds do.
goes_on() {
    printed "$1" "$(cluster_job "$1" StdOut)" 'back to the queue'
    check "a long run that goes back to the queue, $2" 'saved and stopped' grep -qa '^stopped: ' "results/$2/run-0.txt"
    cluster_wait "$1" PENDING
    cluster_run scontrol update "JobId=$1" StartTime=now+2 TimeLimit=10
    ended "$1" COMPLETED
    check "a long run that goes back to the queue, $2" 'two starts' test -s "results/$2/run-1.txt"
    same long-alone.h5 "results/$2/trace.h5"
}
goes_on "$again" again
goes_on "$requeued" requeued
for job in "${resumed[@]}"; do ended "$job" COMPLETED; done
for series in cancelled asked killed; do same long-alone.h5 results/$series/trace.h5; done

# ---- strong and weak scaling: arrays, and the job that collects them ----
submit --nodes=1,2,3 --array=1-2 "$jobs/strong-scaling.sh" --preset tiny
strong=("${submitted[@]}") strong_folder=$(sed -nE 's/.*results in //p' "$logs/submit" | head -n 1)
submit --nodes=1,3 --array=1-2 "$jobs/weak-scaling.sh" --preset tiny
weak=("${submitted[@]}") weak_folder=$(sed -nE 's/.*results in //p' "$logs/submit" | head -n 1)
check 'submitting arrays for 3 and for 2 numbers of nodes' '3 + 1 and 2 + 1 jobs' test "${#strong[@]} ${#weak[@]}" = '4 3'
check 'the job that collects' 'it waits for all of the series' \
    test "$(cluster_job "${strong[3]}" Dependency | grep -o afterany | wc -l)" = 3
ended "${strong[3]}" COMPLETED
ended "${weak[2]}" COMPLETED
# The same tables, from the traces once more, as far as they can be known: tokens, ranks, rows; seconds as their phases' sum.
check 'the table of strong scaling' 'what its traces say' \
    "$python" "$sources/tests/slurm.py" "$strong_folder" 1-nodes=2,2,4096 2-nodes=2,4,4096 3-nodes=2,6,4096
check 'the table of weak scaling' 'what its traces say' "$python" "$sources/tests/slurm.py" "$weak_folder" 1-nodes=2,2,1024 3-nodes=2,6,3072
says "${strong[3]}" 'speed-up'
if command -v gnuplot >/dev/null; then
    check 'the plot of strong scaling' 'an SVG with both lines' grep -q '<title>.*ideal' "$strong_folder/plot.svg"
else
    echo "$test_name: left out: plots (there is no gnuplot)"
    says "${strong[3]}" 'there is no gnuplot here'
fi

# ---- a sweep over layouts ----
submit --array=1-6 "$jobs/layouts.sh" --preset tiny
sweep=("${submitted[@]}") sweep_folder=$(sed -nE 's/.*results in //p' "$logs/submit")
ended "${sweep[1]}" COMPLETED
check 'the table of the sweep' 'what its traces say' "$python" "$sources/tests/slurm.py" "$sweep_folder" \
    {contiguous,sliced,spread}-{flat,node}=3,4,4096

# ---- the arrays by mpirun ----
for series in strong-scaling:1-1:2-nodes=1,4,4096 weak-scaling:1-1:2-nodes=1,4,2048 layouts:2-2:contiguous-node=3,4,4096; do
    IFS=: read -r script array point <<<"$series"
    EXPERTMESH_LAUNCHER=mpirun submit --nodes=2 --array="$array" "$jobs/$script.sh" --preset tiny
    folder=$(sed -nE 's/.*results in //p' "$logs/submit")
    ended "${submitted[1]}" COMPLETED
    check "the table of $script.sh under mpirun" 'what its traces say' "$python" "$sources/tests/slurm.py" "$folder" "$point"
    check "$script.sh under mpirun" 'that it was' grep -qF '4 ranks on 2 nodes: mpirun ' "$script-${submitted[0]}-${array%-*}.out"
done

finish
