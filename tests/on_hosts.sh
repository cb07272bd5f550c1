#!/bin/bash
# tests/on_hosts.sh: the job scripts without SLURM, by jobs/on-hosts.sh: on this machine, and over three hosts from a host file.
#
#   on_hosts.sh PROGRAM SOURCES SCRATCH
# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh" "$@"
# shellcheck source=hosts.sh
. "$sources/tests/hosts.sh"
python_with h5py
export PYTHON=$python EXPERTMESH_PROGRAM=$program
jobs=$sources/jobs
tiny=(--preset tiny --seed 3 --prompt 'Ranks on hosts')
well "$program" run "${tiny[@]}" --trace alone.h5

# ---- on this machine ----
well "$jobs/on-hosts.sh" --series=here "$jobs/one-node.sh" "${tiny[@]}"
check 'a run of two ranks by on-hosts.sh' 'the bits of one rank' "$program" compare alone.h5 results/here/trace.h5
well "$jobs/on-hosts.sh" --series=strong "$jobs/strong-scaling.sh" --preset tiny
check 'the table of an array of three' 'a line with its three runs' grep -qE '^1-nodes,2,3,4096,' results/strong/table.csv
check 'on-hosts.sh --nodes=two' 'exit code 64' test "$("$jobs/on-hosts.sh" --nodes=two "$jobs/one-node.sh" 2>/dev/null; echo $?)" = 64

# A long run: signals to on-hosts.sh are the script's. Saved on USR1, saved and stopped on TERM, and gone on with on one rank.
long=(--preset tiny --num-layers 40 --seed 5 --prompt 'On and on' --generate 800 --temperature 0.9 --trace-only router_probs)
well "$program" run "${long[@]}" --trace long-alone.h5
"$jobs/on-hosts.sh" --series=long "$jobs/long-run.sh" "${long[@]}" >long.out 2>long.err </dev/null &
job=$!
printed() { # WORDS FILE: until they are there, or the job has ended
    checks=$((checks + 1))
    until grep -qsaF -- "$1" "$2"; do
        if ! kill -0 "$job" 2>/dev/null; then
            fail 'a long run by on-hosts.sh' "\"$1\" in $2" "$(cat long.err)"
            return
        fi
        sleep 0.05
    done
}
printed generated: results/long/run-0.txt
kill -USR1 "$job"
printed 'checkpoint: ' long.err
kill -TERM "$job"
wait "$job"
check 'TERM to a long run by on-hosts.sh' 'exit code 0, saved and stopped' test "$? $(grep -ca '^stopped: ' results/long/run-0.txt)" = '0 1'
check 'TERM to a long run by on-hosts.sh' 'how to go on with it' grep -qF -- '--series=long goes on with it' long.err
well "$jobs/on-hosts.sh" --ntasks-per-node=1 --series=long "$jobs/long-run.sh"
check 'a long run that goes on' 'the bits of a run that was never stopped' "$program" compare long-alone.h5 results/long/trace.h5
[ "$failures" = 0 ] || finish

# ---- over three hosts, which are made of namespaces ----
hosts_up 3
printf '# two ranks on each\nnode1 slots=2\n\nnode2 slots=2\nnode3 slots=2\n' >hosts
# ssh is not what leads to these hosts, and they have one network.
export OMPI_MCA_plm=rsh OMPI_MCA_plm_rsh_agent=$hosts/rsh OMPI_MCA_btl_tcp_if_include=eth0 OMPI_MCA_oob_tcp_if_include=eth0
well "$hosts/on" node1 "$jobs/on-hosts.sh" --hostfile=hosts --series=three "$jobs/several-nodes.sh" "${tiny[@]}"
check 'a run over three hosts by on-hosts.sh' 'the bits of one rank' "$program" compare alone.h5 results/three/trace.h5
well "$hosts/on" node1 "$jobs/on-hosts.sh" --hostfile=hosts --nodes=1,3 --series=weak "$jobs/weak-scaling.sh" --preset tiny
check 'the table of arrays on one host and on three' 'three runs of 2 ranks, three of 6' \
    test "$(cut -d , -f 1-4 results/weak/table.csv | tail -n +2 | xargs)" = '1-nodes,2,3,1024 3-nodes,6,3,3072'
EXPERTMESH_LAYOUTS=spread well "$hosts/on" node1 "$jobs/on-hosts.sh" --hostfile=hosts --nodes=2 --series=sweep "$jobs/layouts.sh" --preset tiny
check 'the table of a sweep over layouts' 'three runs of 4 ranks with each exchange' \
    test "$(cut -d , -f 1-4 results/sweep/table.csv | tail -n +2 | xargs)" = 'spread-flat,4,3,4096 spread-node,4,3,4096'
[ -z "$(hosts_left)" ] || fail 'looking at the hosts after the runs' 'no process' "$(hosts_left)"
finish
