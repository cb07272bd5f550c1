#!/bin/bash
# tests/bad_checkpoints.sh: checkpoints that are damaged, or meant to do harm, are refused with what is wrong and where, and
# leave nothing behind; and nothing in them is executed.
#
#   bad_checkpoints.sh PROGRAM SOURCES SCRATCH
# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh" "$@"
checkpoints=${CHECKPOINTS:?}
python_with h5py numpy

for name in official transformer model; do well "$checkpoints" $name $name w-$name.h5; done
well "$checkpoints" gguf gguf.gguf w-gguf.h5
well "$checkpoints" gguf-split split w-split.h5
well "$python" "$sources/tests/hostile.py"
cp "$logs/out" "$logs/hostile"
checks=$((checks + 1))
if [ "$(wc -l <"$logs/hostile")" -lt 80 ]; then fail hostile.py '80 checkpoints or more' "$(cat "$logs/hostile")"; fi

# Copies of the official form are links to it.
links() { if [ -d "$1" ] && [ -e "$1/tensor00003_000" ]; then echo --follow-links; fi; }
while IFS=$'\t' read -r -a row; do
    # shellcheck disable=SC2046 # an option or nothing
    ranks=1 refuse 65 "${row[@]:1}" -- import "${row[0]}" -o out.h5 --config official.json $(links "${row[0]}")
done < <(sed -n '/^command2/,/^layers/p' "$logs/hostile")
while IFS=$'\t' read -r -a row; do
    ranks=1 refuse 65 "${row[@]:1}" -- import "${row[0]}" -o out.h5
done < <(sed '1,/^layers/d' "$logs/hostile")
for name in command4 infinite; do
    ranks=4 refuse 65 tensor00001_000 -- import $name -o out.h5 --config official.json --follow-links
done
ranks=4 refuse 65 lm_head.weight -- import head -o out.h5
if [ -e harm ]; then fail 'import of hostile pickles' 'no command run' 'a file that one of them made'; fi

# ---- links out of the folder, where they are not asked for ----
ranks='1 4' refuse 65 'leads out of its folder' --follow-links -- import command4 -o out.h5 --config official.json
well "$program" import path-link --follow-links -o linked.h5
check 'linked.h5' 'the same as without links' "$checkpoints" same w-model.h5 linked.h5
well "$program" import gguf-link --follow-links -o linked-gguf.h5
check 'linked-gguf.h5' 'the same as without links' "$checkpoints" same w-split.h5 linked-gguf.h5

# ---- inputs that are not there, and outputs that cannot be ----
mkdir empty
mkfifo pipe
refuse 66 absent 'No such file' -- import absent -o out.h5
ranks=1 refuse 66 pipe 'not a plain file' -- import pipe -o out.h5
ranks=1 refuse 66 empty 'holds no checkpoint' -- import empty -o out.h5
ranks=1 refuse 65 'name its folder' -- import official/tensor00000_000 -o out.h5
ranks=1 refuse 65 w-model.h5 -- import w-model.h5 -o out.h5
ranks=1 refuse 66 nothing.json -- import model -o out.h5 --config nothing.json
ranks=1 refuse 64 'say where to write' -- import model
ranks=1 refuse 64 'a file name is missing' -- import -o out.h5
ranks=1 refuse 73 linked.h5 --force -- import model -o linked.h5
ranks=1 refuse 73 'absent' -- import model -o absent/out.h5
ranks='1 4' refuse 64 '--layers' '0 to 11' -- import model -o out.h5 --layers 3-12
ranks=1 refuse 64 '--experts' -- import model -o out.h5 --experts 2,
ranks=1 refuse 65 num_selected_experts -- import model -o out.h5 --experts 2
ranks=1 refuse 64 '--storage' -- import model -o out.h5 --storage f16

finish
