# shellcheck shell=bash disable=SC2016,SC2034,SC2154 # awk programs; names that the test uses; names of common.sh
# tests/hosts.sh: several hosts on this machine, made of namespaces, for tests of what happens between hosts.
#
#   . "$sources/tests/common.sh" ...; . "$sources/tests/hosts.sh"; hosts_up 3
#   well "${hosts_mpirun[@]}" --host node1:2,node2:2,node3:2 "$program" run ...
#
# Host I is nodeI with the address 10.77.0.I: a network, a hostname, System V IPC and a /dev/shm of its own; files are those of
# this machine, as on a shared file system. One switch joins them. All their processes live in one PID namespace, whose first
# process ends with the test: so nothing is left, however the test ends. Needs root; skips where namespaces are forbidden.
#
#   hosts_up N               make them; `finish` or any other end takes them down
#   hosts_down               end everything that runs on them, and them
#   "$hosts/on" nodeI CMD... run a command there, from this folder. A command of its own, so that `timeout`, `well` and `&` take it
#   "${hosts_mpirun[@]}" ... mpirun on node1, which starts its daemons on the others without ssh
#   hosts_cut nodeI          take its cable out; hosts_mend puts it back
#   hosts_limit RATE         bits a second of every cable each way, as 1gbit; hosts_limit none lifts it
#   hosts_sent nodeI         bytes that its interface has sent since it was made; hosts_received likewise
#   hosts_pids nodeI PATTERN numbers, here, of the processes there whose command line matches
#   hosts_left               processes that run on any host, one a line: what a job has left behind

# The first process of all hosts: makes them in the folder $1, $2 of them, writes their numbers, and stays.
hosts_first_process() {
    local folder=$1 count=$2 i
    mount -t proc proc /proc
    for ((i = 1; i <= count; i++)); do printf '10.77.0.%d node%d\n' "$i" "$i"; done >"$folder/etc-hosts"
    printf '127.0.0.1 localhost\n' >>"$folder/etc-hosts"
    mount --bind "$folder/etc-hosts" /etc/hosts
    unshare --net sleep infinity &
    echo $! >"$folder/switch.pid"
    for ((i = 1; i <= count; i++)); do
        unshare --net --uts --ipc --mount sleep infinity &
        echo $! >"$folder/node$i.pid"
    done
    until hosts_unshared "$folder" "$count"; do sleep 0.01; done
    hosts_wire "$folder" "$count" && touch "$folder/ready"
    wait # and bury what loses its parent
}

# Has every process its own network?
hosts_unshared() {
    local pid_file ours
    ours=$(readlink /proc/self/ns/net)
    for pid_file in "$1"/*.pid; do
        [ "$(readlink "/proc/$(cat "$pid_file")/ns/net")" != "$ours" ] || return 1
        [ "$(cat "/proc/$(cat "$pid_file")/comm")" = sleep ] || return 1
    done
}

hosts_wire() {
    local folder=$1 count=$2 i switch
    switch=$(cat "$folder/switch.pid")
    nsenter -t "$switch" --net ip link add br0 type bridge || return
    nsenter -t "$switch" --net ip link set br0 up || return
    for ((i = 1; i <= count; i++)); do
        "$folder/at" "node$i" hostname "node$i" || return
        "$folder/at" "node$i" mount -t tmpfs tmpfs /dev/shm || return
        "$folder/at" "node$i" ip link add eth0 type veth peer name "port$i" netns "$switch" || return
        "$folder/at" "node$i" ip addr add "10.77.0.$i/24" dev eth0 || return
        "$folder/at" "node$i" ip link set eth0 up || return
        "$folder/at" "node$i" ip link set lo up || return
        nsenter -t "$switch" --net ip link set "port$i" master br0 up || return
    done
}

# The scripts that lead to a host: from within (at, and rsh for mpirun), and from here (on).
hosts_write_scripts() {
    local folder=$1
    {
        printf '#!/bin/bash\nhost=$1\nshift\npid=$(cat %q/"$host".pid) || exit\n' "$folder"
        printf 'exec nsenter -t "$pid" --net --uts --ipc --mount sh -c '\''cd "$0" && exec "$@"'\'' "$PWD" "$@"\n'
    } >"$folder/at"
    printf '#!/bin/bash\nhost=$1\nshift\nexec %q "$host" sh -c "$*"\n' "$folder/at" >"$folder/rsh"
    {
        printf '#!/bin/bash\nfirst=$(cat %q) || exit\n' "$folder/first.pid"
        printf 'exec nsenter -t "$first" --pid --mount setpriv --pdeathsig TERM sh -c '\''cd "$0" && exec "$@"'\'' "$PWD" %q "$@"\n' \
            "$folder/at"
    } >"$folder/on"
    chmod +x "$folder"/{at,rsh,on}
}

hosts_up() {
    local count=$1 tries seen
    if [ "$(id -u)" != 0 ]; then skip 'hosts are made of namespaces, which takes root'; fi
    need ip tc unshare nsenter setpriv pgrep
    if ! seen=$(unshare --pid --fork --mount --net --uts --ipc mount -t proc proc /proc 2>&1); then
        skip "this machine forbids namespaces: $seen"
    fi
    hosts=$session/hosts
    mkdir -p "$hosts"
    hosts_write_scripts "$hosts"
    setpriv --pdeathsig KILL unshare --pid --fork --kill-child --mount --propagation private \
        bash "${BASH_SOURCE[0]}" first-process "$hosts" "$count" >"$hosts/log" 2>&1 </dev/null &
    hosts_keeper=$!
    trap 'hosts_down; clean_up' EXIT
    for ((tries = 0; tries < 3000; tries++)); do
        if [ -e "$hosts/ready" ]; then break; fi
        if ! kill -0 "$hosts_keeper" 2>/dev/null; then break; fi
        sleep 0.01
    done
    if [ ! -e "$hosts/ready" ]; then skip "this machine cannot make $count hosts: $(tail -n 3 "$hosts/log")"; fi
    pgrep -P "$hosts_keeper" >"$hosts/first.pid"
    # mpirun sees one core; all of them share these.
    hosts_mpirun=("$hosts/on" node1 mpirun --mca plm rsh --mca plm_rsh_agent "$hosts/rsh" --mca btl_tcp_if_include eth0
        --mca oob_tcp_if_include eth0 --bind-to none)
}

# The keeper's end is that of the first process, and so of every process on the hosts: the kernel sees to it.
hosts_down() {
    if [ -z "${hosts_keeper-}" ]; then return; fi
    kill -KILL "$hosts_keeper" 2>/dev/null
    wait "$hosts_keeper" 2>/dev/null
    hosts_keeper=
}

# On the switch.
hosts_switch() {
    nsenter -t "$(cat "$hosts/first.pid")" --pid --mount nsenter -t "$(cat "$hosts/switch.pid")" --net "$@"
}

hosts_cut() { hosts_switch ip link set "port${1#node}" down; }
hosts_mend() { hosts_switch ip link set "port${1#node}" up; }

hosts_limit() {
    local pid_file host
    for pid_file in "$hosts"/node*.pid; do
        host=$(basename "$pid_file" .pid)
        if [ "$1" = none ]; then
            "$hosts/on" "$host" tc qdisc del dev eth0 root
            hosts_switch tc qdisc del dev "port${host#node}" root
        else
            "$hosts/on" "$host" tc qdisc replace dev eth0 root tbf rate "$1" burst 256kb latency 100ms
            hosts_switch tc qdisc replace dev "port${host#node}" root tbf rate "$1" burst 256kb latency 100ms
        fi
    done
}

hosts_sent() { "$hosts/on" "$1" awk '$1 == "eth0:" { print $10 }' /proc/net/dev; }
hosts_received() { "$hosts/on" "$1" awk '$1 == "eth0:" { print $2 }' /proc/net/dev; }

hosts_pids() {
    local holder
    holder=$(hosts_outside "$(cat "$hosts/$1.pid")")
    pgrep --ns "$holder" --nslist net -f -- "$2"
}

# Here, the number of a process that calls itself so within.
hosts_outside() {
    local first
    first=$(cat "$hosts/first.pid")
    pgrep --ns "$first" --nslist pid . | sed 's|.*|/proc/&/status|' |
        xargs awk -v inner="$1" '$1 == "NSpid:" && $NF == inner { print $(NF - 1) }' 2>/dev/null
}

hosts_left() {
    local first
    first=$(cat "$hosts/first.pid")
    pgrep --ns "$first" --nslist pid . | paste -sd , | xargs -r ps -o pid=,stat=,args= -p |
        awk -v first="$first" '$1 != first && $2 !~ /^Z/ && $0 !~ / sleep infinity$/'
}

if [ "${BASH_SOURCE[0]}" = "$0" ] && [ "${1-}" = first-process ]; then
    hosts_first_process "$2" "$3"
fi
