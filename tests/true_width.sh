#!/bin/bash
# true_width.sh PROGRAM SOURCES SCRATCH: one layer of the `article` preset, 6,144 wide with 24,576 neurons an expert, in bfloat16,
# 64 tokens on 2 ranks within 12 GB in all; checked against the reference on three tokens.
set -euo pipefail
program=$1 scratch=$3
rm -rf "$scratch" && mkdir -p "$scratch" && cd "$scratch"
trap 'rm -f "$scratch"/*.h5 "$scratch"/*.h5.partial' EXIT

memory=$(awk '/MemAvailable/ {print int($2 / 1048576)}' /proc/meminfo)
disk=$(df -Pk . | awk 'NR == 2 {print int($4 / 1048576)}')
if [ "$memory" -lt 13 ] || [ "$disk" -lt 10 ]; then
    echo "skipped: needs 13 GiB of memory and 10 GiB of disk, and there are $memory and $disk"
    exit 77
fi

for ((t = 0; t < 64; t++)); do printf '%d ' $((t * 2003 % 131072)); done >tokens
model=(--preset article --num-layers 1 --storage bf16 --seed 3)
mpirun -n 2 "$program" init "${model[@]}" -o w.h5 >out 2>err || { cat err; exit 1; }
mpirun -n 2 "$program" run "${model[@]}" --tokens-file tokens --trace seed.h5 >out 2>err || { cat err; exit 1; }
# "peak memory by rank: 4.17 GB, 4.17 GB"
peak=$(sed -n 's/^peak memory by rank: //p' out)
awk -v peak="$peak" 'BEGIN {
    n = split(peak, part, ", ")
    for (i = 1; i <= n; i++) { split(part[i], p, " "); sum += p[1] * (p[2] == "GB" ? 1 : p[2] == "MB" ? 1e-3 : 1e9) }
    exit !(n == 2 && sum > 6.6 && sum < 12)
}' || { echo "peak memory by rank: $peak, wanted: two of them, below 12 GB together"; exit 1; }

# The reference reads weights from the file, and checks the whole attention and every neuron of three tokens.
"$REFERENCE" w.h5 seed.h5 --check-tokens 0,31,63 >table || { cat table; exit 1; }
[ "$(grep -c ' same$' table)" = 17 ] || { cat table; exit 1; }
echo "peak memory by rank: $peak; three tokens agree with the reference"
