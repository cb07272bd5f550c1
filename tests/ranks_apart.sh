#!/bin/bash
# ranks_apart.sh PROGRAM SOURCES SCRATCH: ranks that do not see the same. In folders of their own, a trace's name or a weights
# file is not one file: one message, no hang, nothing overwritten. On processors that are not alike: the bits of the plainest.
set -euo pipefail
program=$1 scratch=$3
rm -rf "$scratch" && mkdir -p "$scratch/a" "$scratch/b" && cd "$scratch"
model=(--preset tiny --tokens '1 2 3')

# apart OPTION...: rank 0 in folder a, rank 1 in folder b; must end with $1.
apart() {
    local wanted=$1 status=0
    timeout 30 mpirun -n 1 -wdir a "$program" "${@:2}" : -n 1 -wdir b "$program" "${@:2}" >out 2>err || status=$?
    [ "$status" = "$wanted" ] || { echo "exit code $status instead of $wanted: ${*:2}"; cat err; exit 1; }
    [ "$(grep -c '^expertmesh: ' err)" = 1 ] || { echo "not one message: ${*:2}"; cat err; exit 1; }
}

echo 'another file' >b/t.h5
apart 73 run "${model[@]}" --trace t.h5
grep -q 'file system that all ranks share' err
[ "$(cat b/t.h5)" = 'another file' ]
apart 73 run "${model[@]}" --trace t.h5 --force
[ "$(cat b/t.h5)" = 'another file' ]

"$program" init --preset tiny --num-layers 2 -o a/w.h5 >out 2>err
"$program" init --preset tiny --num-layers 3 -o b/w.h5 >out 2>err
apart 65 run --weights w.h5 --tokens '1 2 3'
grep -q 'rank 1 sees another model' err
rm b/w.h5
apart 66 run --weights w.h5 --tokens '1 2 3'

# the plainest set of loops that any rank has is everyone's
mpirun -n 1 env EXPERTMESH_ISA=plain "$program" run "${model[@]}" --trace mixed.h5 : \
    -n 2 "$program" run "${model[@]}" --trace mixed.h5 >out 2>err || { cat err; exit 1; }
EXPERTMESH_ISA=plain "$program" run "${model[@]}" --trace plain.h5 >out 2>err
"$program" compare mixed.h5 plain.h5 >table || { cat table; exit 1; }
status=0
EXPERTMESH_ISA=none "$program" run "${model[@]}" >out 2>err || status=$?
[ $status = 64 ] && grep -q 'EXPERTMESH_ISA is "none"' err

# one rank's wrong number of ranks a host is everyone's
for wrong in 0 two ''; do
    status=0
    timeout 30 mpirun -n 2 "$program" run "${model[@]}" : \
        -n 1 env EXPERTMESH_RANKS_PER_HOST="$wrong" "$program" run "${model[@]}" >out 2>err || status=$?
    [ $status = 64 ] && grep -q "EXPERTMESH_RANKS_PER_HOST is \"$wrong\"" err
    [ "$(grep -c '^expertmesh: ' err)" = 1 ]
done
echo 'ranks that do not see the same are told so'
