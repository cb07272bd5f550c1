#!/bin/bash
# tests/bad_files.sh: weights and traces that are missing, damaged or of another kind; outputs that cannot be.
#
#   bad_files.sh PROGRAM SOURCES SCRATCH
# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh" "$@"
python_with h5py numpy

model=(--preset tiny --num-layers 2 --emb-size 12 --ffn-size 20 --num-q-heads 4 --num-kv-heads 2 --key-size 6
    --num-experts 3 --vocab-size 40 --ffn-kind mlp --sequence-len 16)
for storage in f32 bf16 int8; do well "$program" init "${model[@]}" --storage $storage -o $storage.h5; done
# Slices of whole panels.
wide=(--preset tiny --num-layers 1 --emb-size 64 --ffn-size 256 --ffn-kind mlp)
for storage in f32 bf16; do well "$program" init "${wide[@]}" --storage $storage -o wide-$storage.h5; done
well "$program" run --weights f32.h5 --tokens 1,2,3 --trace trace.h5
well "$python" "$sources/tests/damage.py" .
cp "$logs/out" "$logs/damaged"

# ---- the same model, stored differently, is the same ----
for name in chunked gzip links; do
    well "$program" run --weights $name.h5 --tokens 1,2,3 --trace $name-trace.h5
    well "$program" compare $name-trace.h5 trace.h5
    well mpirun -n 4 "$program" run --weights $name.h5 --tokens 1,2,3 --trace $name-trace.h5 --force
    well "$program" compare $name-trace.h5 trace.h5
done

# ---- damaged weights ----
checks=$((checks + 1))
if [ "$(wc -l <"$logs/damaged")" -lt 100 ]; then fail damage.py '100 files or more' "$(cat "$logs/damaged")"; fi
while IFS=$'\t' read -r -a row; do
    ranks=${row[1]} refuse 65 "${row[@]:2}" -- run --weights "${row[0]}" --tokens 1,2,3 --trace t.h5
done <"$logs/damaged"

# ---- cut off ----
size=$(stat -c %s f32.h5)
for length in 0 1 4 7 8 9 12 16 23 24 40 47 48 64 90 95 96 97 128 200 400 544 600 680 800 1000 1200 1500 1800 2048 2500 3000 4095 \
    4096 6000 8191 $((size / 2)) $((size * 9 / 10)) $((size - 4096)) $((size - 9)) $((size - 1)); do
    head -c "$length" f32.h5 >cut.h5
    ranks=1 refuse 65 cut.h5 -- run --weights cut.h5 --tokens 1,2,3
done
for length in 0 8 96 800 $((size - 1)); do
    head -c "$length" f32.h5 >cut.h5
    ranks=4 refuse 65 cut.h5 -- run --weights cut.h5 --tokens 1,2,3
done
ranks=1 refuse 65 cut.h5 -- inspect cut.h5
for length in 0 50 3000 $(($(stat -c %s trace.h5) - 1)); do
    head -c "$length" trace.h5 >cut.h5
    ranks=1 refuse 65 cut.h5 -- inspect cut.h5
    ranks=1 refuse 65 cut.h5 -- compare trace.h5 cut.h5
done
rm cut.h5

# ---- inputs that are not there, or no files ----
refuse 66 absent.h5 'No such file or directory' -- run --weights absent.h5 --tokens 1
mkfifo pipe.h5
mkdir folder
ln -s nowhere.h5 dangling.h5
for name in absent.h5 absent/w.h5 dangling.h5 f32.h5/w.h5; do
    ranks=1 refuse 66 "$name" -- run --weights "$name" --tokens 1
    ranks=1 refuse 66 "$name" -- inspect "$name"
    ranks=1 refuse 66 "$name" -- compare trace.h5 "$name"
    ranks=1 refuse 66 "$name" -- compare "$name" trace.h5
done
for name in pipe.h5 folder; do
    refuse 66 "$name" 'not a plain file' -- run --weights "$name" --tokens 1
    refuse 66 "$name" 'not a plain file' -- inspect "$name"
    refuse 66 "$name" 'not a plain file' -- compare "$name" trace.h5
done
ranks=1 refuse 66 'No such file' -- run --weights '' --tokens 1
if [ "$(id -u)" != 0 ]; then
    cp f32.h5 secret.h5
    chmod 0 secret.h5
    refuse 66 secret.h5 'Permission denied' -- run --weights secret.h5 --tokens 1
fi

# ---- files of the other kind ----
refuse 65 trace.h5 '"expertmesh-trace"' '"expertmesh-weights"' -- run --weights trace.h5 --tokens 1
refuse 65 f32.h5 '"expertmesh-weights"' 'traces' -- compare trace.h5 f32.h5
refuse 65 other.h5 'no recorded number in common' -- compare trace.h5 other.h5
refuse 65 other.h5 'neither weights nor a trace' -- inspect other.h5
refuse 65 foreign.h5 '"netcdf-4"' -- inspect foreign.h5
refuse 65 text.h5 'not an HDF5 file' -- inspect text.h5
refuse 65 text.h5 'not an HDF5 file' -- compare text.h5 trace.h5
refuse 65 text.h5 'not an HDF5 file' -- compare trace.h5 text.h5
ranks=1 refuse 65 shape-wide.h5 '/layers/001/ffn_up' -- inspect shape-wide.h5

# ---- outputs that cannot be ----
run=(run --weights f32.h5 --tokens "1,2,3" --trace)
init=(init "${model[@]}" -o)
cp f32.h5 f32.h5.copy
cp trace.h5 kept.h5
ln -s "$PWD/f32.h5" link.h5
ln f32.h5 same.h5
printf '1 2 3\n' >tokens.txt
long=$(printf 'x%.0s' {1..300}).h5
for command in run init; do
    mapfile -t output < <(if [ $command = run ]; then printf '%s\n' "${run[@]}"; else printf '%s\n' "${init[@]}"; fi)
    refuse 73 kept.h5 'there already' '--force' -- "${output[@]}" kept.h5
    refuse 73 absent/t.h5 'absent' 'No such file or directory' -- "${output[@]}" absent/t.h5
    ranks=1 refuse 73 absent/t.h5 'absent' 'No such file or directory' -- "${output[@]}" absent/t.h5 --force
    refuse 73 kept.h5/t.h5 'kept.h5' -- "${output[@]}" kept.h5/t.h5
    refuse 73 folder 'not a plain file' -- "${output[@]}" folder
    ranks=1 refuse 73 folder 'not a plain file' -- "${output[@]}" folder --force
    ranks=1 refuse 73 pipe.h5 'not a plain file' -- "${output[@]}" pipe.h5 --force
    ranks=1 refuse 73 'empty' -- "${output[@]}" ''
    ranks=1 refuse 73 "$long" 'File name too long' -- "${output[@]}" "$long"
    refuse 73 /proc/t.h5 -- "${output[@]}" /proc/t.h5
    ranks=1 refuse 73 /dev/null 'not a plain file' -- "${output[@]}" /dev/null --force
    if [ "$(id -u)" != 0 ]; then
        chmod 555 folder
        refuse 73 folder/t.h5 'Permission denied' -- "${output[@]}" folder/t.h5
    fi
done
for name in f32.h5 ./f32.h5 link.h5 same.h5; do
    ranks=1 refuse 73 "--trace $name" 'would replace f32.h5' '--weights' -- "${run[@]}" "$name" --force
done
ranks=4 refuse 73 '--trace f32.h5' 'would replace f32.h5' '--weights' -- "${run[@]}" f32.h5 --force
refuse 73 '--trace tokens.txt' 'would replace tokens.txt' '--tokens-file' -- \
    run --weights f32.h5 --tokens-file tokens.txt --trace tokens.txt --force
cp f32.h5 w.h5.partial
refuse 73 '--trace w.h5' 'would replace w.h5.partial' '--weights' -- run --weights w.h5.partial --tokens 1 --trace w.h5

finish
