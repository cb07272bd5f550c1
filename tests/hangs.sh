#!/bin/bash
# tests/hangs.sh: what the watchdog says when nothing comes any more from one host to another, or a rank stays in sending: in which
# layer, phase and exchange each rank stands, whom it waits for, and how many rows are missing, known from a run that went well.
# In each exchange once.
#
#   hangs.sh PROGRAM SOURCES SCRATCH
# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh" "$@"
hang=${HANG_LIBRARY:-$(dirname "$program")/tests/libhang.so}
[ -r "$hang" ] || skip 'tests/libhang.so is not built'
export EXPERTMESH_RANKS_PER_HOST=1 # every row goes by a message
run=("$program" run --preset tiny --seed 3 --tokens "$(seq -s , 200 -1 1)" --threads 1 --layout map.json --watchdog 3)
row=384 # bytes: 96 numbers
printf '{"attention":[0,1,2],"experts":[0,1,2,0,1,2,0,1],"vocabulary":[0,1,2,0]}' >map.json

cat >one-rank.sh <<'SCRIPT'
#!/bin/bash
# one-rank.sh RANK NAME=VALUE COMMAND...: only that rank with the library, and this in its environment
if [ "$OMPI_COMM_WORLD_RANK" != "$1" ]; then exec "${@:4}"; fi
echo $$ >pid
exec env LD_PRELOAD="$2" "$3" "${@:4}"
SCRIPT
well mpirun -n 3 bash one-rank.sh 1 "$hang" "HANG_TELL=$PWD/sent" "${run[@]}"

# What a rank sends while experts work is for `combine`, which begins then.
mapfile -t sent < <(awk '{ if ($3 == "experts") $3 = "combine"; print }' sent)
phases=()
for line in "${sent[@]}"; do
    read -r _ layer phase to _ <<<"$line"
    case " ${phases[*]} " in *" $layer:$phase:$to "*) ;; *) phases+=("$layer:$phase:$to") ;; esac
done
check 'the messages of a run' 'in each exchange' test "$(printf '%s\n' "${phases[@]}" | cut -d : -f 2 | sort -u | xargs)" = \
    'combine dispatch embedding gather output sum'

# hangs FAULT NUMBER WORDS LINE...: the run must end so, and say just these lines among others.
hangs() {
    local line seen
    watch mpirun -n 3 bash one-rank.sh 1 "$hang" "HANG=$1=$2" "${run[@]}"
    checks=$((checks + 1))
    seen=$(printf 'exit code %d\n' "$status" && grep -av '^ *$' "$logs/err")
    [ "$status" = 70 ] || fail "$1: message $2 of rank 1" 'exit code 70' "$seen"
    grep -qaF "expertmesh: $3, and no rank has moved for 3 s (--watchdog): the job ends" "$logs/err" ||
        fail "$1: message $2 of rank 1" "$3" "$seen"
    for line in "${@:4}"; do
        grep -qaxF "  $line" "$logs/err" || fail "$1: message $2 of rank 1" "$line" "$seen"
    done
}

# From the last message of each exchange of layer 1, or outside of layers, to rank 2: rank 1 goes on to where it waits for all.
for which in embedding gather sum dispatch combine output; do
    number=0 rows=0 of=-1
    for line in "${sent[@]}"; do
        read -r n layer phase to bytes <<<"$line"
        if [ "$phase" = $which ] && [ "$to" = 2 ] && [ "$layer" != 0 ]; then number=$n rows=$((bytes / row)) of=$layer; fi
    done
    place=$which
    [ "$of" = -1 ] || place="layer $of, $which"
    hangs lose "$number" 'every rank waits for others' "rank 2: $place, waiting for rows of other hosts, for $rows rows of rank 1"
done

# In the first of layer 1, so that both others wait for its rows.
first() { # EXCHANGE: the number of it, and the rows for each
    local n layer phase to bytes
    number=0 rows_0=0 rows_2=0
    for line in "${sent[@]}"; do
        read -r n layer phase to bytes <<<"$line"
        if [ "$phase" != "$1" ] || [ "$layer" != 1 ]; then continue; fi
        if [ "$number" = 0 ]; then number=$n; fi
        eval "rows_$to=\$((rows_$to + bytes / row))"
    done
}
first dispatch
hangs stay "$number" 'rank 1 answers, but is stuck in its own work' 'rank 1: layer 1, dispatch' \
    "rank 0: layer 1, dispatch, waiting for rows of other hosts, for $rows_0 rows of rank 1" \
    "rank 2: layer 1, dispatch, waiting for rows of other hosts, for $rows_2 rows of rank 1"
# What goes home sets out while experts work, and is waited for when all of them are done.
first combine
hangs stay "$number" 'rank 1 answers, but is stuck in its own work' 'rank 1: layer 1, experts' \
    'ranks 0,2: layer 1, combine, waiting for all ranks'

# Where nothing is said of it there is a watchdog: a thread more than with none.
threads() { # OPTION...: of rank 1 while it stays in its first message
    local mpi
    rm -f pid told
    mpirun -n 3 bash one-rank.sh 1 "$hang" "HANG=stay=1" env "HANG_TELL=$PWD/told" "${run[@]::${#run[@]}-2}" "$@" >out 2>err </dev/null &
    mpi=$!
    until [ -s told ] || ! kill -0 $mpi 2>/dev/null; do sleep 0.05; done
    find "/proc/$(cat pid)/task" -mindepth 1 -maxdepth 1 | wc -l
    kill "$mpi"
    wait "$mpi"
}
none=$(threads --watchdog 0 2>/dev/null) usual=$(threads 2>/dev/null)
check 'threads of a rank with and without --watchdog 0' 'one more without' test "$usual" = $((none + 1)) -a "$none" -gt 0
well "$program" run --help
check 'run --help' 'what is usual' grep -qE -- '--watchdog SECONDS .*\(600\)' "$logs/out"
finish
