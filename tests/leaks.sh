#!/bin/bash
# tests/leaks.sh PROGRAM SOURCES SCRATCH: a long generation keeps nothing that it does not need. Built with the sanitizers, the
# program itself tells of memory that it lost; else its peak after 1,000 tokens is held against that after 100.
# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh" "$@"

generation=(run --preset tiny --prompt neuron --threads 2)

# peak TOKENS: generate, and print the peak of memory in kB.
peak() {
    if ! "$program" "${generation[@]}" --generate "$1" >"$logs/out" 2>"$logs/err"; then
        cat "$logs/err" >&2
        return 1
    fi
    sed -nE 's/^peak memory by rank: ([0-9]+)\.([0-9]{2}) MB$/\1\20/p' "$logs/out"
}

long=$(peak 1000) || { echo "leaks: FAILED: 1,000 tokens"; exit 1; }
if [[ $(ldd "$program") == *libasan* ]]; then
    echo 'leaks: 1,000 tokens, and nothing was lost'
    exit 0
fi
short=$(peak 100) || { echo "leaks: FAILED: 100 tokens"; exit 1; }
# keys and values of 900 tokens: 2 layers, 2 heads of 16, 4 bytes, both; and 1 MB for what an allocator rounds
allowed=$((900 * 2 * 2 * 16 * 4 * 2 / 1000 + 1000))
if [ $((long - short)) -gt "$allowed" ]; then
    echo "leaks: FAILED: a peak of $short kB after 100 tokens, but of $long kB after 1,000"
    exit 1
fi
echo "leaks: a peak of $short kB after 100 tokens, of $long kB after 1,000"
