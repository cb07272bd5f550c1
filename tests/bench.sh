#!/bin/bash
# tests/bench.sh: what `bench` prints on a tiny model at 1, 2 and 3 ranks: the same figures and columns as table, csv and
# json, all of them numbers above 0; the parts that are asked for; and no file left. How fast anything is, no test says.
#
#   bench.sh PROGRAM SOURCES SCRATCH
# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh" "$@"
need python3

tiny=(bench --preset tiny --memory 4 --runs 2 --tokens 8 --generate 3 --threads 1)

# figures FORM FILE GROUP...: the forms must hold figures of just these groups; one "group what unit" a line for comparison.
cat >"$logs/figures.py" <<'PYTHON'
import csv, json, math, sys

form, path, groups = sys.argv[1], sys.argv[2], sys.argv[3:]
columns = "group what unit value spread runs limit against ratio target reached".split()
if form == "csv":
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
else:
    with open(path) as file:
        run = json.load(file)
    assert {"version", "processor", "date", "ranks", "threads", "figures"} == set(run), run.keys()
    rows = run["figures"]
assert rows, "no figures"
for row in rows:
    assert list(row) == columns, list(row)
    for name in ("value", "runs") + (("limit", "ratio") if row["limit"] not in (None, "") else ()):
        number = float(row[name])
        assert math.isfinite(number) and (number > 0 or name == "ratio" and number == 0), row
    assert float(row["spread"]) >= 0 and int(row["runs"]) in (1, 2), row
    assert bool(row["limit"]) == bool(row["against"]) == bool(row["ratio"] not in (None, "")), row
    assert not row["target"] and not row["reached"], row  # targets are for the true width
    if form == "json":
        assert all(isinstance(row[n], (int, float)) for n in ("value", "spread", "runs")), row
seen = list(dict.fromkeys(row["group"] for row in rows))
assert seen == groups, (seen, groups)
for row in rows:
    print(row["group"], row["what"], row["unit"], sep=" | ")
PYTHON

# started RANKS ARGUMENT...: the program on so many ranks.
started() {
    local ranks=$1
    shift
    if [ "$ranks" = 1 ]; then "$program" "$@"; else mpirun -n "$ranks" "$program" "$@"; fi
}
export -f started
export program

for ranks in 1 2 3; do
    groups=(limits products model exchange files)
    if [ "$ranks" = 1 ]; then groups=(limits products model files); fi
    before=$(snapshot)
    for form in csv json; do
        if [ "$form" = csv ] && [ "$ranks" != 2 ]; then continue; fi
        well bash -c 'started "$@"' bash "$ranks" "${tiny[@]}" -o "$form"
        check "bench -o $form at $ranks ranks" "figures above 0 of ${groups[*]}" \
            python3 "$logs/figures.py" "$form" "$logs/out" "${groups[@]}"
        python3 "$logs/figures.py" "$form" "$logs/out" "${groups[@]}" >"$logs/names.$form.$ranks" 2>/dev/null
        check 'progress on standard error' 'a line a part' grep -q '^bench: model: .* prompt of 8 tokens, then 3' "$logs/err"
    done
    check "bench at $ranks ranks" 'no file left' diff <(sort <<<"$before") <(snapshot | sort)
done

check "csv and json" 'the same figures' diff "$logs/names.csv.2" "$logs/names.json.2"

# Products in every type that this processor has; f32 everywhere.
for storage in f32 bf16 int8; do
    for rows in '1 row' '4 rows' '16 rows' '64 rows' '256 rows'; do
        checks=$((checks + 1))
        count=$(grep -c "^products | .*, $storage weights, f32 compute, $rows |" "$logs/names.json.1")
        if [ "$count" != 5 ]; then fail "products of $storage weights at $rows" '5 shapes' "$count"; fi
    done
done

# A part alone; the table.
for part in limits products model files; do
    well "$program" "${tiny[@]}" --only "$part" --storage bf16 -o csv
    check "bench --only $part" "figures of $part" python3 "$logs/figures.py" csv "$logs/out" "$part"
done
well mpirun -n 2 "$program" "${tiny[@]}" --only exchange,limits -o json
check 'bench --only exchange,limits' 'figures of both' python3 "$logs/figures.py" json "$logs/out" limits exchange
well "$program" "${tiny[@]}" --only limits
check 'the table' 'its heading' grep -qE '^group +what +unit +value +spread +runs +limit +against +ratio +target +reached' "$logs/out"
well "$program" "${tiny[@]}" --only model --storage f32 --ffn-kind mlp --num-layers 2 -o csv
check 'another shape' 'figures' python3 "$logs/figures.py" csv "$logs/out" model

# A file that cannot be written ends the run with its name, and nothing is left; nor is it when the run is interrupted.
mkdir sub
# shellcheck disable=SC2016
refused 73 'sub/' -- bash -c 'ulimit -f 64; exec "$@"' bash "$program" "${tiny[@]}" --only files --folder sub
check 'a failed run' 'no file left' test -z "$(ls sub)"
"$program" bench --preset tiny --runs 99 --only files --folder sub >/dev/null 2>&1 </dev/null &
for ((i = 0; i < 200; i++)); do
    if [ -n "$(ls sub)" ]; then break; fi
    sleep 0.05
done
kill %1
wait %1
check 'an interrupted run' 'no file left' test -z "$(ls sub)"

finish
