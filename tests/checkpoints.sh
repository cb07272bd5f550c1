#!/bin/bash
# tests/checkpoints.sh: runs that are stopped and go on: at every step in turn, each time on another number of ranks, threads and layout; by
# signals to one rank or all; killed between two checkpoints. Tokens and trace must be bit for bit those of a run that was
# never stopped. And everything from which a run must not go on.
#
#   checkpoints.sh PROGRAM SOURCES SCRATCH
# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh" "$@"
# shellcheck source=traces.sh
. "$sources/tests/traces.sh"
need h5diff pgrep
export OMPI_MCA_btl_vader_backing_directory=$session # what a killed rank cannot remove lies there

# What a run printed of the tokens and of what may follow.
told() { sed -n '/^generated/,/^$/p; /^likeliest/,/^$/p' "$1" | grep .; }

compared() { "$program" compare whole.h5 "$1" | tee "$logs/compared"; }

# same_as_whole WHAT OUT [TRACE]: against whole.out and whole.h5.
same_as_whole() {
    local quantities
    check "$1" 'the tokens of a run that was never stopped' diff <(told whole.out) <(told "$2")
    if [ -z "${3-}" ]; then return; fi
    check "$1" 'the trace of a run that was never stopped' compared "$3"
    quantities=$(awk '$NF == "same" { print $1 }' "$logs/compared" | sort)
    check "$1" 'expert_load among what is compared' grep -qx expert_load <<<"$quantities"
    check "$1" 'the same bits' diff <(echo "$quantities") <(alike whole.h5 "$3" | grep -Fx "$quantities")
}

# ---- stopped at every step ----
# So little time that each run takes one step, writes a checkpoint and stops.
little=(--max-hours 1e-9)

# chain WHAT STEPS ARGUMENT...: in STEPS steps, on other ranks, threads and layouts each time.
chain() {
    local what=$1 steps=$2 turn=0 trace=() counts=(3 1 4 2 6 3 5 1 2) layouts=(spread sliced contiguous ./map.json) P
    shift 2
    rm -f whole.* t.h5 c.h5
    if [ "$traced" = yes ]; then trace=(--trace t.h5); fi
    well "$program" run "$@" ${trace[@]+"${trace[@]}"}
    cp "$logs/out" whole.out
    if [ "$traced" = yes ]; then mv t.h5 whole.h5; fi
    watch mpirun -n 2 "$program" run "$@" ${trace[@]+"${trace[@]}"} --checkpoint c.h5 "${little[@]}"
    while [ "$status" = 0 ] && grep -q '^stopped: ' "$logs/out"; do
        turn=$((turn + 1)) P=${counts[turn % ${#counts[@]}]}
        # The last rank has the heads; experts are on the first two at once, where there are two.
        printf '{"attention":[%d],"experts":[%s],"vocabulary":[%d]}' $((P - 1)) \
            "$(yes "$([ "$P" = 1 ] && echo 0 || echo '[[0,1]]')" | head -n 8 | paste -sd ,)" $((P / 2)) >map.json
        watch mpirun -n "$P" "$program" run --resume c.h5 "${little[@]}" \
            --threads $((1 + turn % 3)) --layout "${layouts[turn % 4]}"
    done
    if [ "$status" != 0 ]; then fail "$what, stopped $turn times" 'exit code 0' "$status: $(cat "$logs/err")"; fi
    if [ "$turn" != $((steps - 1)) ]; then fail "$what" "$steps steps" "$((turn + 1))"; fi
    cp "$logs/out" c.out
    same_as_whole "$what, stopped $turn times" c.out ${trace[@]+t.h5}
}
traced=yes
printf '1 2 3\n200 100 50 25 12 6 3\n7\n%s\n' "$(seq -s ' ' 0 40)" >prompts
tiny=(--preset tiny --seed 3 --tokens-file "$PWD/prompts")
chain 'prompts in chunks, drawn tokens, one that ends' 9 "${tiny[@]}" --generate 6 --temperature 0.8 --stop-token 7 --prefill-chunk 13
chain 'several prompts at once' 4 "${tiny[@]}" --generate 4 --storage int8 --ffn-kind mlp --num-q-heads 9 --num-kv-heads 3
chain 'only prompts, in chunks' 4 "${tiny[@]}" --prefill-chunk 13
well "$program" init --preset tiny --seed 5 --storage bf16 -o w.h5
chain 'weights from a file, a part recorded' 4 --weights w.h5 --prompt 'A neuron holds a' --generate 3 --prefill-chunk 8 --top-k 4 --temperature 2 \
    --trace-layers 1 --trace-tokens 0,3-9,17 --trace-only 'logits,ffn_hidden,resid_post,attn_k'
traced=no
chain 'no trace' 3 "${tiny[@]}" --generate 3

# A checkpoint before the first step; each of the ranks as a host of its own.
traced=yes
EXPERTMESH_RANKS_PER_HOST=1 chain 'ranks by messages' 3 "${tiny[@]}" --generate 3

# ---- by signals ----
cat >note-pid.sh <<'EOT'
#!/bin/bash
echo $$ >"pid.$OMPI_COMM_WORLD_RANK"
exec "$@"
EOT
long=(--preset tiny --num-layers 40 --seed 3 --tokens "1,2,3,4,5,6,7,8,9" --generate 150 --prefill-chunk 4 --trace-only 'router_probs,attn_k')
rm -f whole.*
well "$program" run "${long[@]}" --trace whole.h5
cp "$logs/out" whole.out

# wait_for WHAT COMMAND...: until it succeeds, while mpirun runs.
wait_for() {
    local what=$1
    shift
    until "$@" 2>/dev/null; do
        if ! kill -0 "$mpi" 2>/dev/null; then
            "$@" 2>/dev/null && return
            fail "$what" "$(spell "$@")" "it ended: $(cat s.out s.err)"
            return 1
        fi
        sleep 0.01
    done
}

# start RANKS ARGUMENT...: in the background; ranks' pids in pid.*, mpirun's in $mpi. What the run before it said is gone
# before the shell goes on: else that may be taken for this run's word.
start() {
    rm -f pid.* s.h5 sc.h5
    : >s.out
    : >s.err
    mpirun -n "$1" bash note-pid.sh "$program" run "${long[@]}" --threads 1 --trace s.h5 --checkpoint sc.h5 "${@:2}" >s.out 2>s.err </dev/null &
    mpi=$!
}

# await_end: mpirun's exit code in $status; one that does not end in three minutes is killed.
await_end() {
    timeout 180 tail --pid="$mpi" -f /dev/null || kill -KILL "$mpi" 2>/dev/null
    wait "$mpi" 2>/dev/null
    status=$?
}

# ended WHAT: it must stop well; then it goes on on 2 ranks.
ended() {
    await_end
    checks=$((checks + 1))
    if [ "$status" != 0 ] || ! grep -q '^stopped: ' s.out; then
        fail "$1" 'exit code 0, and stopped' "$status: $(cat s.out s.err)"
        return
    fi
    if [ "$(h5dump -d /stopped -y s.h5 | grep -c '^ *1$')" != 1 ]; then fail "$1" 'a trace that says that it was stopped' "$(h5dump -d /stopped -y s.h5)"; fi
    well mpirun -n 2 "$program" run --resume sc.h5
    cp "$logs/out" s.out
    same_as_whole "$1, and went on" s.out s.h5
}

start 3
if wait_for 'USR1 to one rank' test -e s.h5; then
    kill -USR1 "$(cat pid.2)"
    wait_for 'USR1 to one rank' grep -q '^checkpoint: sc.h5 after' s.err
    kill -USR1 "$mpi" # to all
    wait_for 'USR1 to mpirun' awk '/^checkpoint: / { n++ } END { exit n < 2 }' s.err
    kill -USR2 "$(cat pid.1)"
    ended 'USR1 to one rank and to all, then USR2 to one'
fi
start 4
if wait_for 'USR2 to mpirun' test -e s.h5; then
    kill -USR2 "$mpi"
    ended 'USR2 to mpirun'
fi
# While it begins: the answer is a checkpoint of nothing. Again and again: that changes nothing.
start 3
if wait_for 'TERM to a rank that begins' grep -q '^model: ' s.out; then
    for _ in 1 2 3; do kill -TERM "$(cat pid.0)" "$(cat pid.2)" 2>/dev/null; done
    ended 'TERM while the run begins, and again'
fi

# ---- by the clock ----
start 2 --max-hours 0.0005
ended '--max-hours'
start 2 --checkpoint-every 0.001min
wait_for '--checkpoint-every 0.001min' awk '/^checkpoint: / { n++ } END { exit n < 2 }' s.err
kill -USR2 "$mpi"
ended '--checkpoint-every 0.001min'

# ---- after so many tokens ----
# A prompt of 8 in steps of 4, then a token a step: a checkpoint as soon as 5 more are run than in the one before.
after() { sed -n 's/^checkpoint: .* after \([0-9]*\) tokens.*/\1/p' "$1" | xargs; }
rm -f sc.h5
counting=(--preset tiny --tokens '1 2 3 4 5 6 7 8' --generate 14 --prefill-chunk 4 --checkpoint sc.h5 --checkpoint-every)
well mpirun -n 2 "$program" run "${counting[@]}" 5
check '--checkpoint-every 5' '8, and every fifth from there' test "$(after "$logs/err")" = '8 13 18'
well mpirun -n 2 "$program" run "${counting[@]}" 10 --force --max-hours 1e-9
check '--checkpoint-every 10, stopped after the first step' 'one, where it stopped' test "$(after "$logs/err")" = 4
well mpirun -n 3 "$program" run --resume sc.h5 --checkpoint-every 10
check '--checkpoint-every 10, gone on with from 4 tokens' '14, counted from the checkpoint' test "$(after "$logs/err")" = 14
well mpirun -n 2 "$program" run --resume sc.h5
check 'gone on with, and no --checkpoint-every' 'none' test -z "$(after "$logs/err")"

# ---- killed, with the trace ahead of the checkpoint ----
for victim in 1 0; do
    start 3 --checkpoint-every 40
    if wait_for "rank $victim killed" grep -q '^checkpoint: sc.h5 after' s.err; then
        sleep 0.05
        kill -KILL "$(cat pid.$victim)" 2>/dev/null
        await_end
        well mpirun -n 4 "$program" run --resume sc.h5
        cp "$logs/out" s.out
        same_as_whole "rank $victim of 3 killed, and the run went on" s.out s.h5
    fi
done
# Once more from the same place, after a whole run: the same again.
well mpirun -n 2 "$program" run --resume sc.h5
same_as_whole 'the end of a run once more' "$logs/out" s.h5

# ---- from which a run must not go on ----
rm -f ./*.h5
mix=("${tiny[@]}" --generate 4 --temperature 0.8)
well "$program" init --preset tiny --seed 5 -o w.h5
well "$program" init --preset tiny --seed 6 -o other.h5
well "$program" init --preset tiny --num-layers 1 -o shorter.h5
well "$program" run "${mix[@]}" --trace t.h5 --checkpoint c.h5 "${little[@]}"
well "$program" run --weights w.h5 --tokens 1,2,3 --generate 4 --checkpoint f.h5 "${little[@]}"
well "$program" run --weights w.h5 --tokens 1,2,3 --trace another.h5
cp t.h5 older.h5

again=(run --resume c.h5)
refuse 66 'none.h5' 'No such file' -- run --resume none.h5
refuse 66 'prompts.d' 'not a plain file' -- run --resume "$(mkdir -p prompts.d && echo prompts.d)"
for file in prompts w.h5 t.h5 "$program"; do refuse 65 "$file" 'not a checkpoint' -- run --resume "$file"; done
size=$(stat -c %s c.h5)
for cut in 0 1 8 15 16 17 1000 $((size / 2)) $((size - 1)); do
    head -c -$((cut + 1)) c.h5 >cut.h5
    ranks=3 refuse 65 'cut.h5' 'not a checkpoint, or cut short' -- run --resume cut.h5
done
for place in 0 9 $((size / 3)) $((size / 2)) $((size - 20)) $((size - 1)); do
    cp c.h5 flipped.h5
    flipped=$(printf '\\x%02x' $(($(od -An -tu1 -j "$place" -N 1 c.h5) ^ 4)))
    printf '%b' "$flipped" | dd of=flipped.h5 bs=1 seek="$place" conv=notrunc 2>/dev/null
    refuse 65 'flipped.h5' 'damaged' -- run --resume flipped.h5
done

refuse 64 '--temperature 0.9' 'was told 0.8' -- "${again[@]}" --temperature 0.9
refuse 64 '--top-k 3' 'was not told so' -- "${again[@]}" --top-k 3
refuse 64 '--tokens 1' 'was not told so' -- "${again[@]}" --tokens 1
refuse 64 '--num-layers 3' 'was not told so' -- "${again[@]}" --num-layers 3
refuse 64 '--preset demo' 'was told tiny' -- "${again[@]}" --preset demo
refuse 64 '--trace-only logits' 'was not told so' -- "${again[@]}" --trace-only logits
refuse 64 '--weights w.h5' 'was not told so' -- "${again[@]}" --weights w.h5
refuse 64 '--trace x.h5' 'was not told so' -- run --resume f.h5 --trace x.h5
refuse 65 '--seed 4' 'was told 3' -- "${again[@]}" --seed 4
refuse 65 'other.h5' 'other weights' 'f.h5' -- run --resume f.h5 --weights other.h5
refuse 65 'shorter.h5' 'num_layers' -- run --resume f.h5 --weights shorter.h5
refuse 66 'gone.h5' 'No such file' -- run --resume f.h5 --weights gone.h5
if grep -qw avx2 /proc/cpuinfo; then EXPERTMESH_ISA=plain refuse 65 'c.h5' 'computed by the loops of' -- "${again[@]}"; fi
refuse 66 'gone.h5' '--trace says where' -- "${again[@]}" --trace gone.h5
refuse 65 'another.h5' 'the trace of another run' -- "${again[@]}" --trace another.h5
refuse 65 'w.h5' 'not a trace' -- "${again[@]}" --trace w.h5
well "$program" run --resume c.h5 "${little[@]}"
refuse 65 'older.h5' 'an older copy' -- "${again[@]}" --trace older.h5
refuse 64 '--checkpoint-every' '"ten"' -- "${again[@]}" --checkpoint-every ten
for every in 0 -1 1.5 min 1h 0min -1min nanmin infmin 1minute ''; do
    ranks=1 refuse 64 '--checkpoint-every' "\"$every\"" -- "${again[@]}" --checkpoint-every "$every"
done
for hours in 0 -1 x nan inf ''; do ranks=1 refuse 64 '--max-hours' -- "${again[@]}" --max-hours "$hours"; done
refuse 64 '--max-hours' '--checkpoint F is missing' -- run "${mix[@]}" --max-hours 1
refuse 64 '--checkpoint-every' '--checkpoint F is missing' -- run "${mix[@]}" --checkpoint-every 10
refuse 73 'c.h5' 'is there already' -- run "${mix[@]}" --checkpoint c.h5
refuse 73 'none/c.h5' 'its folder' -- run "${mix[@]}" --checkpoint none/c.h5
refuse 73 'f.h5' 'is there already' -- "${again[@]}" --checkpoint f.h5
refuse 73 'would replace' -- run --weights w.h5 --tokens 1 --checkpoint w.h5 --force
# However their paths are written, whether they are there or not.
refuse 64 '--checkpoint' '--trace' 'over each other' -- run "${mix[@]}" --trace x.h5 --checkpoint x.h5
refuse 64 '--trace' 'over each other' -- run "${mix[@]}" --trace "$PWD/x.h5" --checkpoint ./x.h5
ranks=1 refuse 64 '--trace' 'over each other' -- run "${mix[@]}" --trace x.h5.partial --checkpoint x.h5
ranks=1 refuse 64 '--trace' 'over each other' -- run "${mix[@]}" --trace x.h5 --write-layout ./x.h5
cp c.h5 kept.h5
cp f.h5 f2.h5.partial
ranks=1 refuse 73 'would replace f2.h5.partial' '--resume' -- run --resume f2.h5.partial --checkpoint f2.h5
ranks=1 refuse 73 'would replace' '--resume' -- run --resume c.h5 --write-layout ./c.h5 --force
check 'a map in place of a checkpoint' 'the checkpoint as it was' cmp c.h5 kept.h5
ranks=1 refuse 64 '--force replaces what' -- run --resume f.h5 --force
# What was told may be told again, and files may have moved.
mv t.h5 moved.h5
mv w.h5 moved-w.h5
well mpirun -n 3 "$program" run --resume c.h5 "${mix[@]}" --trace moved.h5 --checkpoint new.h5 "${little[@]}"
well mpirun -n 2 "$program" run --resume new.h5
well mpirun -n 2 "$program" run --resume f.h5 --weights moved-w.h5
finish
