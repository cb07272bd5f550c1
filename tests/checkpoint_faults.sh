#!/bin/bash
# tests/checkpoint_faults.sh: a run killed at each of its writes in turn while it writes checkpoints, one after the other; a disk
# that is full from each write on, for all ranks or for one; and one that writes other bytes than it was given. There is always a
# whole checkpoint from which the run goes on to the same bits, but before the first is written.
#
#   checkpoint_faults.sh PROGRAM SOURCES SCRATCH
# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh" "$@"
disk=${DISK_LIBRARY:-$(dirname "$program")/tests/libdisk.so}
[ -r "$disk" ] || skip 'tests/libdisk.so is not built'
export OMPI_MCA_btl_vader_backing_directory=$session # what a killed rank cannot remove lies there

# One rank needs no network.
alone=(env OMPI_MCA_pml=ob1 OMPI_MCA_btl=self OMPI_MCA_mpi_yield_when_idle=0)
small=(--preset tiny --num-layers 2 --emb-size 8 --ffn-size 8 --num-q-heads 2 --num-kv-heads 2 --key-size 4 --num-experts 2
    --vocab-size 16 --threads 1)
plain=("$program" run "${small[@]}" --tokens '1,2,3' --generate 3 --temperature 0.8)
kept=("${plain[@]}" --checkpoint c.h5)
often=(--checkpoint-every 1)
top=$PWD
told() { sed -n '/^generated/,/^$/p; /^likeliest/,/^$/p' "$1" | grep .; }

well "${alone[@]}" "${plain[@]}" --trace whole.h5 --trace-only router_probs
told "$logs/out" >whole.txt
# A checkpoint that is there before, of the same run, before its first step.
well "${alone[@]}" "${kept[@]}" --max-hours 1e-9
mv c.h5 before.h5

# fault_at FOLDER FAULT N COMMAND...: the command in FOLDER/N, with the fault of tests/disk.c, with N for its number.
fault_at() {
    local folder=$1/$3 fault=${2/=N/=$3}
    mkdir -p "$folder" && cd "$folder" || return
    if [ -e "$top/$1/c.h5" ]; then cp "$top/$1/c.h5" .; fi
    timeout -k 2 120 "${alone[@]}" LD_PRELOAD="$disk" DISK="$fault" "${@:4}" >out 2>err </dev/null
    echo $? >code
    go_on
    cd "$top" || return
}

# From what is left in this folder: "none", "same", or what is wrong. The disk is well again.
go_on() {
    local state=same
    if [ ! -e c.h5 ]; then
        state=none
    elif ! timeout -k 2 120 "${alone[@]}" "$program" run --resume c.h5 >again.out 2>again.err </dev/null; then
        state="does not go on: $(tail -n 1 again.err)"
    elif ! told again.out | cmp -s - "$top/whole.txt"; then
        state='other tokens'
    elif [ -e t.h5 ] && ! "$program" compare "$top/whole.h5" t.h5 >compare.out 2>&1; then
        state="another trace: $(tail -n 1 compare.out)"
    fi
    echo "$state" >state
}

# at_every FOLDER FAULT FIRST EVERY LAST COMMAND...: the fault at number FIRST, FIRST + EVERY, ..., LAST, two at a time.
at_every() {
    local folder=$1 fault=$2 first=$3 every=$4 last=$5 n worker
    shift 5
    mkdir -p "$folder"
    for worker in 0 1; do
        (
            export OMPI_MCA_orte_tmpdir_base=$session/$worker
            mkdir -p "$session/$worker"
            for ((n = first + worker * every; n <= last; n += 2 * every)); do fault_at "$folder" "$fault" "$n" "$@"; done
        ) 2>/dev/null &
    done
    wait
}

# judge WHAT FOLDER CODES STATES: how each of them ended, and what went on.
judge() {
    local what=$1 code state folder bad='' seen=''
    for folder in "$2"/*/; do
        code=$(cat "$folder/code") state=$(cat "$folder/state")
        checks=$((checks + 1))
        seen+="$state "
        [[ " $3 " == *" $code "* ]] || bad+="$folder: exit code $code: $(tail -n 1 "$folder/err")"$'\n'
        [[ " $4 " == *" $state "* ]] || bad+="$folder: $state"$'\n'
        if [ "$code" = 0 ] && ! told "$folder/out" | cmp -s - whole.txt; then bad+="$folder: other tokens"$'\n'; fi
    done
    if [ -n "$bad" ]; then fail "$what" "exit code $3, and: $4" "$bad"; fi
    [[ $seen == *same* ]] || fail "$what" 'a checkpoint in some of them' "${seen:-nothing}"
}

# writes COMMAND...: how many there are when nothing disturbs it.
writes() {
    rm -rf count && mkdir count && cd count || return
    "${alone[@]}" LD_PRELOAD="$disk" DISK=tell DISK_TELL=calls "$@" >out 2>err </dev/null
    cat calls
    cd "$top" || return
}

# ---- killed at every write ----
count=$(writes "${kept[@]}" "${often[@]}")
at_every kill kill=N 1 1 "$count" "${kept[@]}" "${often[@]}"
judge "killed at each of $count writes" kill 137 'same none'
first=$(grep -lx none kill/*/state | wc -l)
# The first checkpoint takes at most half of the writes of two; after it there always is one.
for folder in kill/*/; do
    n=$(basename "$folder")
    if [ "$n" -gt "$first" ] && grep -qx none "$folder/state"; then fail "killed at write $n" 'a checkpoint' none; fi
done
if [ "$first" -lt 5 ] || [ $((3 * first)) -gt "$((2 * count))" ]; then fail 'killed at every write' 'both, none and a checkpoint' "$first of $count without"; fi
# Where there was one before, it is there.
mkdir -p kill-over && cp before.h5 kill-over/c.h5
at_every kill-over kill=N 1 3 $((first + 1)) "${kept[@]}" "${often[@]}" --force
judge 'killed while the first checkpoint replaces an older one' kill-over 137 same
for call in rename fdatasync fsync fallocate; do
    at_every kill-$call "call=$call,kill=N" 1 1 3 "${kept[@]}" "${often[@]}"
done
judge 'killed at a rename' kill-rename '137 0' 'same none'
judge 'killed at an fdatasync' kill-fdatasync 137 'same none'
judge 'killed at an fsync' kill-fsync 137 'same none'
judge 'killed at a fallocate' kill-fallocate '137 0' 'same none'

# With a trace, which is written at the same time.
traced=("${kept[@]}" "${often[@]}" --trace t.h5 --trace-only router_probs)
total=$(writes "${traced[@]}")
at_every kill-traced kill=N 7 5 "$total" "${traced[@]}"
judge "with a trace, killed at every fifth of $total writes" kill-traced 137 'same none'

# ---- a disk that is full ----
at_every full full=N 1 2 "$count" "${kept[@]}" "${often[@]}"
judge 'a full disk: the run goes on' full 0 'same none'
for folder in full/*/; do
    if ! grep -q '^checkpoint: not written: .*; the one before stays' "$folder/err" || [ -e "$folder/c.h5.partial" ]; then
        fail 'a full disk' 'a warning, and no c.h5.partial' "$(ls "$folder") $(cat "$folder/err")"
    fi
done
for call in rename fdatasync fsync fallocate; do
    mkdir -p full-$call && cp before.h5 full-$call/c.h5
    at_every full-$call "call=$call,full=N" 1 1 3 "${kept[@]}" "${often[@]}" --force
    judge "no space at $call: the run goes on" full-$call 0 same
done
# Where it was to stop it says that it could not, and the one before stays.
mkdir -p full-stop && cp before.h5 full-stop/c.h5
at_every full-stop full=N 1 4 "$first" "$program" run --resume c.h5 --max-hours 1e-9
judge 'a full disk when the run is to stop' full-stop 73 same
for folder in full-stop/*/; do
    cmp -s "$folder/c.h5" before.h5 || fail 'a full disk when the run is to stop' 'the checkpoint before as it was' 'another'
    [ "$(grep -c '^expertmesh: ' "$folder/err")" = 1 ] || fail 'a full disk when the run is to stop' 'one message' "$(cat "$folder/err")"
done

# ---- a disk that writes something else, at each write in turn ----
# What does not read back as it was written does not become the checkpoint; a bit that tells nothing (a date, what HDF5 leaves empty)
# may be another. HDF5's own writes, the first ones, hold much: three bytes of each.
for at in 50 20 80; do
    last=$((at == 50 ? first + 1 : 9))
    mkdir -p wrong-$at && cp before.h5 wrong-$at/c.h5
    at_every wrong-$at wrong=N,at=$at 1 1 "$last" "$program" run --resume c.h5 "${often[@]}"
    judge 'a write that goes wrong: the run goes on' wrong-$at 0 same
done
for what in '/keys does not read back as it was written' '(computed by loops|damaged|it does not read back|.*is not where it was put)' \
    'rank 0 does not see the file that rank 0 wrote'; do
    grep -qE "^checkpoint: not written: c.h5.partial: $what" wrong-*/*/err ||
        fail 'a write that goes wrong' "\"$what\" in one of them" "$(grep -h '^checkpoint: not' wrong-*/*/err | sort | uniq -c)"
done

# ---- one of three ranks ----
cat >one-rank.sh <<'EOT'
#!/bin/bash
# one-rank.sh DISK RANK FAULT PROGRAM ARGUMENT...: a rank's disk with a fault
if [ "$OMPI_COMM_WORLD_RANK" != "$2" ]; then exec "${@:4}"; fi
exec env LD_PRELOAD="$1" DISK="$3" "${@:4}"
EOT
for fault in 0:full=1 0:full=9 1:full=1 1:full=4 2:full=2 2:full=7 1:kill=3 0:kill=40 2:kill=5; do
    folder=ranks/${fault/:/-}
    mkdir -p "$folder" && cd "$folder" || exit
    cp "$top/before.h5" c.h5
    timeout -k 2 180 mpirun -n 3 bash "$top/one-rank.sh" "$disk" "${fault%%:*}" "${fault#*:}" "${kept[@]}" "${often[@]}" --force >out 2>err </dev/null
    status=$?
    go_on
    state=$(cat state)
    checks=$((checks + 1))
    case $fault in
        *full*) if [ $status != 0 ] || ! grep -q '^checkpoint: not written: ' err; then fail "rank ${fault%%:*} of 3: ${fault#*:}" 'a warning, and exit code 0' "$status: $(cat err)"; fi ;;
        *) if [ $status = 0 ] || [ $status = 124 ]; then fail "rank ${fault%%:*} of 3: ${fault#*:}" 'another exit code than 0' "$status: $(cat err)"; fi ;;
    esac
    if [ "$state" != same ]; then fail "rank ${fault%%:*} of 3: ${fault#*:}" 'a checkpoint to go on from' "$state"; fi
    cd "$top" || exit
done
slowest_what+="; $count writes in a run"
finish
