#!/bin/bash
# timeline.sh PROGRAM SOURCES SCRATCH: a timeline is JSON whose slices lie in each other, whose seconds are those of the table
# of phases, whose flows are the rows that were dispatched, and whose counters are the experts' loads, on any layout.
# shellcheck source=tests/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh" "$@"
need jq h5dump

# values TRACE DATASET: numbers or words, all of them, a line each.
values() { h5dump -m %.17g -y -w 1 -d "/$2" "$1" | awk '/DATA \{/ { on = 1; next } /}/ && on { exit } on { gsub(/[ ",]/, "") } on && $0 != ""'; }

# Slices of a rank in each other: each begins in the newest that has not ended, and ends in it.
nested() {
    jq -e '[.traceEvents[] | select(.ph == "X")] | group_by(.pid) | map(
               reduce (sort_by(.ts, -.dur)[]) as $s ({ends: [], good: true};
                   .ends |= (until(length == 0 or .[-1] > $s.ts + 0.0015; .[:-1]))
                   | .good = (.good and (.ends | length == 0 or .[-1] >= $s.ts + $s.dur - 0.0025))
                   | .ends += [$s.ts + $s.dur]) | .good) | all' "$1" >/dev/null
}

# Seconds of the slices by layer, rank and phase, against phase_seconds and outer_seconds. Each slice is rounded to 0.001 us.
seconds_agree() {
    local layers=$1 ranks=$2
    values t.h5 phase >phases
    {
        values t.h5 phase_seconds | awk -v r="$ranks" 'NR == FNR { name[n++] = $1; next }
            { i = FNR - 1; print int(i / n / r), int(i / n) % r, name[i % n], $1 }' phases -
        values t.h5 outer_seconds | awk 'NR == FNR { name[n++] = $1; next }
            { i = FNR - 1; print -1, int(i / n), name[i % n], $1 }' phases -
    } | awk '$4 > 0' | sort >table
    jq -r '[.traceEvents[] | select(.ph == "X" and .args.layer != null)] | group_by([.args.layer, .pid, .name])[]
           | "\(.[0].args.layer) \(.[0].pid) \(.[0].name) \(map(.dur) | add / 1e6)"' t.json | sort >drawn
    [ "$(cut -d ' ' -f 1-3 table)" = "$(awk '{ print $1, $2, $3 }' drawn)" ] || { diff table drawn; return 1; }
    [ "$(grep -c ' attention ' table)" = $((layers * ranks)) ] || { echo 'too few phases'; return 1; }
    paste -d ' ' table drawn | awk '{ gap = $4 - $8; if (gap < 0) gap = -gap
                                      if (gap > 2e-7 + 1e-4 * $4) { print; bad = 1 } } END { exit bad }'
}

# The rows of flows are dispatch_rows between different ranks, and the counters of each expert add up to its load.
rows_agree() {
    local ranks=$1
    values t.h5 dispatch_rows | awk -v r="$ranks" '{ i = NR - 1; from = int(i / r) % r; to = i % r
        if (from != to && $1 > 0) print int(i / r / r), from, to, $1 }' | sort >table
    jq -r '[.traceEvents[] | select(.name == "dispatch" and (.ph == "s" or .ph == "f"))] | group_by(.id)
           | map({layer: .[0].args.layer, rows: .[0].args.rows, from: (map(select(.ph == "s"))[0].pid),
                  to: (map(select(.ph == "f"))[0].pid)}) | group_by([.layer, .from, .to])[]
           | "\(.[0].layer) \(.[0].from) \(.[0].to) \(map(.rows) | add)"' t.json | sort >drawn
    diff table drawn || return 1
    values t.h5 expert_load | awk -v e=8 '{ sum[(NR - 1) % e] += $1 } END { for (i = 0; i < e; i++) print i, sum[i] }' >table
    jq -r '[.traceEvents[] | select(.ph == "C") | .args | to_entries[]] | group_by(.key)[]
           | "\(.[0].key | ltrimstr("expert ")) \(map(.value) | add)"' t.json | sort -n >drawn
    diff table drawn
}

# No arrow goes back in time; each ends within a slice of its phase, and begins within a slice of the sender.
arrows() {
    jq -e '([.traceEvents[] | select(.ph == "X" and .args.layer != null)]) as $slices
           | [.traceEvents[] | select(.ph == "s" or .ph == "f")] | group_by(.id) | map(
               (map(select(.ph == "s"))[0]) as $s | (map(select(.ph == "f"))[0]) as $f
               | $f.ts >= $s.ts and ($slices | any(.pid == $s.pid and .ts <= $s.ts and $s.ts <= .ts + .dur + 0.002)
                       and any(.pid == $f.pid and .name == $f.name and .ts <= $f.ts and $f.ts <= .ts + .dur + 0.002)))
               | all' "$1" >/dev/null
}

printf 'What is a neuron?\nWhy?\n' >prompts
model=(--preset tiny --seed 3)
layers=$("$program" presets | awk '$1 == "tiny" { print $3; exit }')
cat >map.json <<'JSON'
{"experts": [[[0, 1]], 1, 2, [[2, 0, 1]], 0, [0, 1, 2, 0], 1, [[1, 2], 0]], "attention": [2, 2, 1, 1, 0, 0]}
JSON
for case in '1' '3' '3 --layout contiguous' '4 --prefill-chunk 7' '3 --layout map.json'; do
    read -r ranks more <<<"$case"
    # shellcheck disable=SC2086 # words
    well mpirun -n "$ranks" "$program" run "${model[@]}" $more --prompt-file prompts --generate 6 \
        --trace t.h5 --force
    well "$program" timeline t.h5 -o t.json --force
    well "$program" timeline t.h5 -o t.json.gz --force
    gzip -dc t.json.gz >unpacked
    check "$case: compressed and plain" 'the same' cmp unpacked t.json
    check "$case: nesting" 'slices lie in each other' nested t.json
    # However badly both measurements of a clock went, that of one host does not drift against itself.
    check "$case: drift" 'none: all ranks have one clock' [ "$(values t.h5 clock_drift | sort -u)" = 0 ]
    check "$case: seconds" 'those of phase_seconds' seconds_agree "$layers" "$ranks"
    check "$case: rows" 'dispatch_rows and expert_load' rows_agree "$ranks"
    within=$(values t.h5 clock_error | awk '$1 > most { most = $1 } END { printf "%.3f", 2e6 * most }')
    # shellcheck disable=SC2016 # jq's words
    check "$case: clocks" "said to agree within $within us" jq -e --arg us "$within" \
        '.otherData.times_of_two_ranks_agree_within_us == $us' t.json
    check "$case: arrows" 'forward in time, from slice to slice' arrows t.json
done

# ---- a part ----
well "$program" timeline t.h5 -o part.json --steps 1,3 --layers 1
check 'two steps, one layer' 'no other' jq -e '[.traceEvents[] | select(.ph == "X") | .args] |
    ([.[].step | select(. != null)] | unique) == [1, 3] and ([.[].layer | select(. != null)] | unique) == [-1, 1]' part.json
cp t.h5 whole.h5
well mpirun -n 2 "$program" run "${model[@]}" --tokens '1 2 3' --trace part.h5 --trace-only events,logits
well "$program" timeline part.h5 -o unrouted.json
check 'a trace without expert_indices' 'says that flows are missing, and why' grep -q 'expert_indices was not recorded' "$logs/out"
check 'a trace without expert_indices' 'slices all the same' nested unrouted.json

# ---- a run that was killed; a trace of another program, or damaged: where h5py can make them ----
if (python_with h5py) >/dev/null; then
    python_with h5py
    "$python" -c 'import h5py; h5py.File("whole.h5", "r+").attrs["complete"] = 0'
    well "$program" timeline whole.h5 -o killed.json
    check 'a trace that is not complete' 'said so on standard output' grep -q 'how far its clocks agree is not written yet' "$logs/out"
    check 'a trace that is not complete' 'and in the file' jq -e '.otherData[] | startswith("unknown")' killed.json
    check 'a trace that is not complete' 'slices all the same' nested killed.json

    # ---- a trace of another program, or damaged ----
    cp whole.h5 names.h5
    "$python" -c 'import h5py; f = h5py.File("names.h5", "r+"); f["phase"][2] = b"\\ \"x\"\n"'
    well "$program" timeline names.h5 -o names.json
    check 'a phase with another name' 'that name' jq -e '[.traceEvents[].name] | any(. == "\\ \"x\"\n")' names.json
    # damaged WORDS CHANGE
    damaged() {
        cp whole.h5 damaged.h5
        "$python" -c "import h5py, numpy
with h5py.File('damaged.h5', 'r+') as file:
    event = file['events'][1, 0]
    $2
    file['events'][1, 0] = event" || fail "$2" 'a damaged file' 'none'
        refuse 65 damaged.h5 "$1" -- timeline damaged.h5 -o new.json
    }
    damaged 'events[1, 0, 3] is no event' 'event[3, 2] = 99'
    damaged 'events[1, 0, 3] is no event' 'event[3, 3] = 1e9'
    damaged 'events[1, 0, 3] is no event' 'event[3, 4] = numpy.nan'
    damaged 'events[1, 0, 3] is no event' 'event[3, 0] = event[3, 1] + 1'
    ranks=1
    damaged 'step_rows[0] is -5' 'file["step_rows"][0] = -5'
    damaged 'step_rows[1] is 4611686018427387904' 'file["step_rows"][1] = 2 ** 62'
    damaged 'expert_indices of layer 0 has 8' 'file["expert_indices"][0, 2, 0] = 8'
    damaged 'not JSON' 'file.attrs["layout"] = "{"'
fi

# ---- what is wrong ----
ranks='1 4'
well "$program" run "${model[@]}" --tokens '1 2 3' --trace plain.h5 --trace-only logits
well "$program" init --preset tiny -o w.h5
echo hello >text.h5
mkdir folder
refuse 64 'timeline' '-o FILE' -- timeline t.h5
refuse 64 '.json or .json.gz' -- timeline t.h5 -o t.html
refuse 64 '--steps' 'numbers from 0 to' -- timeline t.h5 -o new.json --steps 99
refuse 64 '--layers' -- timeline t.h5 -o new.json --layers 1,x
refuse 64 'file name is missing' -- timeline -o new.json
refuse 65 'plain.h5' '--trace-only ...,events' -- timeline plain.h5 -o new.json
refuse 65 'w.h5' 'expertmesh-weights' -- timeline w.h5 -o new.json
refuse 65 'text.h5' -- timeline text.h5 -o new.json
refuse 66 'none.h5' -- timeline none.h5 -o new.json
refuse 73 't.json' '--force' -- timeline t.h5 -o t.json
refuse 73 'nowhere' -- timeline t.h5 -o nowhere/t.json
refuse 73 'folder.json' -- timeline t.h5 -o folder/../nofolder/folder.json
cp t.h5 trace.json
refuse 73 'would replace' -- timeline trace.json -o ./trace.json --force
for name in big.json big.json.gz; do
    # shellcheck disable=SC2016 # the inner shell's words
    refused 73 'cannot be written' -- bash -c 'ulimit -f 1; exec "$0" "$@"' "$program" timeline whole.h5 -o $name
done
finish
