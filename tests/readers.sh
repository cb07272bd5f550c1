#!/bin/bash
# tests/readers.sh: traces as others read them: xarray, h5py, h5dump and h5ls; the numbers in them computed again from the
# weights with NumPy; and traces of a part of a run against the whole.
#
#   readers.sh PROGRAM SOURCES SCRATCH
# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh" "$@"
need h5dump h5ls h5diff
python_with h5py numpy xarray h5netcdf
read_it=("$python" -W ignore "$sources/tests/readers.py")

# Sizes that no two axes share, and that 3 ranks do not divide evenly.
shape=(--preset tiny --num-layers 3 --emb-size 48 --num-q-heads 6 --num-kv-heads 2 --key-size 10 --num-experts 5
    --num-selected-experts 3 --ffn-size 56 --vocab-size 130 --sequence-len 64)
printf '%s\n' 'several prompts' '' 'as one batch' '!' >prompts

for kind in mlp glu; do
    for storage in f32 bf16 int8; do
        name=$kind-$storage
        well mpirun -n 3 "$program" init "${shape[@]}" --ffn-kind $kind --storage $storage --seed 11 -o $name.weights.h5
        well mpirun -n 3 "$program" run --weights $name.weights.h5 --prompt-file prompts --trace $name.h5
        check "reading $name.h5 and computing it again" 'what formats say, and the same numbers' \
            "${read_it[@]}" $name.weights.h5 $name.h5
        well h5dump $name.h5
        well h5ls -r $name.h5
        well h5dump $name.weights.h5
    done
done
# Scales by group, as the published weights have them: another program's file.
for case in grok1-int8 grok1-bf16 article; do
    well mpirun -n 3 "$program" run --weights "$sources/data/golden/$case.weights.h5" --tokens 1,5,2,9,3,3 --trace $case.h5
    check "reading $case.h5 and computing it again" 'what formats say, and the same numbers' \
        "${read_it[@]}" "$sources/data/golden/$case.weights.h5" $case.h5
done

# ---- the model again from what a trace says of it ----
well "$python" -c 'import h5py; print(h5py.File("glu-f32.h5").attrs["config_json"])'
cp "$logs/out" config.json
well "$program" run --config config.json --seed 11 --prompt-file prompts --trace again.h5
well "$program" compare again.h5 glu-f32.h5

# ---- a part: QUANTITIES LAYERS TOKENS, as the options say it and as a list ----
whole=mlp-f32
part() {
    local options=() file=part-$checks.h5
    [ "$1" = - ] || options+=(--trace-only "$1")
    [ "$2" = - ] || options+=(--trace-layers "$2")
    [ "$4" = - ] || options+=(--trace-tokens "$4")
    well mpirun -n 3 "$program" run --weights $whole.weights.h5 --prompt-file prompts --trace "$file" "${options[@]}"
    check "run ${options[*]}" 'what was named, as in the whole trace' "${read_it[@]}" --part $whole.h5 "$file" "$1" "$3" "$5"
    well "$program" compare "$file" $whole.h5
    well h5ls -r "$file"
}
all=$(seq -s , 0 27)
part router_probs - - - -
part ffn_hidden,attn_k,logits - - - -
part - 1 1 - -
part - 0,2 0,2 - -
part - - - 0 0
part - - - 27 27
part - - - 3-5,20,9-10 3,4,5,9,10,20
part attn_q,expert_indices,final_hidden 2,1 1,2 0-27 "$all"
part resid_post 2 2 14-16,15,1 1,14,15,16

finish
