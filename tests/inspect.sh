#!/bin/bash
# tests/inspect.sh: every figure of `inspect`, computed again from the datasets with NumPy: whole traces, recorded parts, a trace
# that is still being written, chunked files of another program; then every request that cannot be met, with its message.
#
#   inspect.sh PROGRAM SOURCES SCRATCH
# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh" "$@"
need h5repack
python_with h5py numpy

# Sizes that no two axes share, and that 3 ranks do not divide evenly.
shape=(--preset tiny --num-layers 3 --emb-size 48 --num-q-heads 6 --num-kv-heads 2 --key-size 10 --num-experts 5
    --num-selected-experts 3 --ffn-size 56 --vocab-size 130 --sequence-len 64)
printf '%s\n' 'several prompts' '' 'as one batch' '!' >prompts

# told KIND FILE WORD... -- ARGUMENT...: keeps what `inspect FILE ARGUMENT... -o json` says, to be compared by `compared`; the
# words are what KIND wants to know beside it.
mkdir told
told() {
    local kind=$1 file=$2 words=()
    shift 2
    while [ "$1" != -- ]; do
        words+=("$1")
        shift
    done
    shift
    well "$program" inspect "$file" "$@" -o json
    cp "$logs/out" told/$checks.json
    keep "inspect $file $*" "$kind" told/$checks.json "${words[@]}"
}
keep() { (IFS=$'\t' && printf '%s\n' "$*") >>told/list; }
# All that was kept: every figure computed again.
compared() {
    check "$(wc -l <told/list) answers" 'the same figures, computed again' "$python" -W ignore "$sources/tests/inspected.py" told/list
}

# subjects TRACE TOKEN [COPY]: all that a trace is asked; to be compared with a copy of it.
subjects() {
    local copy=${3-$1}
    told experts "$1" "$copy" 10 -- experts
    told exchange "$1" "$copy" -- exchange
    told token "$1" "$copy" "$2" 10 -- token "$2"
    told neurons "$1" "$copy" 20 -- neurons
}

# ---- traces and weights of every kind, of ranks that share a host and of one on another ----
export EXPERTMESH_RANKS_PER_HOST=2
for kind in mlp glu; do
    for storage in f32 bf16 int8; do
        name=$kind-$storage
        well "$program" init "${shape[@]}" --ffn-kind $kind --storage $storage --seed 11 -o $name.weights.h5
        well mpirun -n 3 "$program" run --weights $name.weights.h5 --prompt-file prompts --trace $name.h5
    done
done
for name in mlp-f32 glu-bf16; do subjects $name.h5 20; done
told token glu-f32.h5 glu-f32.h5 0 3 -- token 0 --top 3
told neurons glu-f32.h5 glu-f32.h5 2 -- neurons --top 2
told experts glu-f32.h5 glu-f32.h5 1 -- experts --top 1

# neuron NAME LAYER EXPERT ROW MATRIX [HEAD ELEMENT]: alone, and for each token.
neuron() {
    local name=$1 layer=$2 expert=$3 row=$4 matrix=$5 asked=(--layer "$2" --matrix "$5" --neuron "$4" --top 4) token
    case $matrix in ffn*) asked+=(--expert "$expert") ;; esac
    if [ $# -gt 5 ]; then asked=(--layer "$layer" --matrix "$matrix" --head "$6" --neuron "$7" --top 4); fi
    told neuron "$name.weights.h5" "$name.weights.h5" "$matrix" "$layer" "$expert" "$row" 4 -- neuron "${asked[@]}"
    for token in ${tokens:-2 21}; do
        told neuron "$name.weights.h5" "$name.weights.h5" "$matrix" "$layer" "$expert" "$row" 4 "$name.h5" "$token" -- \
            neuron "${asked[@]}" --trace "$name.h5" --token "$token"
    done
}
# An expert that a token chose: chosen TRACE LAYER TOKEN CHOICE.
chosen() { "$python" -c 'import h5py, sys; a = sys.argv; print(h5py.File(a[1])["expert_indices"][int(a[2]), int(a[3]), int(a[4])])' "$@"; }
for name in mlp-f32 mlp-int8 glu-f32 glu-bf16 glu-int8; do
    expert=$(chosen $name.h5 1 21 1)
    tokens=21 neuron $name 1 "$expert" 55 ffn_up
    tokens=21 neuron $name 1 "$expert" 47 ffn_down
    neuron $name 2 0 4 router
    neuron $name 0 0 33 attn_query 3 3
    neuron $name 2 0 7 attn_key
    neuron $name 1 0 19 attn_value 1 9
    neuron $name 2 0 0 attn_output
done
neuron glu-f32 0 "$(chosen glu-f32.h5 0 2 0)" 3 ffn_gate
neuron mlp-bf16 0 4 0 ffn_up
# every term of a sum is there
told neuron mlp-f32.weights.h5 mlp-f32.weights.h5 router 0 0 1 48 mlp-f32.h5 3 -- neuron --layer 0 --matrix router --neuron 1 \
    --top 100 --trace mlp-f32.h5 --token 3
# scales by group, another program's file
well mpirun -n 2 "$program" run --weights "$sources/data/golden/grok1-int8.weights.h5" --tokens 1,5,2,9,3,3 --trace grok1.h5
cp "$sources/data/golden/grok1-int8.weights.h5" grok1.weights.h5
tokens=4 neuron grok1 0 "$(chosen grok1.h5 0 4 0)" 2 ffn_down
tokens=4 neuron grok1 0 "$(chosen grok1.h5 0 4 1)" 1 ffn_up

# the arithmetic of other programs: what the run used is computed again
cp glu-f32.weights.h5 vllm.weights.h5
well "$program" run --weights vllm.weights.h5 --prompt-file prompts --numerics vllm --router-softcap 2 --gelu erf --trace vllm.h5
tokens=21 neuron vllm 1 "$(chosen vllm.h5 1 21 0)" 55 ffn_up
tokens=21 neuron vllm 1 "$(chosen vllm.h5 1 21 1)" 7 ffn_down
tokens=21 neuron vllm 1 0 2 router
tokens=21 neuron vllm 1 0 2 attn_output

# ---- in chunks, as other programs may store them ----
# in_chunks FROM TO CHUNK...: datasets of as many axes as a chunk has.
in_chunks() {
    local to=$2 chunk
    cp "$1" "$to"
    for chunk in "${@:3}"; do
        well h5repack -l CHUNK="$chunk" -f GZIP=1 "$to" chunked.h5
        mv chunked.h5 "$to"
    done
}
in_chunks glu-f32.h5 packed.h5 1x2x3x5 2x3x5 2x3 5
subjects packed.h5 20
in_chunks glu-f32.weights.h5 packed.weights.h5 2x7x5 7x5 11


tokens=21 neuron packed 1 "$(chosen packed.h5 1 21 0)" 9 ffn_up
tokens=21 neuron packed 1 "$(chosen packed.h5 1 21 0)" 9 ffn_down

# ---- parts of a trace ----
part() {
    local file=$1
    shift
    well mpirun -n 3 "$program" run --weights glu-f32.weights.h5 --prompt-file prompts --trace "$file" "$@"
}
part part.h5 --trace-layers 0,2 --trace-tokens 3-5,20,9-10
subjects part.h5 20
told neuron glu-f32.weights.h5 glu-f32.weights.h5 router 2 0 1 10 part.h5 20 -- \
    neuron --layer 2 --matrix router --neuron 1 --trace part.h5 --token 20
part few.h5 --trace-only router_probs,resid_post
told experts few.h5 few.h5 10 -- experts
told token few.h5 few.h5 20 10 -- token 20
part choices.h5 --trace-only expert_indices
told experts choices.h5 choices.h5 10 -- experts
told token choices.h5 choices.h5 20 10 -- token 20

# ---- a trace that is being written: what is not counted is not told ----
cp glu-f32.h5 growing.h5
"$python" - growing.h5 <<'PYTHON'
import h5py, sys
with h5py.File(sys.argv[1], "r+") as file:
    file["tokens_done"][()], file["step_tokens"][()], file["layers_done"][()] = 15, 6, 2
    file.attrs["complete"] = 0
    for name in ("resid_pre", "ffn_hidden", "router_probs"):
        file[name][:, 21:] = float("nan")
        file[name][2:, 15:] = float("nan")
    file["expert_indices"][:, 21:] = -1
    file["expert_indices"][2:, 15:] = -1
PYTHON
subjects growing.h5 20
subjects growing.h5 3
well "$program" inspect growing.h5 exchange
checks=$((checks + 1))
for words in 'phase_seconds is not written' 'its first 15 tokens are told, and of the next 6 the first 2 layers'; do
    grep -q "$words" "$logs/out" || fail 'inspect growing.h5 exchange' "$words" "$(cat "$logs/out")"
done

# ---- a run at work, which holds still while it is looked at ----
"$program" run --preset tiny --seed 5 --num-layers 3 --prompt 'a run at work' --generate 1500 --trace live.h5 >live.out 2>&1 &
run=$!
trap 'kill -KILL $run; clean_up' EXIT # it must not stay behind, stopped
tokens_of() { "$program" inspect "$1" --table attributes -o csv 2>/dev/null | sed -n 's/^tokens_done,//p'; }
until [ "$(tokens_of live.h5)" -ge 20 ] 2>/dev/null || ! kill -0 $run 2>/dev/null; do sleep 0.01; done
kill -STOP $run
cp live.h5 still.h5
subjects live.h5 18 still.h5
well "$program" report live.h5 -o live.html
well "$program" timeline live.h5 -o live.json
well "$program" export live.h5 routing
check 'looking at a run at work' 'fewer than its 1,512 tokens' test "$(tokens_of still.h5)" -lt 1512
kill -CONT $run
wait $run
check 'a run that was looked at' 'goes on to its end' test $? = 0
trap clean_up EXIT
check 'a run that was looked at' 'all its tokens' test "$(tokens_of live.h5)" = 1512
subjects live.h5 1500

# ---- csv, one table ----
# as_csv FILE TABLE ARGUMENT...
as_csv() {
    local file=$1 table=$2
    shift 2
    well "$program" inspect "$file" "$@" -o json
    cp "$logs/out" told/$checks.of.json
    well "$program" inspect "$file" "$@" -o csv --table "$table"
    cp "$logs/out" told/$checks.csv
    keep "inspect $file $* -o csv --table $table" csv told/$checks.csv told/$((checks - 1)).of.json "$table"
}
as_csv glu-f32.h5 loads experts
as_csv glu-f32.h5 balance experts
as_csv glu-f32.h5 next token 3
as_csv glu-f32.h5 path token 3
as_csv glu-f32.h5 layer_phases exchange
as_csv glu-f32.h5 dead neurons
as_csv glu-f32.h5 datasets
as_csv glu-f32.weights.h5 tensors
as_csv glu-f32.weights.h5 config
well "$program" inspect glu-f32.h5 experts -o csv --table balance
cp "$logs/out" first.csv
well "$program" inspect glu-f32.h5 experts -o csv
check 'inspect -o csv without --table' 'the first table' cmp "$logs/out" first.csv

# ---- one layer, one expert ----
for subject in experts neurons; do
    well "$program" inspect glu-f32.h5 $subject -o json
    cp "$logs/out" told/$subject.json
    well "$program" inspect glu-f32.h5 $subject --layer 1 --expert 3 -o json
    cp "$logs/out" told/one-$subject.json
done
keep 'experts --layer 1 --expert 3' narrow told/one-experts.json told/experts.json loads 1 3
keep 'experts --layer 1 --expert 3' narrow told/one-experts.json told/experts.json values 1 3
for table in activity top dead; do
    keep 'neurons --layer 1 --expert 3' narrow told/one-neurons.json told/neurons.json $table 1 3
done
compared

# ---- requests that cannot be met ----
t=glu-f32.h5 w=glu-f32.weights.h5
ranks='1 4'
refuse 64 'there is no subject "expert"' 'the nearest is experts' -- inspect $t expert
ranks=1
refuse 64 'there is no subject "x9y9z9"' 'neuron, experts, token, exchange and neurons' -- inspect $t x9y9z9
refuse 64 'which token?' -- inspect $t token
refuse 64 '"x"' 'not a whole number' -- inspect $t token x
refuse 64 'nothing follows experts' '"3"' -- inspect $t experts 3
refuse 64 'there is no token 28' '0 to 27' -- inspect $t token 28
refuse 64 '--layer' 'there is no layer 3' '0 to 2' -- inspect $t experts --layer 3
refuse 64 '--expert' 'there is no expert 5' '0 to 4' -- inspect $t neurons --expert 5
refuse 64 '--neuron says nothing of the subject experts' -- inspect $t experts --neuron 3
refuse 64 '--layer says nothing of a file' 'add a subject' -- inspect $t --layer 1
refuse 64 '--table' 'no table "load"' 'the nearest is loads' -- inspect $t experts --table load
refuse 64 '--table' 'no table "x9y9z9"' 'balance, loads, ranks' -- inspect $t experts --table x9y9z9
refuse 64 '--output' '"xml"' 'csv or json' -- inspect $t experts -o xml
refuse 64 '--top' '"0"' -- inspect $t neurons --top 0
refuse 65 'growing.h5' 'token 25 is not written' 'has 21 tokens' -- inspect growing.h5 token 25
refuse 65 'growing.h5' 'phase_seconds is not written' -- inspect growing.h5 exchange --table phases
refuse 65 'part.h5' 'layer 1 was not recorded, only 0,2' '--trace-layers ...,1' -- inspect part.h5 experts --layer 1
refuse 65 'part.h5' 'token 6 was not recorded, only 3-5,9-10,20' '--trace-tokens ...,6' -- inspect part.h5 token 6
refuse 65 'few.h5' 'ffn_hidden was not recorded' '--trace-only ...,ffn_hidden' -- inspect few.h5 neurons
refuse 65 'few.h5' 'expert_indices was not recorded' '--trace-only' -- inspect few.h5 experts --table pairs
refuse 65 'few.h5' 'logits was not recorded' '--trace-only' -- inspect few.h5 token 3 -o csv --table next
refuse 64 '--layer' -- inspect $w neuron --expert 1 --neuron 2
refuse 64 '--expert' -- inspect $w neuron --layer 1 --neuron 2
refuse 64 '--neuron' -- inspect $w neuron --layer 1 --expert 2
refuse 64 'there is no layer 3' "$w has layer 0 to 2" -- inspect $w neuron --layer 3 --expert 1 --neuron 2
refuse 64 'there is no expert 5' '0 to 4' -- inspect $w neuron --layer 2 --expert 5 --neuron 2
refuse 64 'there is no neuron 56' '0 to 55' -- inspect $w neuron --layer 2 --expert 4 --neuron 56
refuse 64 'there is no neuron 48' '0 to 47' -- inspect $w neuron --layer 2 --expert 4 --neuron 48 --matrix ffn_down
refuse 64 'there is no head 2' '0 to 1' -- inspect $w neuron --layer 2 --head 2 --neuron 1 --matrix attn_key
refuse 64 'element of a head 10' '0 to 9' -- inspect $w neuron --layer 2 --head 1 --neuron 10 --matrix attn_key
refuse 64 '--head' 'attn_query, attn_key and attn_value' -- inspect $w neuron --layer 2 --head 1 --neuron 1 --matrix router
refuse 64 '--matrix' '"ffn_upp"' 'the nearest is ffn_up' -- inspect $w neuron --layer 2 --neuron 1 --matrix ffn_upp
refuse 64 'has no ffn_gate' 'mlp' -- inspect mlp-f32.weights.h5 neuron --layer 2 --neuron 1 --expert 1 --matrix ffn_gate
refuse 64 '--expert' 'router is not of an expert' -- inspect $w neuron --layer 2 --neuron 1 --expert 1 --matrix router
refuse 64 '--token' '--trace T.h5 is missing' -- inspect $w neuron --layer 2 --neuron 1 --expert 1 --token 3
refuse 64 'add --token' -- inspect $w neuron --layer 2 --neuron 1 --expert 1 --trace $t
refuse 64 'there is no token 28' '0 to 27' -- inspect $w neuron --layer 2 --neuron 1 --expert 1 --trace $t --token 28
value=(neuron --layer 2 --neuron 1 --expert 1)
refuse 65 "$w" 'mlp-f32.h5' 'of different models' -- inspect $w "${value[@]}" --trace mlp-f32.h5 --token 3
refuse 65 'few.h5' 'ffn_in was not recorded' '--trace-only' -- inspect $w "${value[@]}" --trace few.h5 --token 3
refuse 65 'growing.h5' 'layer 2 of token 20 is not written' -- inspect $w "${value[@]}" --trace growing.h5 --token 20
refuse 65 "$w" 'a trace is wanted' -- inspect $w experts
refuse 65 "$t" '"expertmesh-trace"' '"expertmesh-weights" is wanted' -- inspect $t "${value[@]}"
refuse 66 'none.h5' -- inspect none.h5 experts
other=$("$python" -c 'import h5py; c = list(h5py.File("glu-f32.h5")["expert_indices"][1, 21]); print([e for e in range(5) if e not in c][0])')
refuse 64 "--expert $other" 'token 21 chose experts' -- inspect $w neuron --matrix ffn_down --layer 1 --expert "$other" --neuron 1 --trace $t --token 21

# ---- damaged and foreign files ----
# damage NAME PYTHON: a copy of a trace with something wrong.
damage() {
    cp glu-f32.h5 "$1.h5"
    "$python" -c "import h5py, numpy
with h5py.File('$1.h5', 'r+') as file:
    $2" || fail "$2" 'a damaged file' 'none'
}
# damaged NAME PYTHON WORD...: every subject refuses it alike.
damaged() {
    damage "$1" "$2"
    refuse 65 "$1.h5" "${@:3}" -- inspect "$1.h5" experts
}
damaged no-format 'del file.attrs["format"]' 'no attribute "format"'
damaged version 'file.attrs["format_version"] = 2' 'format_version 2'
damaged no-config 'del file.attrs["config_json"]' '"config_json"' 'missing'
damaged bad-config 'file.attrs["config_json"] = "{"' 'config_json' 'not JSON'
damaged half-config 'file.attrs["config_json"] = "{\"emb_size\": 3}"' 'config_json' 'has no "num_layers"'
damaged no-layer 'del file["layer"]' '/layer is missing'
damaged layers-twice 'file["layer"][...] = [0, 1, 1]' '/layer[2] is 1' 'must ascend'
damaged layers-past 'file["layer"][...] = [0, 1, 3]' '/layer[2] is 3' 'from 0 to 2'
damaged no-counter 'del file["tokens_done"]' '/tokens_done is missing'
damaged counter-past 'file["tokens_done"][()] = 29' '/tokens_done is 29' 'from 0 to 28'
damaged counter-below 'file["layers_done"][()] = -1' '/layers_done is -1'
damaged narrow 'del file["ffn_hidden"]; file["ffn_hidden"] = numpy.zeros((3, 28, 3, 55), "f4")' '/ffn_hidden has shape [3, 28, 3, 55], but must be [3, 28, 3, 56]'
damaged type 'a = file["resid_pre"][...]; del file["resid_pre"]; file["resid_pre"] = a.astype("f8")' '/resid_pre is stored as float64, but must be float32'
damaged ranks 'file.attrs["num_ranks"] = 4' '/dispatch_rows has shape [3, 3, 3], but must be [3, 4, 4]'
damaged experts 'file["expert_indices"][1, 4, 0] = 5' 'expert_indices of layer 1 has 5' '0 to 4'
damaged load 'file["expert_load"][1, 2] = -7' 'expert_load of layer 1 has -7' 'damaged'
damaged virtual 'del file["resid_pre"]; l = h5py.VirtualLayout((3, 28, 48), "f4"); l[:] = h5py.VirtualSource("x.h5", "y", (3, 28, 48)); file.create_virtual_dataset("resid_pre", l)' '/resid_pre is a virtual dataset'
cp glu-f32.h5 seconds.h5
"$python" -c 'import h5py; f = h5py.File("seconds.h5", "r+"); f["phase_seconds"][2, 1, 3] = float("nan"); f["dispatch_rows"][0, 1, 1] = -1'
refuse 65 seconds.h5 'phase_seconds of layer 2 has nan' -- inspect seconds.h5 exchange --table phases
refuse 65 seconds.h5 'dispatch_rows of layer 0 has -1' -- inspect seconds.h5 exchange
# A trace without phases has none to tell; numbers as large as they come make a list no longer.
damage no-phases 'for name in ("phase_seconds", "outer_seconds", "exchange_rows", "exchange_bytes", "outer_exchange_rows", "outer_exchange_bytes"): shape, type = [0 if n == 11 else n for n in file[name].shape], file[name].dtype; del file[name]; file.create_dataset(name, shape, type)
    del file["phase"]'
well "$program" inspect no-phases.h5 exchange
damage large 'n = file["token"].shape[0]; file["token"][...] = numpy.array([2 ** 61 + 2 * i + i % 2 for i in range(n)])'
refuse 65 'token 5 was not recorded, only 2305843009213693952,' '...; run with' -- inspect large.h5 token 5
damage no-expert 'file["expert_indices"][1, 4, 0] = 77'
refuse 65 'no-expert.h5' 'expert_indices of layer 1 has 77' -- inspect no-expert.h5 token 4
refuse 65 'no-expert.h5' 'expert_indices of layer 1 has 77' -- inspect $w neuron --matrix ffn_down --layer 1 --expert 1 --neuron 1 --trace no-expert.h5 --token 4
# compare: what it cannot read whole it does not compare, and the sign of a zero is a bit.
refuse 65 'virtual.h5' 'virtual dataset' -- compare glu-f32.h5 virtual.h5
refuse 65 'layers-twice.h5' 'do not ascend' -- compare glu-f32.h5 layers-twice.h5
damage plus 'file["attn_out"][0, 0, 0] = 0.0'
damage minus 'file["attn_out"][0, 0, 0] = -0.0'
watch "$program" compare plus.h5 minus.h5
check 'compare: 0 and -0' 'DIFFERS' grep -q '^attn_out .* DIFFERS: signs of zeros' "$logs/out"
check 'compare: 0 and -0' 'exit code 1' [ "$status" = 1 ]
well "$program" compare plus.h5 minus.h5 --tolerance 1e-9
damage words 'file["token_ids"][0] += 1; file["attn_out"][0, 0, 0] = 9'
watch "$program" compare glu-f32.h5 words.h5
check 'compare: another prompt' 'it is said' grep -q '^they part in layer 0, at attn_out; their tokens differ, too' "$logs/out"
# What nobody can read was not told.
# shellcheck disable=SC2016 # the inner shell's words
for told in 'compare plus.h5 minus.h5 >/dev/full' 'compare plus.h5 minus.h5 >&-' 'inspect plus.h5 <&- >&-' 'inspect plus.h5 <&- >&- 2>&-'; do
    watch bash -c "\"\$0\" $told" "$program"
    check "$told" 'exit code 73' [ "$status" = 73 ]
done
# The command that is recorded says the same to a shell.
words=("$program" run --preset tiny --prompt "it's a  \"neuron\" \$HOME \\" --trace spelt.h5 --trace-only logits)
well "${words[@]}"
check 'the recorded command' 'the words that were given' "$python" -c 'import h5py, shlex, sys
assert shlex.split(h5py.File("spelt.h5").attrs["command_line"]) == sys.argv[1:], h5py.File("spelt.h5").attrs["command_line"]' "${words[@]}"
head -c 20000 glu-f32.h5 >cut.h5
refuse 65 cut.h5 -- inspect cut.h5 experts
printf 'no file of this kind' >text.h5
refuse 65 text.h5 'not an HDF5 file' -- inspect text.h5 token 3

finish
