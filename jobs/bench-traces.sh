#!/bin/bash
# jobs/bench-traces.sh: how long a large trace takes to be looked at, how much memory, and what recording events costs a run.
#
#   jobs/bench-traces.sh [PROGRAM]
#
#   PROGRAM   another than the one of build/, which is built when it is not there
#
# Runs a narrow model of 64 layers (8 experts of 256 neurons, 2 selected) on 2,048 tokens, on 2 ranks, with a trace of
# everything, some 0.7 GB in TMPDIR, which is removed. Then each way to look at it once to warm the page cache and five times,
# and two ways with the trace on the disk only: median seconds and the most that the process held. Targets: 1 s for inspect,
# 5 s for report, 500 MB, 2 MB for a page.
# Then five pairs of runs, with events and without, for a long prompt and token by token. Target: 1 %.
# Ends with 0 whatever the figures.
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# shellcheck source=setup.sh
. "$top/jobs/setup.sh"
program=${1-}
case $program in
    -h | --help)
        sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
        exit 0
        ;;
esac
if [ -z "$program" ]; then
    setup_packages run
    build=$(setup_build_folder "$top")
    setup_build "$top" "$build" -DCMAKE_BUILD_TYPE=Release -DEXPERTMESH_TESTS=OFF >&2
    program=$build/expertmesh
fi
program=$(realpath "$program")
# shellcheck source=mpi-env.sh
. "$top/jobs/mpi-env.sh" 2
export OMPI_MCA_ess_singleton_isolated=1

folder=$(mktemp -d "${TMPDIR:-/tmp}/expertmesh-traces-XXXXXX")
trap 'rm -rf -- "$folder"' EXIT
cd "$folder"
shape=(--preset tiny --num-layers 64 --seed 1)
awk 'BEGIN { for (i = 0; i < 2048; i++) printf "%s%d", i ? "," : "", (i * i * 7 + i) % 256; print "" }' >tokens
mpirun -n 2 "$program" run "${shape[@]}" --tokens-file tokens --trace trace.h5 >/dev/null 2>&1
"$program" init "${shape[@]}" -o weights.h5 >/dev/null 2>&1

# measure ARGUMENT...: one line of the first table; "cold" before them: each time the page cache forgets the trace.
measure() {
    python3 - "$program" "$@" <<'PYTHON'
import os, resource, statistics, subprocess, sys, time
seconds = []
cold = sys.argv[2] == "cold" and sys.argv.pop(2) == "cold"
for _ in range(6):
    if cold:
        with open("trace.h5", "rb+") as trace:
            os.fsync(trace)
            os.posix_fadvise(trace.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    start = time.monotonic()
    subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
    seconds.append(time.monotonic() - start)
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
words = " ".join(word for word in sys.argv[2:] if word != "--force")
words += ", from the disk" if cold else ""
print(f"| {words} | {statistics.median(seconds[1:]):.2f} | {peak / 1e3:.0f} MB |")
PYTHON
}
printf 'A trace of 64 layers and 2,048 tokens, %s bytes:\n\n| expertmesh | seconds | peak memory |\n|---|---|---|\n' \
    "$(stat -c %s trace.h5)"
measure inspect trace.h5
measure inspect trace.h5 experts
measure inspect trace.h5 token 1000
measure inspect trace.h5 exchange
measure inspect trace.h5 neurons
measure inspect trace.h5 neurons --layer 17
measure inspect trace.h5 experts -o json
measure inspect weights.h5
measure inspect weights.h5 neuron --layer 17 --expert 3 --neuron 100 --trace trace.h5 --token 1000
measure report trace.h5 -o page.html --force
measure report trace.h5 trace.h5 -o two.html --force
measure cold report trace.h5 -o page.html --force
measure cold inspect trace.h5 experts
measure timeline trace.h5 -o timeline.json.gz --force
measure export trace.h5 routing -o routing.csv --force
printf '\nThe pages: %s and %s bytes.\n' "$(stat -c %s page.html)" "$(stat -c %s two.html)"

# What the phase trace takes with events, less what it takes without, as a part of the run without.
# events RANKS NAME ARGUMENT...
events() {
    python3 - "$program" "$@" <<'PYTHON'
import json, statistics, subprocess, sys
program, ranks, name, *arguments = sys.argv[1:]

def seconds(recorded):
    quiet = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run(["mpirun", "-n", ranks, program, "run", *arguments, "--trace", "e.h5", "--trace-only",
                    recorded, "--force"], **quiet)
    told = subprocess.run([program, "inspect", "e.h5", "exchange", "--table", "ranks", "-o", "json"], check=True,
                          capture_output=True).stdout
    rows = json.loads(told)["ranks"]
    return max(row["trace"] for row in rows), max(row["total"] for row in rows)

pairs = [(seconds("expert_weights"), seconds("expert_weights,events")) for _ in range(5)]
without, with_events, run, run_with = (statistics.median(column) for column in
                                       zip(*((a[0], b[0], a[1], b[1]) for a, b in pairs)))
print(f"| {name}, {ranks} rank{'s' if ranks != '1' else ''} | {1e3 * run:.0f} | {1e3 * run_with:.0f} | {1e3 * without:.2f} | "
      f"{1e3 * with_events:.2f} | {100 * (with_events - without) / run:.2f} % |")
PYTHON
}
printf '\nEvents, milliseconds of the rank that took most:\n\n'
printf '| run | all of it without events | with | phase trace without | with | events in it, of all |\n|---|---|---|---|---|---|\n'
for ranks in 1 2; do
    events $ranks 'demo, a prompt of 1,754 tokens' --preset demo --prompt-file "$top/data/prompt.txt"
    events $ranks 'demo, 300 tokens one by one' --preset demo --prompt Hello --generate 300
    events $ranks 'tiny, 1,000 tokens one by one' --preset tiny --prompt Hello --generate 1000
done
