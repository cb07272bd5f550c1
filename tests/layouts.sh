#!/bin/bash
# tests/layouts.sh: any layout. The same bits on 1 to 24 ranks with random maps, replicas, split heads, idle ranks, layouts by
# name, as if on several hosts, on more ranks than there are units or tokens; what --layout-only tells is what a run counts; and maps
# that cannot be.
#
#   layouts.sh PROGRAM SOURCES SCRATCH          LAYOUTS_SEED repeats a failure
# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh" "$@"
# shellcheck source=../jobs/mpi-env.sh
. "$sources/jobs/mpi-env.sh" 24
RANDOM=${LAYOUTS_SEED:-4}
golden=$sources/data/golden

# Functions here leave what they draw in $drawn: in a subshell RANDOM would not go on.
# draw_list COUNT FUNCTION: a list of JSON.
draw_list() {
    local i items=
    for ((i = 0; i < $1; i++)); do
        "$2"
        items+=${items:+,}$drawn
    done
    drawn=[$items]
}
draw_rank() { drawn=$((RANDOM % busy)); }
draw_replicas() { # several ranks, none twice
    local i first=$((RANDOM % busy)) count=$((RANDOM % busy + 1)) items=
    for ((i = 0; i < count; i++)); do items+=${items:+,}$(((first + i) % busy)); done
    drawn=[$items]
}
draw_slice() { if [ $((RANDOM % 3)) = 0 ]; then draw_replicas; else draw_rank; fi; }
draw_expert() {
    case $((RANDOM % 4)) in
        0) draw_rank ;;
        1) draw_list 1 draw_replicas ;;
        *) draw_list "$slices" draw_slice ;;
    esac
}

# random_map RANKS HEADS EXPERTS SLICES BLOCKS: in map.json any unit on any of the ranks, of which some may stay idle.
random_map() {
    slices=$4 busy=$((($1 + 1) / 2 + RANDOM % ($1 / 2 + 1)))
    draw_list "$2" draw_rank
    printf '{"ranks":%d,"attention":%s,' "$1" "$drawn" >map.json
    draw_list "$3" draw_expert
    printf '"experts":%s,' "$drawn" >>map.json
    draw_list "$5" draw_rank
    printf '"vocabulary":%s}\n' "$drawn" >>map.json
}

# same WHAT A.h5 B.h5
same() { check "$1" 'not one bit differs' "$program" compare "$2" "$3"; }

# Which ranks the table of weights says are idle.
idle() { sed -n '/^weights held/,/^owned/p' "$1" | awk '$1 ~ /^[0-9]+$/ && $NF == "idle" { print $1 }'; }

# What a run counted of rows, and what --layout-only tells.
weights_in() { sed -n '/^weights held/,/^owned/p' "$1"; }
rows_in() { sed -n '/^rows between ranks/,/^$/p' "$1"; }
by_layer() { sed -n '/^per layer/,/^$/p' "$1" | awk '/^ +[0-9]/ { print $1, $(NF - 2), $(NF - 1), $NF }'; }
held() { sed -n '/^weights held/,/^owned/p' "$1" | tr -d , | awk '$1 ~ /^[0-9]+$/ { print $2 + $3 }'; }
# What the trace tells: the bytes of weights that each rank allocated, and dispatch_rows, summed over layers.
traced() {
    "$python" -c 'import h5py, sys
trace = h5py.File(sys.argv[1])
print("\n".join(str(one[0]) for one in trace["memory_bytes"][:]))
print("\n".join(" ".join(map(str, row)) for row in trace["dispatch_rows"][:].sum(0)))' "$1"
}
told() { sed -n '/^rows dispatched/,/^$/p' "$1" | awk '/^ +[0-9]/ { $1 = ""; print substr($0, 2) }' | tr -d ,; }

# counted RANKS RANKS_PER_HOST TRACE OPTION...: after a run with these options, whose output is in logs/out.
counted() {
    cp "$logs/out" run.out
    well "$program" run --layout-only --ranks "$1" --ranks-per-host "$2" --routing "$3" "${@:4}"
    check "weights on $1 ranks, ${*:4}" 'the bytes of --layout-only' diff <(weights_in run.out) <(weights_in "$logs/out")
    check "rows on $1 ranks, ${*:4}" 'the rows of --layout-only' diff <(rows_in run.out) <(rows_in "$logs/out")
    check "rows by layer on $1 ranks, ${*:4}" 'the rows of --layout-only' diff <(by_layer run.out) <(by_layer "$logs/out")
    check "rows on $1 ranks, ${*:4}" 'counts that are there' test -n "$(rows_in run.out)"
    check "rows on $1 ranks, ${*:4}" 'exact counts' grep -q '^these counts are exact' "$logs/out"
    if [ -n "$python" ]; then
        check "memory_bytes and dispatch_rows on $1 ranks, ${*:4}" 'the bytes and rows of --layout-only' \
            diff <(traced "$3") <(held "$logs/out" && told "$logs/out")
    fi
}

python=
for one in python3 /usr/bin/python3; do
    if "$one" -c 'import h5py' 2>/dev/null; then python=$one; fi
done
[ -n "$python" ] || echo "layouts: no h5py: dispatch_rows and memory_bytes of traces are not compared with --layout-only"

# ---- the reference cases on random maps ----
field() { h5dump -a "/config/$2" "$1" | sed -n 's/.*(0): //p'; }
tokens_of() { h5dump -d /token_ids -y -w 65535 "$1" | sed -n '/DATA {/,/}/p' | tr -dc '0-9,\n' | tr -d '\n'; }
for name in article grok1 grok1-bf16 grok1-int8; do
    weights=$golden/$name.weights.h5 tokens=$(tokens_of "$golden/$name.expected.h5")
    F=$(field "$weights" ffn_size) V=$(field "$weights" vocab_size)
    slice_size=$(((F + 7) / 8)) block=$(((V + 255) / 256 > 16 ? (V + 255) / 256 : 16))
    well "$program" run --weights "$weights" --tokens "$tokens" --trace one.h5 --force
    for P in 3 7 24; do
        random_map $P "$(field "$weights" num_q_heads)" "$(field "$weights" num_experts)" \
            $(((F + slice_size - 1) / slice_size)) $(((V + block - 1) / block))
        well mpirun -n $P "$program" run --weights "$weights" --tokens "$tokens" --layout map.json --threads 1 --trace many.h5 --force
        same "$name on $P ranks, $(cat map.json)" one.h5 many.h5
        check "$name on $P ranks, $(cat map.json)" 'the reference within 2e-5' \
            "$program" compare many.h5 "$golden/$name.expected.h5" --tolerance 2e-5
    done
done

# ---- tiny, on few to many ranks ----
printf '1 2 3\n200 100 50 25 12 6 3\n7\n%s\n' "$(seq -s ' ' 0 30)" >prompts
tiny=(--preset tiny --seed 3 --tokens-file prompts --generate 3)
well "$program" run "${tiny[@]}" --trace one.h5 --force
for P in 1 2 3 4 6 9 16 24; do
    random_map $P 6 8 8 16
    per_host=$((RANDOM % P + 1))
    EXPERTMESH_RANKS_PER_HOST=$per_host well mpirun -n $P "$program" run "${tiny[@]}" --threads 1 --layout map.json \
        --trace many.h5 --force
    same "tiny on $P ranks, $per_host a host, $(cat map.json)" one.h5 many.h5
    counted $P "$per_host" many.h5 "${tiny[@]}" --layout map.json
done
for layout in contiguous sliced spread; do
    for P in 3:2 6:2 24:5; do
        options=(--layout "$layout")
        if [ $P = 6:2 ]; then options+=(--attention-ranks "1,4" --expert-ranks '0,2-5' --exchange flat --prefill-chunk 9); fi
        EXPERTMESH_RANKS_PER_HOST=${P#*:} well mpirun -n ${P%:*} "$program" run "${tiny[@]}" --threads 1 \
            "${options[@]}" --trace many.h5 --force
        same "tiny on $P ranks, ${options[*]}" one.h5 many.h5
        counted ${P%:*} ${P#*:} many.h5 "${tiny[@]}" "${options[@]}"
    done
done

# ---- more ranks than there is to own, or than tokens ----
# 2 experts of 5 slices, 2 heads, 1 block of the vocabulary, 3 tokens and then 1 at a time.
few=(--preset tiny --seed 6 --num-experts 2 --num-selected-experts 1 --ffn-size 5 --num-q-heads 2 --num-kv-heads 1 --vocab-size 16
    --tokens '3 1 2' --generate 2)
well "$program" run "${few[@]}" --trace few.h5
own_nothing() { weights_in "$1" | awk '$1 ~ /^[0-9]+$/ && $4 + $7 + $8 == 0 { print $1 }'; }
for layout in contiguous sliced spread; do
    EXPERTMESH_RANKS_PER_HOST=7 well mpirun -n 17 "$program" run "${few[@]}" --threads 1 --layout $layout --trace many.h5 --force
    same "more ranks than units, $layout" few.h5 many.h5
    check "17 ranks for 10 slices, 2 heads and 1 block, $layout" 'who owns nothing is said to be idle, and nobody else' \
        diff <(own_nothing "$logs/out") <(idle "$logs/out")
    check "17 ranks for 10 slices, 2 heads and 1 block, $layout" '4 idle ranks at least, and 17 in the table' \
        test "$(idle "$logs/out" | wc -l)" -ge 4 -a "$(weights_in "$logs/out" | grep -c '^ *[0-9]')" = 17
    counted 17 7 many.h5 "${few[@]}" --layout $layout
done

# ---- idle ranks ----
printf '{"attention":[1],"experts":[1,1,1,1,1,1,1,1],"vocabulary":[1]}' >map.json
well mpirun -n 3 "$program" run "${tiny[@]}" --threads 1 --layout map.json --trace many.h5 --force
same 'tiny on 3 ranks, two of them idle' one.h5 many.h5
check 'tiny on 3 ranks, two of them idle' 'that it is said of ranks 0 and 2' \
    diff <(printf '0\n2\n') <(idle "$logs/out")

# ---- activations rounded to the weights' type: replicas get other rows together, and the same bits all the same ----
for type in bf16 int8; do
    rounded=("${tiny[@]}" --storage "$type" --compute "$type")
    watch "$program" run "${rounded[@]}" --trace rounded.h5 --force
    if [ "$status" = 64 ]; then
        echo "layouts: left out: replicas with --compute $type ($(grep -a '^expertmesh: ' "$logs/err"))"
        continue
    fi
    printf '{"experts":[[[0,1,2,3,4]],[[4,2]],[[1,0,3]],0,1,[[0,1,2,3,4]],[[3,4,0,1]],[[2,0]]],"attention":[0,1,2]}' >map.json
    EXPERTMESH_RANKS_PER_HOST=2 well mpirun -n 5 "$program" run "${rounded[@]}" --threads 1 --layout map.json --trace many.h5 --force
    same "replicas on 5 ranks, --compute $type" rounded.h5 many.h5
done

# ---- maps as they are written ----
well "$program" run "${tiny[@]}" --layout-only --ranks 5 --ranks-per-host 2 --layout spread --write-layout written.json
cp "$logs/out" first.out
well "$program" run "${tiny[@]}" --layout-only --ranks 5 --ranks-per-host 2 --layout ./written.json --write-layout again.json
check 'a map that was written, read again' 'the same map' cmp written.json again.json
check 'a map that was written, read again' 'the same tables' diff first.out "$logs/out"
random_map 5 6 8 8 16
well mpirun -n 5 "$program" run "${tiny[@]}" --layout map.json --write-layout kept.json --trace many.h5 --force
well "$program" inspect many.h5
check 'the layout in a trace' "$(cat kept.json)" grep -qxF "layout           $(cat kept.json)" "$logs/out"
well "$program" run "${tiny[@]}" --layout-only --ranks 5 --layout map.json --write-layout told.json
check 'the map of a run' 'the map that --layout-only tells' cmp kept.json told.json
refuse 73 'written.json' '--force' -- run "${tiny[@]}" --layout-only --write-layout written.json
cp written.json before.json
refuse 64 '--temperature' -- run "${tiny[@]}" --layout-only --write-layout written.json --force --temperature -1
check 'a map of a wrong command' 'the one before' cmp written.json before.json
well "$program" run "${tiny[@]}" --layout-only --ranks 2 --write-layout written.json --force
check '--write-layout --force' 'another map' eval '! cmp -s written.json before.json'
refuse 73 'absent/map.json' -- run "${tiny[@]}" --layout-only --write-layout absent/map.json

# ---- a model that fits no machine is laid out all the same, and in less memory than one of its matrices takes ----
# shellcheck disable=SC2016
well bash -c 'ulimit -v 700000; exec "$0" "$@"' "$program" run --preset grok1 --prompt "$(seq -s ' ' 1 60)" --layout-only --ranks 96 \
    --ranks-per-host 8
check 'grok1 on 96 ranks' '12 hosts' grep -q '96 ranks on 12 hosts' "$logs/out"

# ---- maps that cannot be ----
map() { # CODE WORD... -- JSON: with this map on 1 and 4 ranks
    local words=()
    while [ "$1" != -- ]; do
        words+=("$1")
        shift
    done
    printf '%s' "$2" >bad.json
    refuse "${words[0]}" bad.json "${words[@]:1}" -- run "${tiny[@]}" --layout bad.json
}
map 65 'not JSON' 'byte 16' -- '{"attention":[0,'
map 65 'not a JSON object' -- '[0]'
map 65 '"atention"' 'ranks, attention, experts and vocabulary' -- '{"atention":[0]}'
map 65 '"attention" is there twice' -- '{"attention":[0],"attention":[0]}'
map 65 'a map for 7 ranks' -- '{"ranks":7}'
map 65 'attention has 4 entries' '6, one for each query head' -- '{"attention":[0,0,0,0]}'
map 65 'attention has 0 entries' -- '{"attention":[]}'
map 65 'attention must be a list' -- '{"attention":0}'
map 65 'attention[2] names rank 4' 'only ranks 0 to' -- '{"attention":[0,0,4]}'
map 65 'attention[1] names rank -1' -- '{"attention":[0,-1,0]}'
map 65 'attention[0] must be the number of a rank' -- '{"attention":["0",0,0]}'
map 65 'attention[0] must be the number of a rank' -- '{"attention":[0.5,0,0]}'
map 65 'attention[5] is null' 'no owner' -- '{"attention":[0,0,0,0,0,null]}'
map 65 'experts must be a list of 8 entries' -- '{"experts":[0,0,0]}'
map 65 'experts must be a list of 8 entries' -- '{"experts":0}'
map 65 'experts[7] is null' 'no owner' -- '{"experts":[0,0,0,0,0,0,0,null]}'
map 65 'experts[1] has 3 entries' '8, one for each slice' -- '{"experts":[0,[0,0,0],0,0,0,0,0,0]}'
map 65 'experts[1][1] is an empty list' 'no owner' -- '{"experts":[0,[0,[]],0,0,0,0,0,0]}'
map 65 'experts[2][0] names rank 0 twice' -- '{"experts":[0,0,[[0,0]],0,0,0,0,0]}'
map 65 'experts[2][0][1] names rank 99' -- '{"experts":[0,0,[[0,99]],0,0,0,0,0]}'
map 65 'vocabulary has 5 entries' '16, one for each block' -- '{"vocabulary":[0,0,0,0,0]}'
printf '{"experts":[0,0,0,0,0,0,0,0],"attention":[0]}' >map.json
refuse 64 '--attention-ranks' 'map.json' -- run "${tiny[@]}" --layout map.json --attention-ranks 0
refuse 64 '--expert-ranks' 'map.json' -- run "${tiny[@]}" --layout map.json --expert-ranks 0
refuse 66 'absent.json' 'No such file' -- run "${tiny[@]}" --layout absent.json
refuse 64 '--layout' '"slicd"' 'the nearest is sliced' -- run "${tiny[@]}" --layout slicd
refuse 64 '--layout' '"x"' 'contiguous, sliced, spread' -- run "${tiny[@]}" --layout x
refuse 64 '--layout' '"slicd"' -- bench --preset tiny --layout slicd
for list in '' 4 x -1; do
    refuse 64 '--attention-ranks' -- run "${tiny[@]}" --attention-ranks "$list"
    ranks=4 refuse 64 '--expert-ranks' -- run "${tiny[@]}" --expert-ranks "$list"
done
for option in ranks=4 ranks-per-host=2 routing=one.h5; do
    refuse 64 "--${option%=*}" '--layout-only' -- run "${tiny[@]}" "--$option"
done
refuse 64 '--ranks' '"0"' -- run "${tiny[@]}" --layout-only --ranks 0
refuse 66 'absent.h5' -- run "${tiny[@]}" --layout-only --routing absent.h5
refuse 65 '--routing one.h5' 'other prompts' -- run --preset tiny --prompt 'as long as the other one, and longer than that' \
    --layout-only --routing one.h5
refuse 65 '--routing one.h5' '8 of 8' -- run "${tiny[@]}" --num-selected-experts 8 --layout-only --routing one.h5
finish
