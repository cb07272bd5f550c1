#!/bin/bash
# numerics.sh PROGRAM SOURCES SCRATCH: each published program's arithmetic, and each single difference, against the reference
# in double precision; the same bits on other ranks; where two kinds part, and which differences a norm cancels.
# shellcheck source=tests/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh" "$@"
python_with h5py

# Weights large enough that the differences show: a router's logits reach the soft cap.
shape=(--preset tiny --num-experts 8 --emb-size 96)
well "$program" init "${shape[@]}" --seed 5 -o glu.h5
well "$program" init "${shape[@]}" --ffn-kind mlp --seed 6 -o mlp.h5
tokens='3,1,4,1,5,9,2,6,5,3,5,8,9'

# as OPTIONS IS REFERENCE-OPTIONS: the run agrees with the reference that does the same, on 1 and 3 ranks bit for bit.
as() {
    local weights
    for weights in glu mlp; do
        rm -f a.h5 b.h5
        # shellcheck disable=SC2086 # words
        well "$program" run --weights $weights.h5 --tokens "$tokens" $1 --trace a.h5
        # shellcheck disable=SC2086
        well mpirun -n 3 "$program" run --weights $weights.h5 --tokens "$tokens" $1 --trace b.h5
        well "$program" compare a.h5 b.h5
        # shellcheck disable=SC2086
        check "$weights, run $1" 'as the reference' "$REFERENCE" $weights.h5 a.h5 $2
        cp a.h5 "$weights-$3.h5"
    done
}
as '' '' jax
as '--numerics jax' '' jax2
as '--numerics llama.cpp' '--renormalise-floor 6.103515625e-5' llama
as '--numerics vllm' '--renormalise-floor 0 --router-softcap 30 --scale-attention' vllm
as '--numerics sglang' '--router-softcap 30' sglang
as '--router-softcap 0.5' '--router-softcap 0.5' cap
as '--router-renormalise' '--renormalise-floor 0' renormalised
as '--gelu erf' '--gelu-erf' erf
as '--numerics vllm --gelu erf --router-softcap 2' '--renormalise-floor 0 --router-softcap 2 --scale-attention --gelu-erf' mixed
well "$program" compare glu-jax.h5 glu-jax2.h5

# The reference would notice: each against arithmetic that it did not do.
for wrong in '--router-softcap 0.5' '--renormalise-floor 0' '--gelu-erf'; do
    # shellcheck disable=SC2086 # words
    watch "$REFERENCE" glu.h5 glu-jax.h5 $wrong
    checks=$((checks + 1))
    [ "$status" = 1 ] || fail "reference $wrong on what jax does" 'exit code 1' "$status: $(cat "$logs/out")"
done

# parts A B QUANTITY TOLERANCE [LAYER]: they part in that layer (0), at that quantity.
parts() {
    local what="they part in layer ${5-0}, at $3"
    watch "$program" compare "$1" "$2" --tolerance "$4"
    checks=$((checks + 1))
    grep -qxF "$what" "$logs/out" || fail "compare $1 $2" "$what" "$(tail -3 "$logs/out")"
}
parts glu-jax.h5 glu-cap.h5 router_logits 0
parts glu-jax.h5 glu-renormalised.h5 expert_weights 0
parts glu-jax.h5 glu-erf.h5 ffn_hidden 0
parts mlp-jax.h5 mlp-erf.h5 ffn_hidden 1e-5
# A factor of a token's experts, or of attention's output, is cancelled by the norm after it, but for its epsilon.
parts glu-jax.h5 glu-renormalised.h5 expert_weights 1e-3
for quantity in ffn_out resid_post; do
    check "renormalised against as released" "$quantity the same within 1e-3" grep -qE "^$quantity .* same\$" "$logs/out"
done
as '--numerics sglang --router-renormalise' '--router-softcap 30 --renormalise-floor 0' nearly-vllm # but for attention's factor
watch "$program" compare glu-nearly-vllm.h5 glu-vllm.h5 --tolerance 1e-3
for quantity in attn_out resid_mid; do
    check "a factor on attention's output" "$quantity the same within 1e-3" grep -qE "^$quantity .* same\$" "$logs/out"
done
# A soft cap and another GELU are not: the experts' sum differs behind its norm.
for other in cap erf; do
    watch "$program" compare glu-jax.h5 glu-$other.h5 --tolerance 1e-6
    for quantity in ffn_out resid_post; do
        check "$other against as released" "$quantity differs" grep -qE "^$quantity .* DIFFERS\$" "$logs/out"
    done
done
watch "$program" compare glu-jax.h5 glu-cap.h5 --tolerance 1e-2
check 'a soft cap' 'ffn_out differs by more than a hundredth' grep -qE '^ffn_out .* DIFFERS$' "$logs/out"
# Where they part is the layer that differs: here the router of layer 1 alone reaches a cap.
cp glu.h5 flat.h5
check 'a flat router in layer 0' made "$python" -c "
import h5py
with h5py.File('flat.h5', 'r+') as file: file['layers/000/router'][...] = 0"
for cap in 0 0.5; do well "$program" run --weights flat.h5 --tokens "$tokens" --router-softcap $cap --trace flat-$cap.h5; done
parts flat-0.h5 flat-0.5.h5 router_logits 0 1
well "$program" inspect glu-vllm.h5
check 'inspect' 'the arithmetic in words' grep -q 'numerics .*soft-capped at 30; weights of experts renormalised' "$logs/out"

run=(run --preset tiny --tokens 1)
refuse 64 '--numerics: "torch" is not jax, llama.cpp, vllm or sglang' -- "${run[@]}" --numerics torch
refuse 64 '--router-softcap: -1 is not' -- "${run[@]}" --router-softcap -1
refuse 64 '--router-softcap' 'finite' -- "${run[@]}" --router-softcap nan
refuse 64 '--gelu: "relu" is not tanh or erf' -- "${run[@]}" --gelu relu
finish
