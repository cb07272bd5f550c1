#!/bin/bash
# tests/several_hosts.sh: runs over three hosts. They have the bits of a run on one, however rows go between hosts and however slow
# the network is; what is counted is what arithmetic says and what the network interfaces saw.
#
#   several_hosts.sh PROGRAM SOURCES SCRATCH
# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh" "$@"
# shellcheck source=hosts.sh
. "$sources/tests/hosts.sh"
python_with h5py numpy
hosts_up 3
judge() { "$python" "$sources/tests/several_hosts.py" "$@"; }

printf '1 2 3\n200 100 50 25 12 6 3\n7\n%s\n' "$(seq -s ' ' 0 150)" >prompts
options=(--preset tiny --seed 3 --tokens-file prompts --generate 3)
well "$program" run "${options[@]}" --trace one.h5
for host in node1:1,node2:1,node3:1 node1:2,node2:2,node3:2 node1:1,node2:3,node3:2; do
    for exchange in node flat; do
        well "${hosts_mpirun[@]}" --host "$host" "$program" run "${options[@]}" --exchange $exchange --trace many.h5 --force
        check "compare a run on one host with one on $host, $exchange" 'no difference' "$program" compare one.h5 many.h5
    done
done

# Bytes that all interfaces have sent.
sent() { echo $(($(hosts_sent node1) + $(hosts_sent node2) + $(hosts_sent node3))); }

# run TOKENS NAME OPTION...: bytes that a run over six ranks counted between hosts in $counted, and those that the interfaces
# sent in $seen; the trace in NAME.h5, what it said
# in NAME.out.
wide=(--preset tiny --emb-size 1536 --num-kv-heads 6 --layout contiguous --trace-only expert_indices)
run() {
    local before
    before=$(sent)
    well "${hosts_mpirun[@]}" --host node1:2,node2:2,node3:2 "$program" run "${wide[@]}" --tokens "$(seq -s ' ' 1 "$1")" \
        --trace "$2.h5" --force "${@:3}"
    seen=$(($(sent) - before))
    cp "$logs/out" "$2.out"
    counted=$(judge bytes "$2.h5") || fail "reading $2.h5" 'bytes' "$counted"
}

# On top of its rows a run sends what starts it, and little things between its ranks; a run of few tokens tells how much. What
# is more beyond that are the headers of TCP and its acknowledgements: 54 bytes on 1,448, and 66 for every second such frame
# the other way, below 7 % together; and 8 bytes a choice of the router to each other rank, below 1 % at this width.
for exchange in flat node; do
    run 6 few --exchange $exchange
    few_counted=$counted few_seen=$seen
    run 250 $exchange --exchange $exchange
    check "a run of 250 tokens on three hosts, $exchange" 'the rows of the arithmetic' judge $exchange $exchange.h5 2 $exchange.out
    more=$((seen - few_seen)) rows=$((counted - few_counted))
    checks=$((checks + 1))
    if [ "$more" -lt "$rows" ] || [ $((more * 100)) -gt $((rows * 108)) ]; then
        fail "a run of 250 tokens on three hosts, $exchange, less one of 6" "$rows bytes by the interfaces, and up to 8 % more" "$more"
    fi
    printf '%s: %d bytes of rows counted between hosts, %d seen by the interfaces\n' $exchange "$rows" "$more"
    eval "bytes_$exchange=$counted"
done
# shellcheck disable=SC2154 # set by eval
[ "$bytes_node" -lt "$bytes_flat" ] || fail 'comparing both' "fewer bytes than $bytes_flat" "$bytes_node"
check 'compare flat and node' 'no difference' "$program" compare flat.h5 node.h5

# A slow network changes nothing but the time.
hosts_limit 200mbit
run 250 slow
check 'compare with a run over cables of 200 Mbit/s' 'no difference' "$program" compare node.h5 slow.h5
hosts_limit none
# It was not told how to exchange: with several ranks on a host rows go once to each.
check 'a run on three hosts that chooses by itself' 'the rows of --exchange node' judge node slow.h5 2 slow.out
check 'a run on three hosts that chooses by itself' 'that it says so' grep -q 'a row once to each host that needs it' slow.out

[ -z "$(hosts_left)" ] || fail 'looking at the hosts after the runs' 'no process' "$(hosts_left)"
finish
