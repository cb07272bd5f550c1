#!/bin/bash
# tests/several_hosts.sh: runs over three hosts. They have the bits of a run on one.
#
#   several_hosts.sh PROGRAM SOURCES SCRATCH
# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh" "$@"
# shellcheck source=hosts.sh
. "$sources/tests/hosts.sh"
hosts_up 3

printf '1 2 3\n200 100 50 25 12 6 3\n7\n%s\n' "$(seq -s ' ' 0 150)" >prompts
options=(--preset tiny --seed 3 --tokens-file prompts --generate 3)
well "$program" run "${options[@]}" --trace one.h5
for host in node1:1,node2:1,node3:1 node1:2,node2:2,node3:2 node1:1,node2:3,node3:2; do
    well "${hosts_mpirun[@]}" --host "$host" "$program" run "${options[@]}" --trace many.h5 --force
    check "compare a run on one host with one on $host" 'no difference' "$program" compare one.h5 many.h5
done
[ -z "$(hosts_left)" ] || fail 'looking at the hosts after the runs' 'no process' "$(hosts_left)"
finish
