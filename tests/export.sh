#!/bin/bash
# tests/export.sh: what `export` gives to other tools, against the datasets; whole files or none; and what it refuses.
#
#   export.sh PROGRAM SOURCES SCRATCH
# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh" "$@"
python_with h5py numpy

well mpirun -n 3 "$program" run --preset tiny --num-layers 3 --num-experts 5 --num-selected-experts 3 --seed 4 \
    --prompt-file "$sources/data/prompt.txt" --trace whole.h5 --trace-only expert_indices,expert_weights --trace-layers 0,2
well "$program" run --preset tiny --seed 4 --tokens 1,2,3 --trace few.h5 --trace-only expert_indices
well "$program" run --preset tiny --seed 4 --tokens 1,2,3 --trace none.h5 --trace-only logits

# as TRACE FORM: every export of a trace, to a file and to standard output.
list=$logs/list
exported() {
    local form
    for form in csv json; do
        for kind in counts routing; do
            well "$program" export "$1" $kind -o "$1.$kind.$form"
            well "$program" export "$1" $kind --format $form
            check "export $1 $kind" 'the same in a file and on standard output' cmp "$logs/out" "$1.$kind.$form"
            printf '%s\texported\t%s\t%s\t%s\t%s\n' "export $1 $kind -o $form" "$1.$kind.$form" "$1" $kind $form >>"$list"
        done
    done
}
exported whole.h5
exported few.h5
cp whole.h5 growing.h5
"$python" - <<'PYTHON'
import h5py
with h5py.File("growing.h5", "r+") as file:
    file["tokens_done"][()], file["step_tokens"][()], file["layers_done"][()] = 15, 6, 1
    file.attrs["complete"] = 0
PYTHON
exported growing.h5
check "$(wc -l <"$list") exports" 'what the datasets hold' "$python" -W ignore "$sources/tests/inspected.py" "$list"
well "$program" export whole.h5
check 'export whole.h5' 'counts as CSV' cmp "$logs/out" whole.h5.counts.csv
well mpirun -n 4 "$program" export whole.h5 -o again.json
check 'export at 4 ranks' 'the same' cmp again.json whole.h5.counts.json
well "$program" export whole.h5 routing -o again.json --force
check 'export --force' 'another file in its place' cmp again.json whole.h5.routing.json

# ---- what it refuses ----
refuse 64 'what is "count"?' 'the nearest is counts' -- export whole.h5 count
ranks=1
refuse 64 '--format' '"xml"' -- export whole.h5 --format xml
refuse 64 'a file name is missing' -- export
cp whole.h5 damaged.h5
"$python" -c 'import h5py; f = h5py.File("damaged.h5", "r+"); f["expert_indices"][1, 4, 0] = 5; f["expert_load"][0, 0] = -1'
refuse 65 'damaged.h5' 'expert_indices of layer 2 has 5' '0 to 4' -- export damaged.h5 routing -o out.csv
refuse 65 'damaged.h5' 'expert_load of layer 0 has -1' -- export damaged.h5 -o out.csv
refuse 65 'none.h5' 'expert_indices was not recorded' '--trace-only' -- export none.h5 routing
refuse 65 'none.h5' 'expert_indices was not recorded' -- export none.h5 routing -o out.csv
refuse 66 'nowhere.h5' -- export nowhere.h5
ranks='1 4' refuse 73 'again.json' 'is there already' -- export whole.h5 -o again.json
refuse 73 'folder/x.csv' -- export whole.h5 -o folder/x.csv
refuse 73 'would replace' -- export whole.h5 -o ./whole.h5 --force
# Nor what is written before it has its name.
cp whole.h5 new.csv.partial
refuse 73 'would replace new.csv.partial' -- export new.csv.partial routing -o ./new.csv
check 'an input named like what is written' 'it as it was' cmp whole.h5 new.csv.partial
echo '{}' >c.json.partial
refuse 73 'would replace c.json.partial' -- init --preset tiny --config c.json.partial -o c.json
# shellcheck disable=SC2016 # the inner shell's words
refused 73 limited.csv 'cannot be written' -- bash -c 'ulimit -f 1; exec "$0" "$@"' "$program" export whole.h5 routing -o limited.csv
well "$program" export whole.h5 counts -o counts
well "$program" export whole.h5 counts -o counts --force
if [ -w /dev/full ]; then
    checks=$((checks + 1))
    "$program" export whole.h5 >/dev/full 2>"$logs/err"
    status=$?
    if [ $status != 73 ]; then fail 'export to a full disk' 'exit code 73' "$status: $(cat "$logs/err")"; fi
fi

finish
