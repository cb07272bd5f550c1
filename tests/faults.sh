#!/bin/bash
# tests/faults.sh: a writer killed at each of its writes in turn, a disk that is full from each write on, a rank killed in the
# middle, a limit on file size. A trace must always open and hold what it says it holds; weights are whole or not there; and a
# failed write ends every rank with one message and exit code 73.
#
#   faults.sh PROGRAM SOURCES SCRATCH
# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh" "$@"
disk=${DISK_LIBRARY:-$(dirname "$program")/tests/libdisk.so}
[ -r "$disk" ] || skip 'tests/libdisk.so is not built'
python_with h5py numpy

small=(--preset tiny --num-layers 2 --emb-size 8 --ffn-size 8 --num-q-heads 2 --num-kv-heads 1 --key-size 4 --num-experts 2
    --vocab-size 16)
run=("$program" run "${small[@]}" --tokens "1,2,3" --trace t.h5)
init=("$program" init "${small[@]}" --storage int8 -o w.h5)
states=''

# One rank needs no network.
alone=(env OMPI_MCA_pml=ob1 OMPI_MCA_btl=self OMPI_MCA_mpi_yield_when_idle=0)

well "${run[@]}"
well "${init[@]}"
mv t.h5 full.h5
mv w.h5 whole.h5
well "$program" run "${small[@]}" --tokens 4,5,6 --trace old.h5
well "$program" init "${small[@]}" --storage int8 --seed 7 -o older.h5
top=$PWD

# fault_at FOLDER OLD FAULT N COMMAND...: the command in FOLDER/N, with the fault of tests/disk.c, with N for its number. OLD
# (FILE=NAME, or -) is there before under NAME.
fault_at() {
    local folder=$1/$4 old=$2 fault=${3/=N/=$4}
    mkdir -p "$folder" && cd "$folder" || return
    [ "$old" = - ] || cp "$top/${old%=*}" "${old#*=}"
    timeout -k 2 120 "${alone[@]}" LD_PRELOAD="$disk" DISK="$fault" "${@:5}" >out 2>err </dev/null
    echo $? >code
    cd "$top" || return
}

# How often a command makes the call that a fault is for when it does not come.
calls_of() {
    local old=$1 fault=${2/=N/=0}
    mkdir -p count && cd count || return
    [ "$old" = - ] || cp "$top/${old%=*}" "${old#*=}"
    "${alone[@]}" LD_PRELOAD="$disk" DISK="$fault" DISK_TELL=calls "${@:3}" >out 2>err </dev/null
    cat calls
    cd "$top" || return
    rm -r count
}

# at_every FOLDER OLD FAULT CODE COMMAND...: the fault at the first such call, the second, ..., to the last; and once beyond, where
# nothing may happen; each must end with CODE. Two at a time. The count in $count.
at_every() {
    local folder=$1 old=$2 fault=$3 code=$4 n worker got bad=''
    shift 4
    count=$(calls_of "$old" "$fault" "$@")
    count=${count:-0}
    for worker in 1 2; do
        (
            export OMPI_MCA_orte_tmpdir_base=$session/$worker
            mkdir -p "$session/$worker"
            for ((n = worker; n <= count; n += 2)); do fault_at "$folder" "$old" "$fault" "$n" "$@"; done
        ) 2>/dev/null &
    done
    wait
    fault_at "$folder" "$old" "$fault" $((count + 1)) "$@"
    got=$(cat "$folder/$((count + 1))/code")
    if [ "$got" != 0 ]; then bad="exit code $got with no fault at all"; fi
    for ((n = 1; n <= count; n++)); do
        got=$(cat "$folder/$n/code")
        if [ "$got" != "$code" ]; then bad+="${bad:+$'\n'}at number $n: exit code $got, $(tail -n 1 "$folder/$n/err")"; fi
    done
    checks=$((checks + count))
    if [ "$count" -lt 1 ] || [ -n "$bad" ]; then
        fail "$(spell "$@") with $fault, N from 1 to $count" "at least one such call, exit code $code" "$bad"
    fi
}

# kept_at_every FOLDER FAULT COMMAND...: one run, and FOLDER/N is what it would leave if it were killed at its Nth write: the same
# as at_every with a kill finds, without as many starts, on a disk that is slow (each write waits for a copy of the files).
kept_at_every() {
    local folder=$1 fault=$2
    shift 2
    mkdir -p "$folder" working && cd working || exit
    timeout -k 2 120 "${alone[@]}" LD_PRELOAD="$disk" DISK="$fault" DISK_KEEP="$top/$folder" "$@" >out 2>err </dev/null ||
        fail "$(spell "$@"), its files kept at every write" 'exit code 0' "$(cat err)"
    cd "$top" && rm -r working || exit
    count=0
    while [ -d "$folder/$((count + 1))" ]; do
        count=$((count + 1))
        echo 137 >"$folder/$count/code"
    done
    [ "$count" -gt 0 ] || fail "$(spell "$@"), its files kept at every write" 'one write at least' none
    checks=$((checks + count))
}

# judge KIND OLD FOLDER...: what the files under the folders hold.
judge() {
    local kind=$1 old=$2 full=whole.h5 seen
    if [ "$kind" = traces ]; then full=full.h5; fi
    case $3 in *steps*) full=steps.h5 ;; esac
    shift 2
    if ! seen=$("$python" "$sources/tests/faults.py" "$kind" "$full" "$old" "$@" 2>&1); then
        fail "what was left by $1 ..." "a valid file, or none" "$seen"
        seen=''
    fi
    states=$seen
}

# has STATE DONE: among the states that `judge` found there must be this one: otherwise the loop missed its place. After a
# failure there is nothing to look at.
has() { [[ -z $states || $states == *"$1: "* ]] || fail "$2" "once at least: $1" "$states"; }

# one_message FOLDER...: one line from the program in each, and nothing left under a name of its own.
one_message() {
    local folder bad=''
    for folder; do
        if [ "$(grep -ac '^expertmesh: ' "$folder/err")" != 1 ]; then bad+="$folder: $(cat "$folder/err")"$'\n'; fi
        if compgen -G "$folder/*.partial" >/dev/null; then bad+="$folder: $(ls "$folder")"$'\n'; fi
    done
    checks=$((checks + $#))
    [ -z "$bad" ] || fail "looking at $# failed runs" 'one message each, and no .partial left' "$bad"
}

# ---- killed at every write ----
at_every kill old.h5=t.h5 kill=N 137 "${run[@]}" --force
writes=$count
judge traces old.h5 kill/*
for state in older '0 layers' '1 layers' '2 layers' '2 layers, tokens' '2 layers, tokens, complete'; do
    has "$state" 'a run killed at every write'
done
# In several steps, with a disk that keeps up with the arithmetic and with one that does not.
steps=("${run[@]}" --generate 4 --prefill-chunk 2)
well "${steps[@]}"
mv t.h5 steps.h5
at_every kill-steps - kill=N 137 "${steps[@]}"
kept_at_every slow-steps slow=2000 "${steps[@]}"
for loop in kill-steps slow-steps; do
    judge traces - $loop/*
    for state in none '0 layers' '2 layers' '1 layers after 2' '0 layers after 3' '1 layers after 4' '2 layers after 5' '2 layers, tokens'; do
        has "$state" "a run in several steps ended at every write: $loop"
    done
done
for call in rename fdatasync fallocate; do
    at_every kill-$call - call=$call,kill=N 137 "${run[@]}"
done
judge traces - kill-rename/* kill-fdatasync/* kill-fallocate/*
has none 'a first run killed before its trace has its name'

at_every kill-init older.h5=w.h5 kill=N 137 "${init[@]}" --force
judge weights older.h5 kill-init/*
has older 'init killed at every write'
kept_at_every kept-init '' "${init[@]}"
for call in rename fdatasync fallocate; do
    at_every kill-init-$call - call=$call,kill=N 137 "${init[@]}"
done
judge weights - kept-init/* kill-init-rename/* kill-init-fdatasync/* kill-init-fallocate/*
has none 'init killed at every write'
has whole 'init killed at every write'

# ---- a disk that is full from each write on ----
at_every full - full=N 73 "${run[@]}"
one_message $(seq -f 'full/%.0f' "$count")
for call in fallocate fdatasync rename; do
    at_every full-$call - call=$call,full=N 73 "${run[@]}"
    one_message $(seq -f "full-$call/%.0f" "$count")
done
judge traces - full/* full-fallocate/* full-fdatasync/* full-rename/*
for state in none '0 layers' '1 layers' '2 layers' '2 layers, tokens'; do has "$state" 'a run on a full disk'; done

at_every full-init - full=N 73 "${init[@]}"
one_message $(seq -f 'full-init/%.0f' "$count")
for call in fallocate fdatasync rename; do
    at_every full-init-$call - call=$call,full=N 73 "${init[@]}"
    one_message $(seq -f "full-init-$call/%.0f" "$count")
done
judge weights - full-init/* full-init-fallocate/* full-init-fdatasync/* full-init-rename/*

# ---- the same in one of three ranks ----
cat >one-rank.sh <<'EOF'
#!/bin/bash
# one-rank.sh DISK RANK FAULT OTHERS PROGRAM ARGUMENT...: a rank's disk with a fault, the others' with theirs (- is none)
fault=$4
if [ "$OMPI_COMM_WORLD_RANK" = "$2" ]; then fault=$3; fi
if [ "$fault" = - ]; then exec "${@:5}"; fi
exec env LD_PRELOAD="$1" DISK="$fault" "${@:5}"
EOF
for fault in 0:1 0:30 0:60 0:75 1:1 1:7 1:20 2:12; do
    folder=ranks/${fault/:/-}
    mkdir -p "$folder" && cd "$folder" || exit
    watch mpirun -n 3 bash "$top/one-rank.sh" "$disk" "${fault%:*}" "full=${fault#*:}" - "${run[@]}"
    cp "$logs/out" out && cp "$logs/err" err && echo "$status" >code
    cd "$top" || exit
    if [ "$status" != 73 ]; then fail "rank ${fault%:*} of 3 cannot write from its write ${fault#*:} on" 73 "$status: $(cat "$logs/err")"; fi
done
one_message ranks/*
judge traces - ranks/*
# A rank killed at one of its writes, its disk or the others' being slow.
for fault in 0:80 0:100 0:120 0:140 1:2 1:25 1:45 1:65 2:12 2:80 2:150; do
    for slow in 3000,- 0,slow=3000; do
        folder=ranks-steps/${fault/:/-}-${slow%,*}
        mkdir -p "$folder" && cd "$folder" || exit
        watch mpirun -n 3 bash "$top/one-rank.sh" "$disk" "${fault%:*}" "kill=${fault#*:},slow=${slow%,*}" "${slow#*,}" "${steps[@]}"
        cp "$logs/out" out && cp "$logs/err" err && echo "$status" >code
        cd "$top" || exit
        if [ "$status" = 0 ] || [ "$status" = 124 ]; then
            fail "rank ${fault%:*} of 3 is killed at its write ${fault#*:}" 'another exit code than 0' "$status"
        fi
    done
done
judge traces - ranks-steps/*
for fault in 0:1 0:20 1:1 2:3; do
    folder=ranks-init/${fault/:/-}
    mkdir -p "$folder" && cd "$folder" || exit
    watch mpirun -n 3 bash "$top/one-rank.sh" "$disk" "${fault%:*}" "full=${fault#*:}" - "${init[@]}"
    cp "$logs/out" out && cp "$logs/err" err && echo "$status" >code
    cd "$top" || exit
    if [ "$status" != 73 ]; then fail "rank ${fault%:*} of 3 cannot write from its write ${fault#*:} on" 73 "$status: $(cat "$logs/err")"; fi
    if [ -e "$folder/w.h5" ]; then fail "rank ${fault%:*} of 3 cannot write" 'no w.h5' "$(ls -l "$folder")"; fi
done
one_message ranks-init/*

# ---- a disk that is full ----
mkdir disk
if mount -t tmpfs -o size=72k tmpfs disk 2>/dev/null; then
    trap 'cd /; umount "$top/disk"; clean_up' EXIT
    larger=(--preset tiny --emb-size 96)
    for ranks in 1 3; do
        for command in init run; do
            output=(run "${larger[@]}" --tokens "1,2,3,4,5,6,7,8" --trace disk/t.h5)
            why='its disk has' # run looks before it works, init reserves
            if [ $command = init ]; then output=(init "${larger[@]}" -o disk/w.h5) why='No space left on device'; fi
            refuse 73 'disk/' "$why" -- "${output[@]}"
            left=$(ls -A disk)
            [ -z "$left" ] || fail "$command on a full disk" 'nothing left there' "$left"
        done
        cp old.h5 disk/t.h5
        refuse 73 'disk/' 'its disk has' -- run "${larger[@]}" --tokens 1,2,3,4,5,6,7,8 --trace disk/t.h5 --force
        cmp -s old.h5 disk/t.h5 || fail 'run --force on a full disk' 'the older trace as it was' 'another file'
        rm disk/t.h5
    done
else
    echo "$test_name: left out: a small disk filled to its end (mounting needs root)"
fi

# ---- a limit on the size of files ----
for limit in 4 16; do
    # shellcheck disable=SC2016
    for command in 'run "$@" --tokens 1,2,3 --trace limited.h5' 'init "$@" -o limited.h5'; do
        reason="File too large"
        case $limit,$command in 4,run*) reason="ulimit -f" ;; esac # with 16 only what HDF5 adds is too much
        refused 73 limited.h5 "$reason" -- \
            "${alone[@]}" bash -c "ulimit -f $limit; exec \"\$0\" $command" "$program" "${small[@]}"
    done
done

# Only one rank's limit, which differs between hosts sometimes: told before the run. Far above what MPI itself writes.
cat >limit-rank.sh <<'EOF'
#!/bin/bash
if [ "$OMPI_COMM_WORLD_RANK" = 1 ]; then ulimit -f 40000; fi
exec "$@"
EOF
refused 73 limited.h5 'rank 1 on' 'ulimit -f' -- mpirun -n 2 bash limit-rank.sh "$program" run --preset demo \
    --tokens 1,2,3 --generate 1500 --trace limited.h5

# ---- a rank killed in the middle of a run ----
cat >note-pid.sh <<'EOF'
#!/bin/bash
echo $$ >"pid.$OMPI_COMM_WORLD_RANK"
exec "$@"
EOF
export OMPI_MCA_btl_vader_backing_directory=$session # what a killed rank cannot remove lies there
seq -s , 0 199 >tokens.txt
long=(run --preset tiny --num-layers 400 --seed 3 --tokens-file "$PWD/tokens.txt" --trace-only "router_probs,ffn_out" --trace)
well "$program" "${long[@]}" long.h5
for victim in 1 0; do
    mkdir -p victim/$victim && cd victim/$victim || exit
    mpirun -n 3 bash "$top/note-pid.sh" "$program" "${long[@]}" t.h5 >out 2>err </dev/null &
    mpi=$!
    while [ ! -e t.h5 ] && kill -0 $mpi 2>/dev/null; do sleep 0.02; done
    sleep 0.2
    start=$SECONDS
    kill -KILL "$(cat pid.$victim)" || fail "killing rank $victim" 'a run that takes longer' "$(cat err)"
    timeout 60 tail --pid=$mpi -f /dev/null || kill -KILL $mpi
    wait $mpi 2>/dev/null
    code=$?
    echo $code >code
    checks=$((checks + 1))
    if [ $((SECONDS - start)) -gt 15 ] || [ $code = 0 ]; then
        fail "rank $victim of 3 killed" 'an end in 15 s, and not exit code 0' "$((SECONDS - start)) s, exit code $code"
    fi
    cd "$top" || exit
done
seen=$("$python" "$sources/tests/faults.py" traces long.h5 - victim/* 2>&1) || fail 'a rank killed' 'a valid trace' "$seen"
case $seen in *complete*) fail 'a rank killed' 'a run that was not done yet' "$seen" ;; esac

slowest_what+="; $writes writes in a run"
finish
