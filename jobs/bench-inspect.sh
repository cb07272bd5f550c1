#!/bin/bash
# jobs/bench-inspect.sh: how long `expertmesh inspect` takes over a trace of 64 layers and 2,048 tokens, and how much memory.
#
#   jobs/bench-inspect.sh [PROGRAM]
#
#   PROGRAM   another than the one of build/, which is built when it is not there
#
# Runs a narrow model of 64 layers (8 experts of 256 neurons, 2 selected) on one rank with a trace of everything, some 0.7 GB
# in TMPDIR, which is removed; then each subject once to warm the page cache and five times: median seconds and the most that
# the process held. Targets: under 1 s and 500 MB. Ends with 0 whatever the figures.
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# shellcheck source=setup.sh
. "$top/jobs/setup.sh"
program=${1-}
if [ -z "$program" ]; then
    setup_packages run
    build=$(setup_build_folder "$top")
    setup_build "$top" "$build" -DCMAKE_BUILD_TYPE=Release -DEXPERTMESH_TESTS=OFF >&2
    program=$build/expertmesh
fi
program=$(realpath "$program")
# shellcheck source=mpi-env.sh
. "$top/jobs/mpi-env.sh" 1
export OMPI_MCA_ess_singleton_isolated=1

folder=$(mktemp -d "${TMPDIR:-/tmp}/expertmesh-inspect-XXXXXX")
trap 'rm -rf -- "$folder"' EXIT
cd "$folder"
shape=(--preset tiny --num-layers 64 --seed 1)
awk 'BEGIN { for (i = 0; i < 2048; i++) printf "%s%d", i ? "," : "", (i * i * 7 + i) % 256; print "" }' >tokens
"$program" run "${shape[@]}" --tokens-file tokens --trace trace.h5 >/dev/null
"$program" init "${shape[@]}" -o weights.h5 >/dev/null
printf 'a trace of 64 layers and 2,048 tokens, %s bytes\n\n| inspect | seconds | peak memory |\n|---|---|---|\n' "$(stat -c %s trace.h5)"

# measure ARGUMENT...
measure() {
    python3 - "$program" "$@" <<'PYTHON'
import resource, statistics, subprocess, sys, time
seconds = []
for _ in range(6):
    start = time.monotonic()
    subprocess.run([sys.argv[1], "inspect", *sys.argv[2:]], check=True, stdout=subprocess.DEVNULL)
    seconds.append(time.monotonic() - start)
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(f"| {' '.join(sys.argv[2:])} | {statistics.median(seconds[1:]):.2f} | {peak / 1e3:.0f} MB |")
PYTHON
}
measure trace.h5
measure trace.h5 experts
measure trace.h5 token 1000
measure trace.h5 exchange
measure trace.h5 neurons
measure trace.h5 neurons --layer 17
measure trace.h5 experts -o json
measure weights.h5
measure weights.h5 neuron --layer 17 --expert 3 --neuron 100 --trace trace.h5 --token 1000
