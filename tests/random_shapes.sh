#!/bin/bash
# random_shapes.sh PROGRAM SOURCES SCRATCH: models of random shapes against the independent double-precision model: odd sizes,
# 1 layer, 1 expert, S = E, 1 token, K = H. SHAPES_SEED repeats a failure; SHAPES how many.
set -euo pipefail
program=$1 scratch=$3
rm -rf "$scratch" && mkdir -p "$scratch" && cd "$scratch"
RANDOM=${SHAPES_SEED:-20261}
pick() { echo $((RANDOM % ($2 - $1 + 1) + $1)); } # from $1 to $2

check() { # NAME MODEL_OPTION...
    local ranks
    ranks=$(pick 1 5)
    "$program" init "${@:2}" -o w.h5 --force >out 2>err || { echo "${*:2}"; cat err; exit 1; }
    mpirun -n "$ranks" "$program" run --weights w.h5 --tokens-file prompts --trace t.h5 --force >out 2>err ||
        { echo "${*:2}"; cat err; exit 1; }
    "$REFERENCE" w.h5 t.h5 >table || { echo "$1 on $ranks ranks: ${*:2}"; cat prompts table; exit 1; }
}

storages=(f32 bf16 int8) kinds=(glu mlp)
for ((i = 0; i < ${SHAPES:-24}; i++)); do
    kv_heads=$(pick 1 4) experts=$(pick 1 9)
    selected=$(pick 1 "$experts")
    case $((i % 6)) in
        0) experts=1 selected=1 ;;
        1) selected=$experts ;;
    esac
    shape=(--preset tiny --seed "$i" --emb-size "$(pick 1 70)" --num-layers "$(pick 1 3)" --num-kv-heads "$kv_heads"
        --num-q-heads $((kv_heads * $(pick 1 3))) --key-size $((2 * $(pick 1 9))) --num-experts "$experts"
        --num-selected-experts "$selected" --ffn-size "$(pick 1 90)" --vocab-size "$(pick 20 300)"
        --ffn-kind "${kinds[i % 2]}" --storage "${storages[i % 3]}")
    for ((p = 0; p <= i % 4; p++)); do seq -s ' ' "$(pick 0 5)" "$(pick 1 3)" $((5 + p * 2)); done >prompts
    [ $((i % 5)) != 0 ] || echo 7 >prompts # one token
    check "shape $i" "${shape[@]}"
done
echo "${SHAPES:-24} random shapes agree with the reference"
