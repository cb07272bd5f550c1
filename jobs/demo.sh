#!/bin/bash
# jobs/demo.sh: from a fresh clone to a trace: install what is missing, build, run the demo model on data/prompt.txt.
#
#   jobs/demo.sh [-n RANKS] [-o TRACE] [-- OPTION...]
#
#   -n RANKS    MPI ranks to run on (4)
#   -o TRACE    where the trace goes (build/demo-trace.h5); a file of that name is replaced
#   OPTION...   passed on to `expertmesh run`
#
# Ends with the program's exit code, 64 for wrong usage, 69 when packages are missing and cannot be installed from here.
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# shellcheck source=setup.sh
. "$top/jobs/setup.sh"

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; }
wrong() {
    printf 'demo: %s (--help says more)\n' "$*" >&2
    exit 64
}
# A path as one would type it from here.
short() { case $1 in "$PWD"/*/*) printf '%s\n' "${1#"$PWD"/}" ;; *) printf '%s\n' "$1" ;; esac; }

ranks=4 trace=
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help)
            usage
            exit 0
            ;;
        -n | -o)
            [ $# -ge 2 ] || wrong "$1 needs a value"
            if [ "$1" = -n ]; then ranks=$2; else trace=$2; fi
            shift 2
            ;;
        --)
            shift
            break
            ;;
        *) wrong "what is $1? options for expertmesh come after --" ;;
    esac
done
case $ranks in '' | *[!0-9]* | 0*) wrong "-n wants a number of ranks, not '$ranks'" ;; esac

setup_packages run
build=$(setup_build_folder "$top")
printf 'demo: building in %s\n' "$(short "$build")" >&2
setup_build "$top" "$build" -DCMAKE_BUILD_TYPE=Release -DEXPERTMESH_TESTS=OFF

# shellcheck source=mpi-env.sh
. "$top/jobs/mpi-env.sh" "$ranks"
command=(mpirun -n "$ranks" "$(short "$build/expertmesh")" run --preset demo --seed 1
    --prompt-file "$(short "$top/data/prompt.txt")" --trace "${trace:-$(short "$build/demo-trace.h5")}" --force "$@")
printf 'demo: ' >&2
printf '%q ' "${command[@]}" >&2
printf '\n' >&2
exec "${command[@]}" </dev/null
