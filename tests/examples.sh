#!/bin/bash
# tests/examples.sh: the scripts of examples/ on a trace: what they print and draw is what the trace holds. One whose tool is
# missing is named and left out, and the test ends as skipped when all others are well.
#
#   examples.sh PROGRAM SOURCES SCRATCH
# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh" "$@"
python_with h5py numpy
export PYTHONDONTWRITEBYTECODE=1

well mpirun -n 3 "$program" run --preset tiny --num-layers 3 --emb-size 48 --num-q-heads 6 --num-kv-heads 2 --key-size 10 \
    --num-experts 5 --ffn-size 56 --prompt 'What is a neuron?' --trace t.h5
missing=()

# example SCRIPT TOOL [ARGUMENT...]: run it on the trace; TOOL is a command that succeeds where it can run.
example() {
    local script=$1 tool=$2 with=()
    shift 2
    if ! bash -c "$tool" >/dev/null 2>&1; then
        printf 'examples: %s left out: "%s" fails here\n' "$script" "$tool"
        missing+=("$script")
        return
    fi
    case $script in *.py) with=("$python") ;; esac
    well "${with[@]}" "$sources/examples/$script" t.h5 "$@"
    [ -f picture.svg ] || cp "$logs/out" output
    [ ! -f picture.svg ] || mv picture.svg output
    check "examples/$script t.h5 $*" 'what the trace holds' "$python" "$sources/tests/examples.py" "$script" output t.h5
}
example neurons.py true 5
example router.py "'$python' -c 'import xarray, h5netcdf'"
example cache.py true
example load.sh 'command -v gnuplot && command -v h5dump' picture.svg
example phases.R "Rscript -e 'library(rhdf5)'"

if [ "${#missing[@]}" -gt 0 ] && [ "$failures" = 0 ]; then skip "no tool here for ${missing[*]}; the others are well"; fi
finish
