#!/bin/bash
# golden.sh PROGRAM SOURCES SCRATCH: the reference cases, within a relative 2-norm of 2e-5, experts identical, on 1, 2, 3, 4, 5
# and 8 ranks; the reference program agrees with them too, and compare notices a difference.
set -euo pipefail
program=$1 cases=$2/data/golden scratch=$3
rm -rf "$scratch" && mkdir -p "$scratch" && cd "$scratch"

# The tokens of a case, between commas. h5dump writes some to a line.
tokens_of() { h5dump -d /token_ids -y -w 65535 "$1" | sed -n '/DATA {/,/}/p' | tr -dc '0-9,\n' | tr -d '\n'; }

for name in article grok1 grok1-bf16 grok1-int8; do
    weights=$cases/$name.weights.h5 expected=$cases/$name.expected.h5
    for ranks in 1 2 3 4 5 8; do
        mpirun -n "$ranks" "$program" run --weights "$weights" --tokens "$(tokens_of "$expected")" \
            --trace "$name-$ranks.h5" >out 2>err || { cat out err; exit 1; }
        "$program" compare "$name-$ranks.h5" "$expected" --tolerance 2e-5 >table || { cat table; exit 1; }
        # 17 quantities and the tokens; nothing passed over
        [ "$(grep -c ' same$' table)" = 18 ] || { echo "$name on $ranks ranks: not all compared"; cat table; exit 1; }
    done
    "$REFERENCE" "$weights" "$name-3.h5" >table || { cat table; exit 1; }
    echo "$name: as expected on 1, 2, 3, 4, 5, 8 ranks"
done

# Another model's expected values must be noticed.
status=0
"$program" compare article-1.h5 "$cases/grok1.expected.h5" --tolerance 2e-5 >table || status=$?
[ $status = 1 ] || { echo "compare ended with $status for different models"; cat table; exit 1; }
