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

# With every set of instructions that this processor has, on several threads.
for name in article grok1 grok1-bf16 grok1-int8; do
    expected=$cases/$name.expected.h5 threads=1 sets=
    for isa in plain avx2 avx512 amx; do
        status=0
        rm -f isa.h5
        EXPERTMESH_ISA=$isa "$program" run --weights "$cases/$name.weights.h5" --tokens "$(tokens_of "$expected")" \
            --threads $((threads++)) --trace isa.h5 --force >out 2>err || status=$?
        if [ $status = 64 ] && grep -q 'no such set' err; then continue; fi
        "$program" compare isa.h5 "$expected" --tolerance 2e-5 >table || { cat err table; exit 1; }
        sets="$sets $isa"
    done
    echo "$name: as expected with$sets"
done

# Activations rounded to bf16 or to 8 bits are near.
for way in bf16:2e-2 int8:5e-2; do
    compute=${way%:*} expected=$cases/grok1-${way%:*}.expected.h5
    for isa in avx512 amx; do
        status=0
        rm -f near.h5
        EXPERTMESH_ISA=$isa mpirun -n 2 "$program" run --weights "$cases/grok1-$compute.weights.h5" --compute "$compute" \
            --tokens "$(tokens_of "$expected")" --threads 2 --trace near.h5 --force --trace-only attn_out,logits >out 2>err || status=$?
        if [ $status = 64 ] && grep -qE 'no such set|does not have' err; then continue; fi
        "$program" compare near.h5 "$expected" --tolerance "${way#*:}" >table || { cat err table; exit 1; }
        echo "grok1-$compute, computed in $compute with $isa: attn_out and logits within ${way#*:}"
    done
done

# Another model's expected values must be noticed.
status=0
"$program" compare article-1.h5 "$cases/grok1.expected.h5" --tolerance 2e-5 >table || status=$?
[ $status = 1 ] || { echo "compare ended with $status for different models"; cat table; exit 1; }
