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
    timeout 120 mpirun -n 1 -wdir a "$program" "${@:2}" : -n 1 -wdir b "$program" "${@:2}" >out 2>err || status=$?
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
grep -q 'w.h5: rank 1 on .* reads another file there than rank 0: it holds another model' err
# Of one model, but with other numbers; then the same file, but longer.
"$program" init --preset tiny --num-layers 2 --seed 8 -o b/w.h5 --force >out 2>err
apart 65 run --weights w.h5 --tokens '1 2 3'
grep -q 'w.h5: rank 1 on .* reads another file there than rank 0: /[a-z0-9/_]* holds other numbers' err
cp a/w.h5 b/w.h5
echo >>b/w.h5
apart 65 run --weights w.h5 --tokens '1 2 3'
grep -q 'w.h5: rank 1 on .* it has [0-9]* bytes, that of rank 0 [0-9]*;' err
rm b/w.h5
apart 66 run --weights w.h5 --tokens '1 2 3'
grep -q "w.h5.* (rank 1 on $(hostname); 1 of 2 ranks found no fault)" err

# Arguments, and another revision of the program: the same sources built with other words for it.
timeout 120 mpirun -n 1 "$program" presets : -n 1 "$program" init -o x.h5 >out 2>err && exit 1
grep -q "different arguments: rank 0 with \"presets\", but rank 1 on $(hostname) with \"init -o x.h5\"" err
status=0
timeout 120 mpirun -n 2 "$program" presets : -n 1 "$OTHER" presets >out 2>err || status=$?
[ $status = 64 ] && [ "$(grep -c '^expertmesh: ' err)" = 1 ]
grep -q "different programs: rank 0 is expertmesh .*, but rank 2 on $(hostname) is expertmesh 0.0.7 (of another day), library" err
# What is compared: also the compiler, the order of bytes, their number in a word, and MPI.
grep -qE 'compiler .*, (little|big)-endian, (32|64)-bit, .*Open MPI .*rank 2 .*compiler .*, (little|big)-endian, (32|64)-bit, .*Open MPI' err

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
    timeout 120 mpirun -n 2 "$program" run "${model[@]}" : \
        -n 1 env EXPERTMESH_RANKS_PER_HOST="$wrong" "$program" run "${model[@]}" >out 2>err || status=$?
    [ $status = 64 ] && grep -q "EXPERTMESH_RANKS_PER_HOST is \"$wrong\"" err
    [ "$(grep -c '^expertmesh: ' err)" = 1 ]
done
echo 'ranks that do not see the same are told so'
