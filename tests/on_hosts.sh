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
[ -z "$(hosts_left)" ] || fail 'looking at the hosts after the runs' 'no process' "$(hosts_left)"
finish
