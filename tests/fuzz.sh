#!/bin/bash
# tests/fuzz.sh: one reader of foreign files against bytes that libFuzzer makes up, for a minute, or EXPERTMESH_FUZZ_SECONDS:
# no crash, no hang, no allocation beyond what a file of that size has a use for.
#
#   fuzz.sh FUZZER CORPUS SCRATCH       FUZZER as tests/fuzz/fuzz.c was compiled for the reader
#
# New inputs that reach new code stay in SCRATCH; a failure names the file that caused it.
set -uo pipefail

fuzzer=$1 corpus=$2 scratch=$3
seconds=${EXPERTMESH_FUZZ_SECONDS:-60}
mkdir -p "$scratch/found" && cd "$scratch" || exit
ulimit -c 0
# The address space of a sanitizer cannot be limited, but libFuzzer counts what is allocated.
timeout -k 5 $((seconds + 240)) "$fuzzer" -max_total_time="$seconds" -timeout=10 -max_len=65536 -malloc_limit_mb=4 -rss_limit_mb=1024 -print_final_stats=1 \
    -verbosity=0 -close_fd_mask=1 found "$corpus" >log 2>&1
code=$?
if [ "$code" != 0 ]; then
    printf 'fuzz: %s ended with %d; in %s:\n' "$fuzzer" "$code" "$scratch"
    grep -av '^stat::' log | tail -n 60
    exit 1
fi
grep -a 'number_of_executed_units\|new_units_added\|peak_rss' log
