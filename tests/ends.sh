#!/bin/bash
# tests/ends.sh: how jobs end when something goes wrong: a rank killed, stopped or gone, its memory exhausted, mpirun or a daemon
# killed, a host cut off; on one host, and on three made of namespaces. Each must end in 15 s (one, before the
# run begins, in 25) with an exit code other than 0 and a message that says which rank or host, leave no process, and a trace that
# holds what it says it holds. Prints the table of faults that tests/faults.md keeps.
#
#   ends.sh PROGRAM SOURCES SCRATCH
# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh" "$@"
# shellcheck source=hosts.sh
. "$sources/tests/hosts.sh"
python_with h5py numpy
need pgrep setpriv

cat >note-pid.sh <<'SCRIPT'
#!/bin/bash
# note-pid.sh LIMITED KILOBYTES COMMAND...: rank LIMITED may have so much memory
echo $$ >"pid.$OMPI_COMM_WORLD_RANK"
if [ "$OMPI_COMM_WORLD_RANK" = "$1" ]; then ulimit -v "$2"; fi
exec "${@:3}"
SCRIPT
seq -s , 0 199 >tokens.txt
top=$PWD
options=(run --preset tiny --num-layers 300 --seed 3 --tokens-file "$top/tokens.txt" --generate 100 --threads 1 --watchdog 3
    --trace-only 'router_probs,ffn_out')
well "$program" "${options[@]}" --trace full.h5
export OMPI_MCA_btl_vader_backing_directory=$session # what a killed rank cannot remove lies there

table=$logs/table.md
printf '| what was done | promised: a message like | exit code | seconds | what was seen |\n|---|---|---|---|---|\n' >"$table"

# The job of a case, in its folder: its ranks note their numbers. limited: "RANK KILOBYTES", or "- 0".
limited=(- 0)
start_job() {
    mkdir -p "$top/$1" && cd "$top/$1" || exit
    "${@:2}" bash "$top/note-pid.sh" "${limited[@]}" "$program" "${options[@]}" --trace "$PWD/t.h5" >out 2>err </dev/null &
    job=$!
}

# Its ranks that are left, here or on any host.
left_of() { pgrep -f -- "--trace $top/$1/t[.]h5" | tr '\n' ' '; }

# until_traced: the run is in the midst of it.
until_traced() {
    local tries
    for ((tries = 0; tries < 1500; tries++)); do
        if [ -e t.h5 ] || ! kill -0 "$job" 2>/dev/null; then break; fi
        sleep 0.02
    done
    sleep 0.3
}

# How long after the fault the job and its ranks were gone, in ms; 40000 is never.
await_end() {
    local from=$1 name=$2
    timeout 40 tail --pid="$job" -f /dev/null || kill -KILL "$job" 2>/dev/null
    wait "$job" 2>/dev/null
    code=$?
    while [ -n "$(left_of "$name")" ] && [ $((${EPOCHREALTIME/[.,]/} - from)) -lt 40000000 ]; do sleep 0.05; done
    took=$(((${EPOCHREALTIME/[.,]/} - from) / 1000))
}

# ends NAME DONE CODE WORD: what came of the case; $within: in so many seconds (15).
ends() {
    local name=$1 done=$2 wanted=$3 word=$4 seen line
    await_end "$faulted" "$name"
    echo "$code" >code
    cd "$top" || exit
    checks=$((checks + 4))
    line=$(grep -aE -m1 -- "$word" "$name/err")
    if [ "$took" -gt "${within:-15}000" ]; then fail "$done" "an end in ${within:-15} s" "$took ms; $(cat "$name/err")"; fi
    if [[ ! $code =~ ^($wanted)$ ]]; then fail "$done" "exit code $wanted" "exit code $code; $(cat "$name/err")"; fi
    if [ -z "$line" ] && [ "$word" != NOTHING ]; then fail "$done" "a message like \"$word\"" "$(cat "$name/err")"; fi
    if [ -n "$(left_of "$name")" ]; then
        fail "$done" 'no process left' "$(left_of "$name")"
        pkill -KILL -f -- "--trace $top/$name/t[.]h5"
    fi
    if ! seen=$("$python" "$sources/tests/faults.py" traces full.h5 - "$name" 2>&1); then fail "$done" 'a valid trace' "$seen"; fi
    case $seen in *complete*) fail "$done" 'a run that was not done yet' "$seen" ;; esac
    if [ "$word" = NOTHING ]; then word='nothing: it is gone' line='(nothing)'; fi
    word=$(sed -E 's/\^//g; s/\.\*/.../g; s/\|/ or /g; s/[][()?]//g' <<<"$word")
    printf '| %s | %s | %d | %d.%d | %s; trace: %s |\n' "$done" "$word" "$code" $((took / 1000)) $((took % 1000 / 100)) "${line::200}" \
        "${seen%: 1}" >>"$table"
}

# fault NAME DONE CODE WORD COMMAND...: the command is the fault; the job is under way.
fault() {
    until_traced
    kill -0 "$job" 2>/dev/null || fail "$2" 'a run that takes longer' "$(cat err)"
    faulted=${EPOCHREALTIME/[.,]/}
    "${@:5}" || fail "$2" 'a fault that can be made' "${*:5}"
    ends "$1" "$2" "$3" "$4"
}

# ---- on one host ----
# signal NAME SIGNAL RANK: to a rank of the job at hand.
signal() { kill "-$1" "$(cat "pid.$2")"; }

for victim in 0:1 1:2 0:4; do
    name=kill-$victim
    start_job "$name" mpirun -n "${victim#*:}"
    fault "$name" "rank ${victim%:*} of ${victim#*:} killed (KILL)" 137 "process rank ${victim%:*} .*signal 9" signal KILL "${victim%:*}"
done
for victim in 1:2 0:3 2:4; do
    name=stop-$victim
    start_job "$name" mpirun -n "${victim#*:}"
    fault "$name" "rank ${victim%:*} of ${victim#*:} stopped (STOP)" 70 "^expertmesh: rank ${victim%:*} on .* does not answer" \
        signal STOP "${victim%:*}"
done
start_job stop-two mpirun -n 4
stop_two() { signal STOP 1 && signal STOP 3; }
fault stop-two 'ranks 1 and 3 of 4 stopped (STOP)' 70 '^expertmesh: ranks 1,3 on .* do not answer' stop_two
start_job mpirun mpirun -n 3
fault mpirun 'mpirun killed (KILL), 3 ranks' 137 NOTHING kill -KILL "$job"

# A rank that leaves before it begins: mpirun says which.
start_gone() {
    mkdir -p "$top/gone" && cd "$top/gone" || exit
    mpirun -n 2 "$program" "${options[@]}" --trace "$PWD/t.h5" : -n 1 true >out 2>err </dev/null &
    job=$! faulted=${EPOCHREALTIME/[.,]/}
}
start_gone
# from the start of mpirun, and a rank waits for the others for 10 s at least
within=25 ends gone 'rank 2 of 3 leaves before it begins (exit code 0)' 70 '^expertmesh: rank [01] on .* to begin, but not all ranks came'

# Too little memory for one rank: for MPI, told before it begins (a rank that leaves while others come together once made
# mpirun end with 141, SIGPIPE, in 50 times); for the model, told before anything is allocated.
for memory in 50000 150000 300000 450000; do
    codes=65 word='^expertmesh: the model does not fit: rank 1 on .* ulimit -v'
    if [ "$memory" -le 300000 ]; then codes='65|141' word='^expertmesh: rank 1 on .* may still map .*ulimit -v'; fi
    limited=(1 "$memory")
    start_job "memory-$memory" mpirun -n 3
    faulted=${EPOCHREALTIME/[.,]/}
    ends "memory-$memory" "rank 1 of 3 may have $((memory / 1000)) MB (ulimit -v)" "$codes" "$word"
done
limited=(- 0)

# Memory that runs out all the same, among the weights: told where.
start_job memory-ends mpirun -n 3 env LD_PRELOAD="${MEMORY_LIBRARY:?}" MEMORY_ENDS=1:150
faulted=${EPOCHREALTIME/[.,]/}
ends memory-ends 'rank 1 of 3 gets no more memory' 70 '^expertmesh: rank 1 on .*, layer .*, allocating weights: out of memory'

# ---- on three hosts ----
if [ "$(id -u)" = 0 ] && unshare --pid --fork --mount --net --uts --ipc true 2>/dev/null; then
    hosts_up 3
    three=("${hosts_mpirun[@]}" --host "node1:1,node2:1,node3:1")
    six=("${hosts_mpirun[@]}" --host "node1:2,node2:2,node3:2")
    kill_daemon() {
        local pid
        for pid in $(hosts_pids "$1" orted); do
            if [ "$(cat "/proc/$pid/comm")" = orted ]; then kill -KILL "$pid"; fi
        done
    }
    there() { "$hosts/on" "$1" kill "-$2" "$(cat "pid.$3")"; }

    start_job hosts-kill "${six[@]}"
    fault hosts-kill 'three hosts: rank 3 of 6, on node2, killed (KILL)' 137 'process rank 3 .*node2.*signal 9' there node2 KILL 3
    start_job hosts-stop "${three[@]}"
    fault hosts-stop 'three hosts: rank 1 of 3, alone on node2, stopped (STOP)' 70 '^expertmesh: rank 1 on node2 does not answer' \
        there node2 STOP 1
    start_job hosts-stop-0 "${six[@]}"
    fault hosts-stop-0 'three hosts: rank 0 of 6 stopped (STOP)' 70 '^expertmesh: rank 0 on node1 does not answer' there node1 STOP 0
    start_job hosts-daemon "${six[@]}"
    fault hosts-daemon "three hosts: node2's daemon (orted) killed (KILL)" '[1-9][0-9]*' 'node2|lost' \
        kill_daemon node2
    # The last: a job that starts soon after a cable is back may not reach that host. Ranks end there with the job; Open MPI's
    # daemon stays while it is cut off, and ends when the cable is back.
    start_job hosts-cut "${six[@]}"
    fault hosts-cut 'three hosts: the cable of node3 taken out' '[1-9][0-9]*' 'node3' hosts_cut node3
    hosts_mend node3
    for ((tries = 0; tries < 300; tries++)); do
        if [ -z "$(hosts_left)" ]; then break; fi
        sleep 0.05
    done
    [ -z "$(hosts_left)" ] || fail 'looking at the hosts after all' 'no process' "$(hosts_left)"
else
    echo "$test_name: left out: three hosts, which are made of namespaces (that takes root)"
fi

cat "$table"
finish
