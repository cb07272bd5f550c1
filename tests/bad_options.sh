#!/bin/bash
# tests/bad_options.sh: every option of every command, misspelt, without its value, with a wrong one, against another; and
# models that cannot be.
#
#   bad_options.sh PROGRAM SOURCES SCRATCH
# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh" "$@"

tiny=(--preset tiny --num-layers 2)
ranks='1 2' # and some at 4

# ---- commands ----
refuse 64 'which command' --
refuse 64 '"rum"' 'the nearest is run' -- rum
refuse 64 '"--hlep"' -- --hlep
refuse 64 '"x y"' -- 'x y'
for command in init run compare inspect bench presets export; do
    ranks=1 refuse 64 "\"${command}s\"" "the nearest is $command" -- "${command}s"
done

# ---- every option in its form ----
for command in init run compare inspect bench presets export; do
    watch "$program" "$command" --help
    mapfile -t options < <(sed -nE 's/^  (-[a-z], )?--([a-z0-9-]+)( ([^ ]+))?( .*)?$/\2 \4/p' "$logs/out")
    checks=$((checks + 1))
    case $command,${#options[@]} in
        init,2[0-9] | run,[4-6][0-9] | compare,2 | inspect,12 | bench,3[0-9] | presets,1 | export,4) ;;
        *) fail "reading the options in $command --help" 'as many as there are' "${options[*]}" ;;
    esac
    for option in "${options[@]}"; do
        read -r name takes <<<"$option"
        ranks=1 refuse 64 "unknown option --$name${name: -1};" "the nearest is --$name" -- "$command" "--$name${name: -1}"
        if [ -n "$takes" ]; then
            ranks=1 refuse 64 "--$name needs an argument" -- "$command" "--$name"
            ranks=1 refuse 64 "--$name is given twice" -- "$command" "--$name=1" "--$name=1"
        else
            ranks=1 refuse 64 "--$name takes no argument" -- "$command" "--$name=1"
        fi
    done
    ranks=1 refuse 64 'unknown option -y' -- "$command" -yz
done
refuse 64 'run' 'unknown option --promtp' 'the nearest is --prompt' -- run --promtp hello
refuse 64 'run' '--tok' 'the nearest is --tokens' -- run --tok 1
refuse 64 'init' '-o needs an argument' -- init -o
refuse 64 'too many arguments at "here"' -- run here
refuse 64 'too many arguments at "here"' -- presets here
refuse 64 'a file name is missing' -- inspect
refuse 64 'a file name is missing' 'A.h5 B.h5' -- compare a.h5
refuse 64 'too many arguments at "c.h5"' -- compare a.h5 b.h5 c.h5
refuse 64 '--force takes no argument' -- init --force=no

# ---- values ----
run=(run "${tiny[@]}" --tokens "1,2,3")
refuse 64 '--preset' '"grok"' 'the nearest is grok1' -- run --preset grok --tokens 1
refuse 64 '--preset' '"llama-is-none"' -- run --preset llama-is-none --tokens 1
refuse 64 '--storage' '"f16"' 'f32, bf16 or int8' -- "${run[@]}" --storage f16
for seed in x -1 1.5 99999999999999999999 9223372036854775808 ''; do
    ranks=1 refuse 64 '--seed' "\"$seed\"" 'whole number' -- "${run[@]}" --seed "$seed"
done
refuse 64 '--seed' '"-1"' 'whole number of 0 or more' -- init "${tiny[@]}" --seed -1 -o w.h5

# ---- how to compute and exchange ----
refuse 64 '--exchange' '"nodes"' 'flat or node' -- "${run[@]}" --exchange nodes
refuse 64 '--compute' '"f16"' 'f32, bf16 or int8' -- "${run[@]}" --compute f16
for word in '' F32 bf int8x 'bf16,int8'; do ranks=1 refuse 64 '--compute' "\"$word\"" -- "${run[@]}" --compute "$word"; done
for pair in bf16-f32 bf16-int8 int8-f32 int8-bf16; do
    refuse 64 "--compute ${pair%-*}" "stored as ${pair%-*}" "is stored as ${pair#*-}" -- \
        "${run[@]}" --compute "${pair%-*}" --storage "${pair#*-}"
done
ranks=4 refuse 64 '--compute bf16' 'is stored as int8' -- \
    run --weights "$sources/data/golden/grok1-int8.weights.h5" --tokens 1 --compute bf16
sets=(plain)
if grep -qw avx2 /proc/cpuinfo && grep -qw fma /proc/cpuinfo; then sets+=(avx2); fi
for set in "${sets[@]}"; do
    EXPERTMESH_ISA=$set refuse 64 '--compute bf16' 'AVX-512-BF16' "EXPERTMESH_ISA=$set" -- \
        "${run[@]}" --compute bf16 --storage bf16
    EXPERTMESH_ISA=$set refuse 64 '--compute int8' 'AVX-512-VNNI' "EXPERTMESH_ISA=$set" -- \
        "${run[@]}" --compute int8 --storage int8
done
# One rank without it is enough: all use one set.
refused 64 '--compute int8' 'AVX-512-VNNI' 'EXPERTMESH_ISA=plain' -- \
    mpirun -n 1 "$program" "${run[@]}" --compute int8 --storage int8 : \
    -n 1 env EXPERTMESH_ISA=plain "$program" "${run[@]}" --compute int8 --storage int8
for set in sse4 AVX2 'avx2 ' ''; do
    EXPERTMESH_ISA=$set refuse 64 "EXPERTMESH_ISA is \"$set\"" 'plain, avx2, avx512, amx' -- "${run[@]}"
done
EXPERTMESH_ISA=sse4 refuse 64 'EXPERTMESH_ISA is "sse4"' -- bench --preset tiny --only limits
for count in 0 -1 x 1e3 1.5 '' 99999999999999999999; do
    ranks=1 refuse 64 '--threads' "\"$count\"" 'whole number from 1 to 1024' -- "${run[@]}" --threads "$count"
done
ranks=4 refuse 64 '--threads' '"0"' 'whole number from 1 to 1024' -- "${run[@]}" --threads 0
refuse 64 '--threads' '99999' 'from 1 to 1024' -- "${run[@]}" --threads 99999

for seconds in -1 0.5 1e9; do
    ranks=1 refuse 64 '--watchdog' 'seconds from 1 to 1000000, or 0' -- "${run[@]}" --watchdog "$seconds"
done
refuse 64 '--watchdog' '"soon"' 'finite number' -- "${run[@]}" --watchdog soon

# ---- generation ----
refuse 64 '--temperature' '-0.5' 'below 0' -- "${run[@]}" --generate 3 --temperature -0.5
for p in 0 -1 1.01; do ranks=1 refuse 64 '--top-p' "$p" 'at most 1' -- "${run[@]}" --generate 3 --top-p "$p"; done
for text in nan inf x ''; do
    ranks=1 refuse 64 '--temperature' "\"$text\"" 'finite number' -- "${run[@]}" --generate 3 --temperature "$text"
done
for option in generate prefill-chunk stop-token top-k sample-seed; do
    ranks=1 refuse 64 "--$option" '"-1"' 'whole number' -- "${run[@]}" "--$option" -1
done
ranks=1 refuse 64 '--prefill-chunk' '"0"' '1 or more' -- "${run[@]}" --prefill-chunk 0
refuse 64 '--stop-token' '256' 'outside the vocabulary' -- "${run[@]}" --vocab-size 256 --generate 3 --stop-token 256
refuse 64 '--generate' '2046 tokens after the 3 of prompt 0' 'sequence_len, 2048' -- \
    "${run[@]}" --sequence-len 2048 --generate 2046
for option in temperature top-k top-p sample-seed stop-token; do
    ranks=1 refuse 64 "--$option" '--generate N is missing' -- "${run[@]}" "--$option" 1
done

for field in emb-size num-layers num-q-heads num-kv-heads key-size num-experts num-selected-experts ffn-size vocab-size \
    sequence-len; do
    ranks=1 refuse 64 "--$field" '"x"' 'whole number' -- run --preset tiny --tokens 1 "--$field" x
    ranks=1 refuse 64 "${field//-/_} is -1" 'from 1 to' -- run --preset tiny --tokens 1 "--$field" -1
    ranks=4 refuse 64 "${field//-/_} is 0" 'from 1 to' -- init --preset tiny "--$field" 0 -o w.h5
done
for field in rms-norm-eps rope-base attn-output-multiplier attn-logit-softcap embedding-multiplier-scale \
    output-multiplier-scale; do
    ranks=1 refuse 64 "--$field" '"nan"' 'finite number' -- run --preset tiny --tokens 1 "--$field" nan
    ranks=1 refuse 64 "${field//-/_} is -1" 'above 0' -- run --preset tiny --tokens 1 "--$field" -1
    ranks=4 refuse 64 "${field//-/_} is 0" 'above 0' -- init --preset tiny "--$field" 0 -o w.h5
done
for value in '' 1.5 1e3 99999999999999999999; do
    ranks=1 refuse 64 '--emb-size' "\"$value\"" 'whole number' -- run --preset tiny --tokens 1 --emb-size "$value"
done
for value in '' x inf 1e999; do
    ranks=1 refuse 64 '--rope-base' "\"$value\"" 'finite number' -- run --preset tiny --tokens 1 --rope-base "$value"
done
refuse 64 'vocab_size is 1073741825' 'from 1 to 1073741824' -- run --preset tiny --tokens 1 --vocab-size 1073741825
refuse 64 '--ffn-kind' '"gelu"' 'glu' 'mlp' -- run --preset tiny --tokens 1 --ffn-kind gelu

refuse 64 'num_q_heads is 6' 'multiple of num_kv_heads, 4' -- run --preset tiny --tokens 1 --num-kv-heads 4
refuse 64 'num_selected_experts is 9' 'only 8 experts' -- run --preset tiny --tokens 1 --num-selected-experts 9
refuse 64 'key_size is 15' 'even' -- run --preset tiny --tokens 1 --key-size 15
refuse 64 'num_layers is 1001' 'from 1 to 1000' -- run --preset tiny --tokens 1 --num-layers 1001
refuse 64 'num_experts is 65537' 'at most 65536' -- run --preset tiny --tokens 1 --num-experts 65537
refuse 64 'num_q_heads is 1000000' 'at most 65536' -- run --preset tiny --tokens 1 --num-q-heads 1000000
refuse 64 'parameters' 'at most 1e15' -- run --preset tiny --tokens 1 --emb-size 1073741824 --ffn-size 1073741824 \
    --num-experts 65536 --num-layers 1000

# ---- a model from a file of fields ----
json() { printf '%s' "$2" >"$1"; }
json none.json ''
json broken.json '{"emb_size": 96,'
json after.json '{"emb_size": 96} and more'
json list.json '[96]'
json unknown.json '{"embsize": 96}'
json text.json '{"emb_size": "96"}'
json fraction.json '{"emb_size": 96.5}'
json huge.json '{"emb_size": 1e300}'
json kind.json '{"ffn_kind": "moe"}'
json kind-number.json '{"ffn_kind": 1}'
json heads.json '{"num_q_heads": 5}'
json zero.json '{"rope_base": 0}'
json infinite.json '{"rope_base": 1e999}'
json part.json '{"emb_size": 96}'
refuse 66 'absent.json' 'No such file' -- run --config absent.json --tokens 1
refuse 66 'Is a directory' -- run --config . --tokens 1
refuse 65 'none.json' 'not JSON' 'byte 0' -- run --preset tiny --config none.json --tokens 1
refuse 65 'broken.json' 'not JSON' 'byte 16' -- run --preset tiny --config broken.json --tokens 1
ranks=1 refuse 65 'after.json' 'not JSON' -- run --preset tiny --config after.json --tokens 1
refuse 65 'list.json' 'not a JSON object' -- run --preset tiny --config list.json --tokens 1
refuse 65 'unknown.json' '"embsize"' 'no field' -- run --preset tiny --config unknown.json --tokens 1
refuse 65 'text.json' '"emb_size"' 'must be a number' -- run --preset tiny --config text.json --tokens 1
refuse 65 'fraction.json' '"emb_size" is 96.5' 'whole number' -- run --preset tiny --config fraction.json --tokens 1
ranks=1 refuse 65 'huge.json' '"emb_size" is 1e+300' -- run --preset tiny --config huge.json --tokens 1
refuse 65 'kind.json' '"ffn_kind"' 'glu' -- run --preset tiny --config kind.json --tokens 1
ranks=1 refuse 65 'kind-number.json' '"ffn_kind"' -- run --preset tiny --config kind-number.json --tokens 1
refuse 65 'heads.json' 'num_q_heads is 5' 'multiple of num_kv_heads, 2' -- init --preset tiny --config heads.json -o w.h5
refuse 65 'zero.json' 'rope_base is 0' -- run --preset tiny --config zero.json --tokens 1
ranks=1 refuse 65 'infinite.json' 'rope_base' -- run --preset tiny --config infinite.json --tokens 1
refuse 64 'num_layers is not given' '--preset' -- run --config part.json --tokens 1
refuse 64 'num_layers is not given' '--preset' -- run --emb-size 8 --tokens 1

# ---- what is missing, and what excludes each other ----
refuse 64 'nothing to run' '--prompt' '--tokens-file' -- run --preset tiny
refuse 64 'which model' '--weights' '--preset' -- run --tokens 1
refuse 64 '--prompt and --tokens' -- run --preset tiny --prompt a --tokens 1
ways=(prompt prompt-file tokens tokens-file)
for first in 0 1 2; do
    for second in $(seq $((first + 1)) 3); do
        ranks=1 refuse 64 "--${ways[first]} and --${ways[second]} are both given" -- run --preset tiny \
            "--${ways[second]}" 1 "--${ways[first]}" 1
    done
done
for other in '--preset=tiny' '--config=c.json' '--seed=1' '--storage=bf16' '--emb-size=8' '--rope-base=1'; do
    ranks=1 refuse 64 '--weights brings its own model' "leave out ${other%=*}" -- run --weights w.h5 "$other" --tokens 1
done
ranks=4 refuse 64 '--weights brings its own model' 'leave out --seed' -- run --weights w.h5 --seed 3 --tokens 1
for part in '--trace-only=logits' '--trace-layers=0' '--trace-tokens=0'; do
    refuse 64 "${part%=*}" '--trace T.h5 is missing' -- "${run[@]}" "$part"
done
refuse 64 '--force replaces' '--trace, --checkpoint or --write-layout' 'none of them is given' -- "${run[@]}" --force
refuse 64 'say where to write' '-o W.h5' -- init --preset tiny

# ---- what to record ----
refuse 64 '--trace-only' '"router_prob"' 'the nearest is router_probs' -- "${run[@]}" --trace t.h5 --trace-only router_prob
refuse 64 '--trace-only' '""' -- "${run[@]}" --trace t.h5 --trace-only ,logits
refuse 64 '--trace-only' 'names no quantity' -- "${run[@]}" --trace t.h5 --trace-only ''
refuse 64 '--trace-only' '"logits resid_pre"' -- "${run[@]}" --trace t.h5 --trace-only 'logits resid_pre'
for list in 2 0-2 1-0 -1 x '' ',' '0,' '0,,1' '0 1' 0- 0-1-1 0x1 99999999999999999999 0-99999999999999999999; do
    ranks=1 refuse 64 '--trace-layers' "\"$list\"" 'numbers from 0 to 1' -- "${run[@]}" --trace t.h5 --trace-layers "$list"
done
ranks=4 refuse 64 '--trace-layers' '"0-2"' 'numbers from 0 to 1' -- "${run[@]}" --trace t.h5 --trace-layers 0-2
refuse 64 '--trace-tokens' '"3"' 'numbers from 0 to 2' -- "${run[@]}" --trace t.h5 --trace-tokens 3

# ---- compare ----
for tolerance in x -1 nan inf '' 1e-5x; do
    ranks=1 refuse 64 '--tolerance' "\"$tolerance\"" '0 or more' -- compare a.h5 b.h5 --tolerance "$tolerance"
done
ranks=4 refuse 64 '--tolerance' '"x"' '0 or more' -- compare a.h5 b.h5 --tolerance x

# ---- bench ----
bench=(bench --preset tiny --only limits)
refuse 64 '--only' '"modle"' 'the nearest is model' -- bench --only limits,modle
for list in '' 'limits,' ',limits' 'limits model'; do ranks=1 refuse 64 '--only' 'no part' -- bench --only "$list"; done
for option in runs threads tokens generate memory; do
    for value in 0 -1 x '' 1.5 99999999999999999999; do
        ranks=1 refuse 64 "--$option" "\"$value\"" 'whole number from 1 to' -- "${bench[@]}" "--$option" "$value"
    done
done
refuse 64 '--runs' '"100"' 'from 1 to 99' -- "${bench[@]}" --runs 100
refuse 64 '--output' '"xml"' 'csv or json' -- "${bench[@]}" -o xml
refuse 64 '--storage' '"f16"' 'f32, bf16 or int8' -- "${bench[@]}" --storage f16
refuse 64 '--tokens 2000' '--generate 49' 'sequence_len, 2048' -- "${bench[@]}" --sequence-len 2048 --tokens 2000 --generate 49
refuse 64 '--preset' '"grok"' 'the nearest is grok1' -- bench --preset grok
refuse 73 '--folder' 'absent' 'No such file' -- bench --preset tiny --only files --folder absent
: >none.txt
refuse 73 '--folder none.txt' 'Not a directory' -- bench --preset tiny --only files --folder none.txt

# ---- ranks that were started differently ----
refused 64 'different arguments' 'tokens 1' 'rank 1' 'tokens 2' -- \
    mpirun -n 1 "$program" run "${tiny[@]}" --tokens 1 : -n 1 "$program" run "${tiny[@]}" --tokens 2
refused 64 'different arguments' 'rank 3' 'init' -- \
    mpirun -n 3 "$program" run "${tiny[@]}" --tokens 1 : -n 1 "$program" init "${tiny[@]}" -o w.h5
refused 64 'different arguments' 'rank 1' '--trace t.h5' -- \
    mpirun -n 1 "$program" "${run[@]}" : -n 3 "$program" "${run[@]}" --trace t.h5
refused 64 'different arguments' 'rank 1' -- mpirun -n 1 "$program" : -n 1 "$program" presets
refused 64 'different arguments' 'rank 1' -- mpirun -n 1 "$program" --version : -n 1 "$program" --help
long=$(printf '1,%.0s' {1..5000})1
refused 64 'different arguments' 'rank 1' -- \
    mpirun -n 1 "$program" run "${tiny[@]}" --tokens "$long" : -n 1 "$program" run "${tiny[@]}" --tokens 2

# ---- larger than the memory: said at once, before any of it is allocated ----
memory=$(awk '/^MemTotal:/ { print int($2 / 1e6) }' /proc/meminfo)
if [ "$memory" -lt 1200 ]; then
    refuse 65 'does not fit' 'rank 0 needs' 'of it weights' 'free' 'TB' -- run --preset grok1 --tokens 1
    refuse 65 'does not fit' 'rank 0 needs' -- run --preset article --tokens 1 --trace t.h5
    # More bytes than a number of 64 bits counts.
    yes 1 | head -n 8 >eight.txt
    far=(--sequence-len 1073741824 --generate 1000000000)
    ranks=1 refuse 65 'does not fit' '1.00 PB' -- run --preset tiny --num-layers 1000 --num-q-heads 16384 --num-kv-heads 16384 --key-size 2 \
        --emb-size 1 --ffn-size 1 --num-experts 1 --num-selected-experts 1 --vocab-size 2 --storage int8 --tokens-file eight.txt "${far[@]}"
    ranks=1 refuse 73 'a trace of 100.00 PB' -- run --preset tiny --ffn-size 1048576 --num-layers 1000 --tokens-file eight.txt "${far[@]}" --trace t.h5
    refuse 65 'does not fit' 'rank 0 needs' -- run --preset tiny --num-experts 65536 --ffn-size 65536 --num-layers 8 --tokens 1
fi

# ---- standard output that takes nothing ----
ranks=1
for command in presets '--help' '--version'; do
    # shellcheck disable=SC2016
    refused 73 'standard output' -- bash -c '"$1" "$2" >/dev/full' bash "$program" "$command"
done

finish
