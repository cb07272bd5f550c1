#!/bin/bash
# same_bits.sh PROGRAM SOURCES SCRATCH: a trace on 1, 2, 3, 4, 5, 6, 8 and 12 ranks holds the same bits: h5diff finds nothing in
# any recorded quantity. Also with fewer tokens than ranks, from a file instead of a seed, and recording only a part.
set -euo pipefail
# shellcheck source=traces.sh
. "$(dirname "${BASH_SOURCE[0]}")/traces.sh"
program=$1 scratch=$3
rm -rf "$scratch" && mkdir -p "$scratch" && cd "$scratch"

# What depends on the run and its ranks themselves.
of_ranks='run_id|dispatch_rows|phase_seconds|outer_seconds|memory_bytes|(outer_)?exchange_(rows|bytes)|source_rank|rank|events|clock_.*'
of_model() { grep -vxE "$of_ranks"; }

# same WHAT RANKS...: run with OPTIONS on 1 rank of one thread, and on each of RANKS of as many as THREADS says.
threads=1
same() {
    local what=$1 ranks
    "$program" run "${options[@]}" --threads 1 --trace one.h5 --force >out 2>err || { cat out err; exit 1; }
    h5ls one.h5 | awk '{ print $1 }' | of_model | sort >datasets
    for ranks in "${@:2}"; do
        mpirun -n "$ranks" "$program" run "${options[@]}" --threads "$threads" --trace many.h5 --force >out 2>err || { cat out err; exit 1; }
        diff datasets <(alike one.h5 many.h5 | of_model) || { echo "$what on $ranks ranks: these differ"; exit 1; }
        "$program" compare one.h5 many.h5 >table || { cat table; exit 1; }
    done
    echo "$what: $(wc -l <datasets) datasets, the same bits on 1 ${*:2} ranks"
}

printf '1 2 3\n200 100 50 25 12 6 3\n7\n%s\n' "$(seq -s ' ' 0 150)" >prompts
options=(--preset tiny --seed 3 --tokens-file prompts)
same 'tiny, 4 prompts' 2 3 4 5 6 8 12
# As if on several hosts: rows by messages, all or some.
for ranks_per_host in 1 2 4; do
    export EXPERTMESH_RANKS_PER_HOST=$ranks_per_host
    same "tiny, $ranks_per_host ranks a host" 2 3 6
done
unset EXPERTMESH_RANKS_PER_HOST
options=(--preset tiny --seed 3 --tokens '5 6')
same 'two tokens' 3 5 12
options=(--preset tiny --seed 4 --storage int8 --ffn-kind mlp --ffn-size 101 --num-q-heads 9 --num-kv-heads 3 --tokens-file prompts)
same 'odd shapes in int8' 2 4 7
options=(--preset tiny --storage bf16 --tokens-file prompts --trace-layers 1 --trace-tokens '0,3-9,160'
    --trace-only 'logits,ffn_hidden,resid_post,attn_k')
same 'a part recorded' 3 8

# Every way to store and compute, with every set of instructions here, on 2, 3 and 4 threads.
threads=2
for isa in plain avx2 avx512 amx; do
    for way in f32:f32 bf16:f32 int8:f32 bf16:bf16 int8:int8; do
        options=(--preset tiny --seed 5 --storage "${way%:*}" --compute "${way#*:}" --tokens-file prompts)
        status=0
        EXPERTMESH_ISA=$isa "$program" run "${options[@]}" >out 2>err || status=$?
        if [ $status = 64 ] && grep -qE 'no such set|does not have' err; then continue; fi
        export EXPERTMESH_ISA=$isa
        same "$isa, stored as ${way%:*}, computed in ${way#*:}, $threads threads" 4
        unset EXPERTMESH_ISA
        threads=$((threads % 3 + 2))
    done
done
threads=3

# From a file, written by one number of ranks and read by another.
mpirun -n 3 "$program" init --preset tiny --seed 3 --storage bf16 -o weights.h5 >out 2>err || { cat out err; exit 1; }
"$program" init --preset tiny --seed 3 --storage bf16 -o weights1.h5 >out 2>err
cmp weights.h5 weights1.h5
"$program" run --preset tiny --seed 3 --storage bf16 --tokens-file prompts --trace seed.h5 >out 2>err
options=(--weights weights.h5 --tokens-file prompts)
same 'from a file' 2 5
"$program" compare seed.h5 one.h5 >table || { cat table; exit 1; }

# compare must notice one flipped bit, and so must h5diff.
offset=$(h5dump -p -H -d /ffn_hidden many.h5 | awk '$1 == "OFFSET" {print $2}')
printf '\1' | dd of=many.h5 bs=1 seek=$((offset + 400)) conv=notrunc 2>/dev/null
if "$program" compare one.h5 many.h5 >table; then echo 'compare overlooked a flipped byte'; exit 1; fi
grep -q 'ffn_hidden.*DIFFERS' table
alike one.h5 many.h5 >table
if ! grep -qx logits table || grep -qx ffn_hidden table; then echo 'h5diff overlooked a flipped byte'; exit 1; fi

# A token that overflows changes no token before it: all at once, in a block of queries, as one by one. The first number of
# token 7's embedding becomes 1e30.
"$program" init --preset tiny --embedding-multiplier-scale 1e10 -o large.h5 >out 2>err
offset=$(h5dump -p -H -d /embedding large.h5 | awk '$1 == "OFFSET" {print $2}')
printf '\312\362\111\161' | dd of=large.h5 bs=1 seek=$((offset + 7 * 96 * 4)) conv=notrunc 2>/dev/null
for chunk in 1 4; do
    "$program" run --weights large.h5 --tokens 1,2,3,7 --prefill-chunk $chunk --trace chunk$chunk.h5 >out 2>err || { cat err; exit 1; }
done
"$program" compare chunk1.h5 chunk4.h5 >table || { cat table; exit 1; }
h5dump -d /attn_z chunk4.h5 >table
grep -q nan table || { echo 'no token overflows'; exit 1; }

# Nothing in common is no agreement.
"$program" run --preset tiny --tokens 1 --trace-only logits --trace a.h5 >out 2>err
"$program" run --preset tiny --tokens 1 --trace-only router_probs --trace b.h5 >out 2>err
status=0
"$program" compare a.h5 b.h5 >table 2>err || status=$?
[ $status = 65 ] || { echo "compare of traces with nothing in common ended with $status"; exit 1; }

# Token by token, with drawn tokens and prompts in chunks, or all at once: the same bits.
mpirun -n 3 "$program" run --preset tiny --storage int8 --prompt 'A neuron holds' --generate 60 --temperature 0.8 --prefill-chunk 5 \
    --trace told.h5 >out 2>err || { cat err; exit 1; }
tokens=$(h5dump -d /token_ids -y -w 65535 told.h5 | awk '/DATA {/ {p = 1; next} /}/ {if (p) exit} p' | tr -dc '0-9,')
mpirun -n 2 "$program" run --preset tiny --storage int8 --tokens "$tokens" --trace whole.h5 >out 2>err || { cat err; exit 1; }
"$program" compare told.h5 whole.h5 >table || { cat table; exit 1; }
echo 'generated token by token: the bits of one pass'
